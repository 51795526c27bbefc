//! `version`: of this program. Those of the agent and the dataplane are part of `status`.

use std::io::{self, Write as _};

use serde::Serialize;

use crate::{
    args::{Show, VERSION},
    exit::{Code, Outcome},
    output::{Output, View},
};

/// Prints the version.
pub fn run(args: &Show, out: &mut Output) -> Outcome {
    out.show(&Version { version: VERSION }, args.output)?;
    Ok(Code::Ok)
}

#[derive(Serialize)]
struct Version {
    version: &'static str,
}

impl View for Version {
    fn text(&self, out: &mut Output, _: bool) -> io::Result<()> {
        writeln!(out, "margayctl {}", self.version)
    }
}
