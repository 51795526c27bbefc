//! `flows`: what became of flows, as the agent keeps it.

mod observe;
mod top;

use std::time::{SystemTime, UNIX_EPOCH};

use margay_api::control::v1 as api;

use crate::{
    args::{FlowLike, FlowOutcome, Flows, Global},
    exit::Outcome,
    output::Output,
};

/// Does what is asked.
pub async fn run(global: &Global, command: &Flows, out: &mut Output) -> Outcome {
    match command {
        Flows::Observe(args) => observe::run(global, args, out).await,
        Flows::Top(args) => top::run(global, args, out).await,
    }
}

/// The filter, as the agent takes it.
fn filter(like: &FlowLike) -> api::FlowFilter {
    let verdict = like.verdict.map_or("", |verdict| match verdict {
        FlowOutcome::Allow => "allow",
        FlowOutcome::Deny => "deny",
        FlowOutcome::Drop => "drop",
    });
    let given = |text: &Option<String>| text.clone().unwrap_or_default();
    api::FlowFilter {
        verdict: verdict.to_owned(),
        from: given(&like.from),
        to: given(&like.to),
        policy: given(&like.policy),
        reason: given(&like.reason),
        protocol: like.proto.map_or_else(String::new, |proto| proto.0.to_string()),
        port: like.port.map_or(0, u32::from),
    }
}

/// What is not older than was asked for began then; 0: whenever.
fn since(like: &FlowLike) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    like.since.map_or(0, |since| now.saturating_sub(since).as_nanos() as u64)
}

/// Says that some is missing, where it is.
fn confess(lost: u64, missed: u64) {
    if lost > 0 {
        eprintln!(
            "note: {lost} records were lost on their way from the dataplane's workers: more came than was read"
        );
    }
    if missed > 0 {
        eprintln!("note: {missed} batches of records were missed: more came than was read here");
    }
}
