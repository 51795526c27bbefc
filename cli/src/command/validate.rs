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
    let manifest = Manifest::read_offline(&args.source)?;
    manifest.check()?;
    for resource in manifest.resources() {
        writeln!(out, "{} valid", object::path(resource.kind().name(), resource.name()))?;
    }
    for object in manifest.offline() {
        writeln!(out, "{} valid", object::path(object.kind(), &object.metadata().name))?;
    }
    Ok(Code::Ok)
}
