//! `completion`: a script that teaches a shell our commands and flags.

use std::io::Write as _;

use clap::CommandFactory as _;
use clap_complete::{Shell, generate};

use crate::{
    args::Cli,
    exit::{Code, Outcome},
    output::Output,
};

/// Prints the script. It is made in memory first: the generator panics on a pipe that breaks.
pub fn run(shell: Shell, out: &mut Output) -> Outcome {
    let mut script = Vec::new();
    generate(shell, &mut Cli::command(), "margayctl", &mut script);
    out.write_all(&script)?;
    Ok(Code::Ok)
}
