//! `policy eval`: packets judged by policy in files, line by line.

use std::io::{self, Write as _};

use crate::{
    args::{Eval, Source},
    cluster::Cluster,
    exit::{Code, Failure, Outcome},
    lines,
    manifest::Manifest,
    output::Output,
    raw,
};

/// The longest line that is taken for a packet, in bytes.
const MAX_PACKET: u64 = 1 << 16;

/// Answers each line.
pub fn run(args: &Eval, out: &mut Output) -> Outcome {
    match (&args.resources, &args.raw) {
        (Some(path), _) => {
            let source = Source { files: vec![path.clone()], namespace: None };
            let manifest = Manifest::read_offline(&source)?;
            manifest.check()?;
            let cluster = Cluster::new(manifest.resources().cloned().collect(), manifest.offline().cloned())?;
            for problem in cluster.problems() {
                // Nobody may be listening, and there is nobody else to tell.
                let _ = writeln!(io::stderr(), "warning: {problem}");
            }
            lines::answer_each(&args.packets, MAX_PACKET, out, |line| cluster.answer(line))
        }
        (None, Some(file)) => lines::answer_each(file, raw::MAX_LINE, out, raw::answer),
        (None, None) => Err(Failure::new(
            Code::Usage,
            "there is no policy to judge by",
            "neither --resources nor --raw is given",
            "give one of them",
        )),
    }
}
