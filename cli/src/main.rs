//! `margayctl`: resources, status, runtime, and why a packet passes or not.
//!
//! Reads top down: [`args`] says what may be typed, [`command`] does it over a [`client`]
//! connection or, over files alone, by [`cluster`] and [`raw`], [`output`] prints it, [`exit`] says how it ended.

mod args;
mod client;
mod cluster;
mod command;
mod exit;
mod judge;
mod lines;
mod manifest;
mod object;
mod output;
mod raw;
mod readable;

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use clap::Parser as _;

use crate::{
    args::Cli,
    exit::{Code, Failure, Outcome},
    output::Output,
};

fn main() -> ExitCode {
    let cli = Cli::parse();
    match start(&cli) {
        Ok(code) => code.into(),
        Err(failure) => {
            if failure.code != Code::Ok {
                // Nobody may be listening, and there is nobody else to tell.
                let _ = writeln!(io::stderr(), "{failure}");
            }
            failure.code.into()
        }
    }
}

fn start(cli: &Cli) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| {
        Failure::new(Code::Failed, "cannot start", error.to_string(), "check the limits of this process")
    })?;
    let mut out = Output::stdout(cli.global.color);
    let outcome = runtime.block_on(command::run(cli, &mut out));
    // What was found is shown even where the command failed over something else.
    out.flush()?;
    outcome
}
