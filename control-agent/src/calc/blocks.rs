//! Blocks of addresses as routes: one leads to all of a node's workloads whose addresses are of a block of the node's.

use super::Resources;
use crate::model::{Cidr, IpamBlock};
use margay_api::dataplane::v1::Route;
use std::collections::{BTreeMap, BTreeSet};

/// Every block that is a node's, and the node.
pub(super) fn affine(resources: &Resources) -> impl Iterator<Item = (Cidr, &str)> {
    let blocks = resources.all::<IpamBlock>().map(|block| &block.spec);
    blocks.filter_map(|spec| Some((spec.cidr, spec.node()?)))
}

/// Takes out those of `single` that lead where the longest prefix around them leads, too. Where a packet goes is the
/// same with them and without.
pub(super) fn without_covered(routes: &mut BTreeMap<Cidr, Route>, single: &BTreeSet<Cidr>) {
    // In their order a prefix comes before all that it holds: around the next one are those of the last ones that hold it.
    let mut around: Vec<(Cidr, &Route)> = Vec::new();
    let mut covered = Vec::new();
    for (net, route) in &*routes {
        while around.pop_if(|(outer, _)| !outer.contains(net.addr())).is_some() {}
        if single.contains(net) && around.last().is_some_and(|(_, outer)| lead_alike(outer, route)) {
            covered.push(*net);
        } else {
            around.push((*net, route));
        }
    }
    for net in covered {
        routes.remove(&net);
    }
}

/// What packets do by one of them they do by the other.
pub(super) fn lead_alike(one: &Route, other: &Route) -> bool {
    (&one.target, &one.node, one.encapsulation, one.same_subnet)
        == (&other.target, &other.node, other.encapsulation, other.same_subnet)
}
