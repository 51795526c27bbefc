//! `man`: the manual pages, made of what `--help` says.

use clap::CommandFactory as _;

use crate::{
    args::{Cli, Man},
    exit::{Code, Failure, Outcome},
};

/// Writes a page for each command into the directory.
pub fn run(args: &Man) -> Outcome {
    let unwritten = |error: std::io::Error| {
        let problem = format!("cannot write manual pages into {}", args.directory.display());
        Failure::new(Code::Failed, problem, error.to_string(), "name a directory that can be written to")
    };
    std::fs::create_dir_all(&args.directory).map_err(unwritten)?;
    clap_mangen::generate_to(Cli::command(), &args.directory).map_err(unwritten)?;
    Ok(Code::Ok)
}
