//! Whose routes every node needs: those of workloads that no block of addresses leads to.
//!
//! A route to a node's block leads to all of the node's workloads whose addresses are of it (see `calc`'s blocks). Of those a
//! node need not hear, as long as nothing more specific than the block and no other workload claims the address, the block's
//! node is known with an address of that IP version, and a pool around it ends what the block's route does not take.

use super::facts::Block;
use crate::model::Cidr;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Prefixes and nodes that routes follow from.
#[derive(Default)]
pub(super) struct Places {
    /// By object: whose the block is.
    blocks: BTreeMap<Cidr, BTreeMap<u32, Option<Box<str>>>>,
    /// How many say so.
    pools: BTreeMap<Cidr, usize>,
    services: BTreeMap<Cidr, usize>,
    /// By object: whether the node has an address of IPv4, and of IPv6.
    nodes: HashMap<Box<str>, BTreeMap<u32, (bool, bool)>>,
    /// Addresses of workloads, and the groups that have them.
    claims: BTreeMap<Cidr, BTreeMap<u32, usize>>,
    /// Lengths of all the prefixes above but the claims', and how many have it: IPv4's and IPv6's.
    lengths: [BTreeMap<u8, usize>; 2],
}

impl Places {
    /// Takes in, or out, what is known of a block.
    pub fn block(&mut self, object: u32, block: &Block, is_there: bool) -> BTreeSet<u32> {
        let claimed = self.blocks.entry(block.cidr).or_default();
        match is_there {
            true => drop(claimed.insert(object, block.node.clone())),
            false => drop(claimed.remove(&object)),
        }
        if claimed.is_empty() {
            self.blocks.remove(&block.cidr);
        }
        self.length(block.cidr, is_there);
        self.within(block.cidr)
    }

    pub fn pool(&mut self, cidr: Cidr, is_there: bool) -> BTreeSet<u32> {
        count(&mut self.pools, cidr, is_there);
        self.length(cidr, is_there);
        // One within a block concerns the block's other addresses, too.
        let blocks = self.around(cidr).filter(|outer| self.blocks.contains_key(outer));
        let mut groups = self.within(cidr);
        groups.extend(blocks.collect::<Vec<_>>().into_iter().flat_map(|block| self.within(block)));
        groups
    }

    pub fn services(&mut self, cidr: Cidr, is_there: bool) -> BTreeSet<u32> {
        count(&mut self.services, cidr, is_there);
        self.length(cidr, is_there);
        self.within(cidr)
    }

    /// None: it is gone.
    pub fn node(&mut self, object: u32, name: &str, families: Option<(bool, bool)>) {
        let known = self.nodes.entry(name.into()).or_default();
        match families {
            Some(families) => drop(known.insert(object, families)),
            None => drop(known.remove(&object)),
        }
        if known.is_empty() {
            self.nodes.remove(name);
        }
    }

    /// Takes in, or out, that a group has the address. Returns who else has it.
    pub fn claim(&mut self, net: Cidr, group: u32, is_there: bool) -> Vec<u32> {
        let claims = self.claims.entry(net).or_default();
        count(claims, group, is_there);
        let others = claims.keys().copied().filter(|other| *other != group).collect();
        if claims.is_empty() {
            self.claims.remove(&net);
        }
        others
    }

    /// A route to the node's block, or none at all, is all that others need to know of this address.
    pub fn is_covered(&self, net: Cidr, node: &str) -> bool {
        let families = self.nodes.get(node);
        let is_known = families
            .is_some_and(|sources| sources.values().all(|(v4, v6)| if net.is_v4() { *v4 } else { *v6 }));
        let is_alone = self.claims.get(&net).is_none_or(|claims| claims.len() <= 1);
        is_known && is_alone && self.leads_to(net, node) && self.is_of_pool(net)
    }

    /// The longest prefix around the address is a block of the node's.
    fn leads_to(&self, net: Cidr, node: &str) -> bool {
        for cidr in self.around(net) {
            if let Some(claimed) = self.blocks.get(&cidr) {
                // What goes into tunnels is the pool's to say, so it has to be one for all of the block.
                let mut inside = self.pools.range(cidr..).take_while(|(pool, _)| cidr.contains(pool.addr()));
                let is_one = inside.all(|(pool, _)| pool.len() <= cidr.len());
                return is_one && claimed.values().all(|owner| owner.as_deref() == Some(node));
            }
            if self.pools.contains_key(&cidr) || self.services.contains_key(&cidr) {
                return false;
            }
        }
        false
    }

    fn is_of_pool(&self, net: Cidr) -> bool {
        self.around(net).any(|cidr| self.pools.contains_key(&cidr))
    }

    /// Every prefix around it that there could be, the longest first.
    fn around(&self, net: Cidr) -> impl Iterator<Item = Cidr> {
        let lengths = &self.lengths[usize::from(!net.is_v4())];
        lengths
            .keys()
            .rev()
            .filter(move |len| **len <= net.len())
            .map(move |len| Cidr::truncate(net.addr(), *len))
    }

    /// Groups that have an address of the prefix.
    fn within(&self, cidr: Cidr) -> BTreeSet<u32> {
        let inside = self.claims.range(cidr..).take_while(|(net, _)| cidr.contains(net.addr()));
        inside.flat_map(|(_, groups)| groups.keys().copied()).collect()
    }

    fn length(&mut self, cidr: Cidr, is_there: bool) {
        count(&mut self.lengths[usize::from(!cidr.is_v4())], cidr.len(), is_there);
    }
}

fn count<T: Ord>(counts: &mut BTreeMap<T, usize>, one: T, is_there: bool) {
    if is_there {
        *counts.entry(one).or_default() += 1;
    } else if let Some(known) = counts.get_mut(&one) {
        *known -= 1;
        if *known == 0 {
            counts.remove(&one);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    fn block(text: &str, node: &str) -> Block {
        Block { cidr: cidr(text), node: Some(node.into()), users: BTreeSet::new() }
    }

    #[test]
    fn an_address_is_covered_by_its_nodes_block_and_by_nothing_less() {
        let mut places = Places::default();
        let net = cidr("10.65.0.5/32");
        assert!(places.claim(net, 7, true).is_empty());
        let covered = |places: &Places| places.is_covered(net, "a");
        places.node(1, "a", Some((true, false)));
        assert_eq!(places.pool(cidr("10.65.0.0/16"), true), [7].into());
        assert!(!covered(&places), "there is no block");
        assert_eq!(places.block(2, &block("10.65.0.0/26", "a"), true), [7].into());
        assert!(covered(&places) && !places.is_covered(net, "b"));
        assert!(places.block(3, &block("10.65.1.0/26", "b"), true).is_empty());

        assert_eq!(places.claim(net, 8, true), [7], "two that have it");
        assert!(!covered(&places));
        assert_eq!(places.claim(net, 8, false), [7]);
        places.services(cidr("10.65.0.4/30"), true);
        assert!(!covered(&places), "a prefix in between");
        places.services(cidr("10.65.0.4/30"), false);
        assert_eq!(places.pool(cidr("10.65.0.32/29"), true), [7].into());
        assert!(!covered(&places), "another pool for a part of the block");
        places.pool(cidr("10.65.0.32/29"), false);
        places.node(1, "a", Some((false, true)));
        assert!(!covered(&places), "the node has no address of IPv4");
        places.node(1, "a", None);
        assert!(!covered(&places), "nobody knows the node");
        places.node(1, "a", Some((true, true)));
        assert!(covered(&places));
        places.pool(cidr("10.65.0.0/16"), false);
        assert!(!covered(&places), "without a pool what a block's route does not take would leave");
    }
}
