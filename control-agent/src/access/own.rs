//! What is a node's own, so that the node itself may write it.

use crate::{
    ipam::{self, Owner},
    model::{AllocationAttribute, IpamBlock, IpamBlockSpec, Resource},
};

/// An object that is `before`, and would be `after` that, is the node's, and nothing of it that another one has changes.
pub(super) fn is_own(node: &str, before: Option<&Resource>, after: Option<&Resource>) -> bool {
    let mut known = before.into_iter().chain(after).peekable();
    known.peek().is_some()
        && known.all(|object| node_of(object) == Some(node) && is_well_named(object))
        && keeps_others(node, before, after)
}

/// Whose an object is.
fn node_of(object: &Resource) -> Option<&str> {
    match object {
        Resource::Node(node) => Some(&node.metadata.name),
        Resource::WorkloadEndpoint(endpoint) => Some(&endpoint.spec.node),
        Resource::HostEndpoint(endpoint) => Some(&endpoint.spec.node),
        Resource::CalicoNodeStatus(status) => Some(&status.spec.node),
        Resource::BlockAffinity(affinity) => {
            matches!(affinity.spec.kind.as_str(), "" | "host").then_some(&affinity.spec.node)
        }
        Resource::IPAMBlock(block) => block.spec.affinity.as_deref()?.strip_prefix(IpamBlockSpec::HOST),
        _ => None,
    }
}

/// A block under the name of another one would be a second claim to the same addresses.
fn is_well_named(object: &Resource) -> bool {
    match object {
        Resource::IPAMBlock(block) => block.metadata.name == ipam::block_name(block.spec.cidr),
        _ => true,
    }
}

/// Of a block, what other nodes have borrowed stays theirs, and nothing is given to them.
fn keeps_others(node: &str, before: Option<&Resource>, after: Option<&Resource>) -> bool {
    let (before, after) = (before.and_then(as_block), after.and_then(as_block));
    let places = |block: Option<&IpamBlock>| block.map_or(0, |block| block.spec.allocations.len());
    let may_change =
        |owner: Option<&AllocationAttribute>| owner.is_none_or(|owner| noted_node(owner) == Some(node));
    (0..places(before).max(places(after))).all(|at| {
        let (was, is) = (owner(before, at), owner(after, at));
        was == is || may_change(was) && may_change(is)
    })
}

fn as_block(object: &Resource) -> Option<&IpamBlock> {
    match object {
        Resource::IPAMBlock(block) => Some(block),
        _ => None,
    }
}

/// Who has the address of this number in the block.
fn owner(block: Option<&IpamBlock>, at: usize) -> Option<&AllocationAttribute> {
    let spec = &block?.spec;
    let index = (*spec.allocations.get(at)?)?;
    spec.attributes.get(usize::try_from(index).ok()?)
}

/// The node whose workload has it.
fn noted_node(owner: &AllocationAttribute) -> Option<&str> {
    owner.secondary.as_ref()?.get(Owner::NODE).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// A block of four addresses; the first ones are given under handles, on nodes.
    fn block(cidr: &str, affinity: Value, given: &[(&str, &str)]) -> Resource {
        let name = cidr.replace(['.', '/'], "-");
        let place = |at: usize| if at < given.len() { json!(at) } else { Value::Null };
        let attributes =
            given.iter().map(|(handle, node)| json!({"handle_id": handle, "secondary": {"node": node}}));
        let object = json!({
            "apiVersion": "projectcalico.org/v3", "kind": "IPAMBlock", "metadata": {"name": name},
            "spec": {"cidr": cidr, "affinity": affinity, "allocations": (0..4).map(place).collect::<Vec<_>>(),
                     "unallocated": (given.len()..4).collect::<Vec<_>>(), "attributes": attributes.collect::<Vec<_>>()},
        });
        Resource::from_json(&object.to_string()).unwrap_or_else(|errors| panic!("{errors:?}"))
    }

    const CIDR: &str = "10.0.0.0/30";

    #[test]
    fn a_node_claims_blocks_for_itself_alone() {
        let claims = |cidr, affinity| is_own("a", None, Some(&block(cidr, affinity, &[])));
        assert!(claims(CIDR, json!("host:a")));
        assert!(
            !claims(CIDR, json!("host:b")) && !claims(CIDR, json!("virtual:a")) && !claims(CIDR, Value::Null)
        );
        let (own, others) = (block(CIDR, json!("host:a"), &[]), block(CIDR, json!("host:b"), &[]));
        assert!(is_own("a", Some(&own), None), "it gives it back");
        assert!(!is_own("a", Some(&others), None) && !is_own("a", Some(&others), Some(&own)));
        assert!(!is_own("a", Some(&own), Some(&others)), "nor does it give one away");
        let mut hidden = own.clone();
        hidden.metadata_mut().name = "10-0-0-4-30".into();
        assert!(!is_own("a", None, Some(&hidden)), "under another's name");
    }

    #[test]
    fn in_its_block_a_node_gives_and_takes_what_is_of_its_workloads() {
        let of = |given: &[(&str, &str)]| block(CIDR, json!("host:a"), given);
        let may = |before: &[(&str, &str)], after: &[(&str, &str)]| {
            is_own("a", Some(&of(before)), Some(&of(after)))
        };
        assert!(
            may(&[], &[("web", "a")]) && may(&[("web", "a")], &[]) && may(&[("web", "a")], &[("db", "a")])
        );
        assert!(!may(&[], &[("web", "b")]), "given to another node's");
        assert!(
            !may(&[("far", "b")], &[]) && !may(&[("far", "b")], &[("web", "a")]),
            "taken from another node's"
        );
        assert!(may(&[("far", "b")], &[("far", "b"), ("web", "a")]), "beside what is lent");
        assert!(!is_own("a", Some(&of(&[("far", "b")])), None), "what is lent ends with the block");
        assert!(is_own("a", Some(&of(&[("web", "a")])), None));
    }
}
