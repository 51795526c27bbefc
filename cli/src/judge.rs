//! A packet judged by the compiled tree, and once more by the linear reference.

use margay_dataplane::policy::{CompiledPolicy, Decider, Query, SetTable, reference};

use crate::exit::{Code, Failure, Outcome};

/// What the tree says. It is an error, and a fault of this program, if the reference does not
/// say the same for the same reason.
pub fn judge<'t>(tree: &'t CompiledPolicy, sets: &SetTable, query: &Query) -> Outcome<(bool, &'t Decider)> {
    let verdict = tree.judge(sets, query);
    let decider = &tree.deciders()[verdict.slot as usize];
    let right = reference::judge(tree.list(), sets, query);
    if (verdict.allow, decider) == (right.allow, right.decider()) {
        return Ok((verdict.allow, decider));
    }
    Err(Failure::new(
        Code::Failed,
        "the compiled policy is not what the rules say",
        format!("for {query:?} the tree says {decider}, the rules say {}", right.decider()),
        "please report this, with the question",
    ))
}
