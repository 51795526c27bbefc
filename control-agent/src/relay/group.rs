//! What goes to the same readers together: a workload, a network set, a policy.

use super::facts::{GroupKey, Member, Part, Seen};
use crate::model::{Cidr, Selector};
use std::collections::{BTreeMap, BTreeSet};

/// A group, with what was last worked out of its objects.
pub(super) struct Group {
    pub key: GroupKey,
    /// What each object gives to it.
    pub parts: BTreeMap<u32, Vec<Part>>,
    pub members: Members,
    pub rules: Rules,
}

/// A group's members, seen by selectors.
#[derive(Default)]
pub(super) struct Members {
    pub variants: Vec<Variant>,
    /// Selectors that match any of them, ascending.
    pub matched: Vec<u32>,
    /// Of the variants of each node: selectors that match one, and profiles that one names, both ascending.
    pub local: BTreeMap<Box<str>, (Vec<u32>, Vec<u32>)>,
    /// Profiles that give them labels, by number.
    pub profiles: BTreeSet<u32>,
    /// Its addresses, and the nodes they are on.
    pub nets: Vec<(Cidr, Box<str>)>,
    /// Routes to it are every node's business.
    pub is_wide: bool,
}

/// One way to see a member: as an object says, or as it is with what another one says.
#[derive(PartialEq, Eq)]
pub(super) struct Variant {
    pub node: Option<Box<str>>,
    pub labels: Seen,
    /// Those whose rules hold for it.
    pub profiles: Vec<Box<str>>,
    /// Selectors that match it, ascending.
    pub matched: Vec<u32>,
}

/// What a policy's rules ask for, by numbers of selectors.
#[derive(Default)]
pub(super) struct Rules {
    pub applies_to: BTreeSet<u32>,
    pub peers: BTreeSet<u32>,
}

impl Group {
    pub fn new(key: GroupKey) -> Self {
        let (parts, members, rules) = (BTreeMap::new(), Members::default(), Rules::default());
        Self { key, parts, members, rules }
    }

    pub fn is_policy(&self) -> bool {
        matches!(self.key, GroupKey::Policy(..))
    }

    /// Its members as they are written, and links as they follow their pod.
    pub fn seen(&self) -> Vec<Member> {
        let written: Vec<&Member> = self.parts.values().flatten().filter_map(Part::member).collect();
        let pods: Vec<&Member> = written.iter().copied().filter(|member| member.leads).collect();
        let links = written.iter().filter(|member| member.follows);
        let following = links.flat_map(|link| pods.iter().map(|pod| link.following(pod)));
        following.chain(written.iter().map(|member| (*member).clone())).collect()
    }

    /// What its policies apply to, and whom their rules name.
    pub fn asked(&self) -> (BTreeSet<&Selector>, BTreeSet<&Selector>) {
        let (mut targets, mut all) = (BTreeSet::new(), BTreeSet::new());
        for part in self.parts.values().flatten() {
            if let Part::Policy { applies_to, peers } = part {
                targets.insert(applies_to);
                all.extend(peers);
            }
        }
        (targets, all)
    }
}

impl Part {
    fn member(&self) -> Option<&Member> {
        match self {
            Self::Member(member) => Some(member),
            Self::Policy { .. } => None,
        }
    }
}

impl Members {
    /// Works out anew what follows from the variants.
    pub fn gather(&mut self, profile: impl Fn(&str) -> Option<u32>) {
        let mut matched: BTreeSet<u32> = BTreeSet::new();
        let mut local: BTreeMap<Box<str>, (BTreeSet<u32>, BTreeSet<u32>)> = BTreeMap::new();
        for variant in &self.variants {
            matched.extend(&variant.matched);
            if let Some(node) = &variant.node {
                let here = local.entry(node.clone()).or_default();
                here.0.extend(&variant.matched);
                here.1.extend(variant.profiles.iter().filter_map(|name| profile(name)));
            }
        }
        self.matched = matched.into_iter().collect();
        let sorted = |(selectors, profiles): (BTreeSet<u32>, BTreeSet<u32>)| {
            (selectors.into_iter().collect(), profiles.into_iter().collect())
        };
        self.local = local.into_iter().map(|(node, here)| (node, sorted(here))).collect();
    }

    /// A selector that is new matches these variants; or one that was there is gone.
    pub fn enter(&mut self, id: u32, selector: &Selector) -> bool {
        for variant in &mut self.variants {
            if !selector.matches(&variant.labels) {
                continue;
            }
            insert(&mut variant.matched, id);
            insert(&mut self.matched, id);
            if let Some(here) = variant.node.as_ref().and_then(|node| self.local.get_mut(node)) {
                insert(&mut here.0, id);
            }
        }
        self.matched.binary_search(&id).is_ok()
    }

    pub fn leave(&mut self, id: u32) {
        self.variants.iter_mut().for_each(|variant| remove(&mut variant.matched, id));
        remove(&mut self.matched, id);
        self.local.values_mut().for_each(|here| remove(&mut here.0, id));
    }

    /// Each label of any of them, once.
    pub fn labels(&self) -> BTreeSet<&(Box<str>, Box<str>)> {
        self.variants.iter().flat_map(|variant| &variant.labels.0).collect()
    }
}

fn insert(sorted: &mut Vec<u32>, id: u32) {
    if let Err(at) = sorted.binary_search(&id) {
        sorted.insert(at, id);
    }
}

fn remove(sorted: &mut Vec<u32>, id: u32) {
    if let Ok(at) = sorted.binary_search(&id) {
        sorted.remove(at);
    }
}
