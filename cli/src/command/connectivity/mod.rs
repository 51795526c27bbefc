//! `connectivity test`: what policy says of packets against what becomes of them.
//!
//! Of endpoints that are there one packet is told of ([`pair`]). Without any, the test makes workloads of its own
//! ([`workloads`]), has them speak to each other ([`speech`]), and compares ([`own`]).

mod own;
mod pair;
mod speech;
mod workloads;

use crate::{
    args::{Connectivity, Global},
    exit::Outcome,
    output::Output,
};

const ATTEMPT: &str = "test the connection";

/// Tests between the endpoints that are named, or between some of its own.
pub async fn run(global: &Global, args: &Connectivity, out: &mut Output) -> Outcome {
    match args.pair() {
        Some(asked) => pair::run(global, &asked, args.output, out).await,
        None => own::run(global, args.output, out).await,
    }
}
