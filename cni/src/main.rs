//! `margay-cni`: one command of the CNI specification.

use margay_cni::{
    commands,
    config::{Config, Version},
    environment::{Command, Environment},
    error::{Code, Error},
    install,
};
use serde_json::Value;
use std::{
    env,
    io::{self, Read as _, Write as _},
    process::ExitCode,
};

/// With the commit, where hack/programs built it.
const VERSION: &str = match option_env!("MARGAY_VERSION") {
    Some(version) => version,
    None => env!("CARGO_PKG_VERSION"),
};

/// The largest configuration, in bytes; with the result of ADD and all that is valid.
const CONFIGURATION: u64 = 16 << 20;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if let Some((first, rest)) = arguments.split_first() {
        return for_people(first, rest);
    }
    let mut version = Version::default();
    let written = match run(&mut version) {
        Ok(None) => return ExitCode::SUCCESS,
        Ok(Some(result)) => write(&result),
        Err(error) => {
            let _ = write(&error.to_json(version));
            return ExitCode::FAILURE;
        }
    };
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("margay-cni: standard output: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runtimes give no arguments.
fn for_people(first: &str, rest: &[String]) -> ExitCode {
    let told = match first {
        "--version" => Ok(vec![format!("margay-cni {VERSION}")]),
        "--help" => Ok(vec![
            "margay-cni: a CNI plugin, for container runtimes to run".to_owned(),
            install::USAGE.to_owned(),
        ]),
        "install" => install::run(rest),
        other => Err(format!("unknown argument {other:?}\n{}", install::USAGE)),
    };
    match told {
        Ok(lines) => {
            lines.iter().for_each(|line| println!("{line}"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("margay-cni: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(version: &mut Version) -> Result<Option<Value>, Error> {
    let environment = Environment::of_process()?;
    if environment.command == Command::Version {
        return Ok(Some(margay_cni::result::versions()));
    }
    let mut text = Vec::new();
    let read = io::stdin().lock().take(CONFIGURATION).read_to_end(&mut text);
    read.map_err(|error| Error::new(Code::Io, format!("the configuration on standard input: {error}")))?;
    let config = Config::parse(&text)?;
    *version = config.version;
    // One thread is enough for one command, and starts at once.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime =
        runtime.map_err(|error| Error::new(Code::Io, format!("the runtime cannot start: {error}")))?;
    runtime.block_on(commands::run(&environment, &config))
}

fn write(value: &Value) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{value}")?;
    out.flush()
}
