//! `validate`: files checked without a server.

use std::io::Write as _;

use crate::{
    args::Validate,
    exit::{Code, Outcome},
    manifest::Manifest,
    object,
    output::Output,
};

/// Prints a line for each object, or every fault of every one.
pub fn run(args: &Validate, out: &mut Output) -> Outcome {
    let manifest = Manifest::read(&args.source)?;
    manifest.check()?;
    for resource in manifest.resources() {
        writeln!(out, "{} valid", object::path(resource.kind().name(), resource.name()))?;
    }
    Ok(Code::Ok)
}
