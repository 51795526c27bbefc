//! Packets from one group to another, judged by the trees of both ends.

use std::{collections::BTreeMap, sync::Arc};

use margay_dataplane::{
    net::Addr,
    policy::{CompiledPolicy, Decider, Direction, Query, SetTable},
};

use super::{
    Cluster,
    groups::Group,
    reach::{Edges, Pieces},
};
use crate::exit::{Code, Failure, Outcome};

/// Packets judged at most.
const MAX_JUDGED: usize = 20_000_000;

/// The trees of each group of a cluster.
pub struct Ends<'c> {
    by_group: Vec<Option<[Asked<'c>; 2]>>,
}

/// What judges one direction of a group.
#[derive(Clone)]
struct Asked<'c> {
    tree: &'c CompiledPolicy,
    sets: &'c SetTable,
    edges: Arc<Edges>,
}

/// What judges packets from one group to another.
pub struct Between<'a, 'c> {
    egress: Option<&'a Asked<'c>>,
    ingress: Option<&'a Asked<'c>>,
}

/// A verdict, and what gave it: the end that denies, or else the last one asked.
pub type Judged<'c> = (bool, Option<By<'c>>);

/// What gave a verdict.
#[derive(Clone, Copy)]
pub struct By<'c> {
    tree: &'c CompiledPolicy,
    slot: u32,
}

impl PartialEq for By<'_> {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.tree, other.tree) && self.slot == other.slot
    }
}

impl By<'_> {
    /// The rule, or the default.
    pub fn decider(&self) -> Option<Decider> {
        self.tree.decider(self.slot)
    }
}

impl<'c> Ends<'c> {
    /// Finds them.
    pub fn new(cluster: &'c Cluster, groups: &[Group]) -> Outcome<Self> {
        let mut known: BTreeMap<*const CompiledPolicy, Arc<Edges>> = BTreeMap::new();
        let mut by_group = Vec::with_capacity(groups.len());
        for group in groups {
            let endpoint = group.namespace.as_ref().and_then(|_| {
                let addr = std::net::IpAddr::from(*group.addresses.first()?);
                let owns = |net: &margay_agent::model::Cidr| net.contains(addr);
                cluster.endpoints.iter().find(|endpoint| endpoint.spec.ip_networks.iter().any(owns))
            });
            let Some(endpoint) = endpoint else {
                by_group.push(None);
                continue;
            };
            let node = cluster.node_of(endpoint);
            let mut asked = |direction| -> Outcome<Asked<'c>> {
                let tree = node.tree(endpoint, direction)?;
                let edges = known.entry(tree).or_insert_with(|| Arc::new(Edges::of(tree))).clone();
                Ok(Asked { tree, sets: node.sets(), edges })
            };
            by_group.push(Some([asked(Direction::Egress)?, asked(Direction::Ingress)?]));
        }
        Ok(Self { by_group })
    }

    /// From one group to another, by their places in the list.
    pub fn between(&self, from: usize, to: usize) -> Between<'_, 'c> {
        Between {
            egress: self.by_group[from].as_ref().map(|[egress, _]| egress),
            ingress: self.by_group[to].as_ref().map(|[_, ingress]| ingress),
        }
    }
}

impl<'c> Between<'_, 'c> {
    /// Where the rules of these ends make a difference, and those of `others`.
    pub fn pieces<'o>(&self, others: Option<&'o Between<'o, 'c>>, src: Addr, dst: Addr) -> Pieces {
        let all = [self.egress, self.ingress]
            .into_iter()
            .chain(others.into_iter().flat_map(|o| [o.egress, o.ingress]));
        Pieces::of(all.flatten().map(|asked| (&*asked.edges, asked.sets)), src, dst)
    }

    /// Judges a packet.
    pub fn judge(&self, query: &Query) -> Judged<'c> {
        let mut last = (true, None);
        for asked in [self.egress, self.ingress].into_iter().flatten() {
            let verdict = asked.tree.judge(asked.sets, query);
            last = (verdict.allow, Some(By { tree: asked.tree, slot: verdict.slot }));
            if !verdict.allow {
                break;
            }
        }
        last
    }
}

/// Addresses of one family, IPv4 where both have it.
pub fn common(from: &Group, to: &Group) -> Option<(Addr, Addr)> {
    let of = |group: &Group, v4: bool| group.addresses.iter().find(|addr| addr.is_v4() == v4).copied();
    [true, false].into_iter().find_map(|v4| Some((of(from, v4)?, of(to, v4)?)))
}

/// Judges no more than can be waited for.
#[derive(Default)]
pub struct Budget {
    judged: usize,
}

impl Budget {
    /// Takes the cost of some pieces.
    ///
    /// # Errors
    /// It is used up.
    pub fn spend(&mut self, pieces: &Pieces) -> Outcome<()> {
        self.judged += pieces.len();
        if self.judged > MAX_JUDGED {
            return Err(Failure::new(
                Code::Failed,
                "there is too much to judge",
                format!("rules cut the traffic between these ends into more than {MAX_JUDGED} pieces"),
                "ask about fewer: another namespace, or fewer resources",
            ));
        }
        Ok(())
    }
}
