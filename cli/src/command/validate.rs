//! `validate`: files checked without a server.

use std::io::Write as _;

use crate::{
    args::Validate,
    exit::{Code, Outcome},
    manifest::Manifest,
    object,
    output::Output,
};

/// Prints a line for each object, or every fault of every one. What is valid and would still be
/// refused by this version's store says so, with the reason.
pub fn run(args: &Validate, out: &mut Output) -> Outcome {
    let manifest = Manifest::read(&args.source)?;
    manifest.validate()?;
    for resource in manifest.resources() {
        let path = object::path(resource.kind().name(), resource.name());
        match resource.unsupported().as_slice() {
            [] => writeln!(out, "{path} valid")?,
            refused => {
                let reasons: Vec<_> = refused.iter().map(ToString::to_string).collect();
                writeln!(out, "{path} valid, and refused by `apply`: {}", reasons.join("; "))?;
            }
        }
    }
    Ok(Code::Ok)
}
