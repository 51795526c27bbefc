//! `policy eval`: packets judged by policy in files, line by line.

use crate::{
    args::Eval,
    cluster::Cluster,
    exit::{Code, Failure, Outcome},
    lines,
    output::Output,
    raw,
};

/// The longest line that is taken for a packet, in bytes.
const MAX_PACKET: u64 = 1 << 16;

/// Answers each line.
pub fn run(args: &Eval, out: &mut Output) -> Outcome {
    match (&args.resources, &args.raw) {
        (Some(path), _) => {
            let cluster = Cluster::read(path)?;
            lines::answer_each(&args.packets, MAX_PACKET, out, lines::error, |line| cluster.answer(line))
        }
        (None, Some(file)) => lines::answer_each(file, raw::MAX_LINE, out, lines::error, raw::answer),
        (None, None) => Err(Failure::new(
            Code::Usage,
            "there is no policy to judge by",
            "neither --resources nor --raw is given",
            "give one of them",
        )),
    }
}
