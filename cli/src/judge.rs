//! A packet judged by the compiled tree, and once more by the linear reference.

use margay_dataplane::policy::{CompiledPolicy, Decider, Query, SetTable, reference};

use crate::exit::{Code, Failure, Outcome};

/// What the tree says. It is an error, and a fault of this program, if the reference does not
/// say the same for the same reason.
pub fn judge(tree: &CompiledPolicy, sets: &SetTable, query: &Query) -> Outcome<(bool, Decider)> {
    let verdict = tree.judge(sets, query);
    let decider = tree.decider(verdict.slot);
    let right = reference::judge(tree.list(), sets, query);
    if (verdict.allow, decider.as_ref()) == (right.allow, Some(right.decider())) {
        return Ok((verdict.allow, right.decider().clone()));
    }
    let decider = decider.map_or_else(|| "nothing".to_owned(), |decider| decider.to_string());
    Err(Failure::new(
        Code::Failed,
        "the compiled policy is not what the rules say",
        format!("for {query:?} the tree says {decider}, the rules say {}", right.decider()),
        "please report this, with the question",
    ))
}
