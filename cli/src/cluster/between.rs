//! Packets from one group to another, judged by the trees of both ends, and of the host endpoints on the
//! way.

use std::{collections::BTreeMap, sync::Arc};

use margay_dataplane::{
    control::End,
    net::Addr,
    policy::{CompiledPolicy, Decider, Direction, Query, SetTable},
};

use super::{
    Cluster, Node,
    groups::Group,
    reach::{Edges, Pieces},
};
use crate::exit::{Code, Failure, Outcome};

/// Packets judged at most.
const MAX_JUDGED: usize = 20_000_000;

/// Where each group of a cluster is, and its trees.
pub struct Ends<'c> {
    by_group: Vec<Option<Place<'c>>>,
}

/// Where a group is.
struct Place<'c> {
    node: &'c Node,
    /// As that node sees it.
    end: End,
    /// Its egress and ingress; `None`: it is a host.
    asked: Option<[Asked<'c>; 2]>,
    /// Where the rules of the node's host endpoints make a difference.
    host: Arc<Edges>,
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
    from: Option<&'a Place<'c>>,
    to: Option<&'a Place<'c>>,
}

/// A verdict, and what gave it: the end that denies, or else the last one asked.
pub type Judged<'c> = (bool, Option<By<'c>>);

/// What gave a verdict.
#[derive(Clone, Copy)]
pub enum By<'c> {
    /// A slot of a tree.
    Rule(&'c CompiledPolicy, u32),
    /// DefaultEndpointToHostAction.
    EndpointToHost,
}

impl PartialEq for By<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Rule(tree, slot), Self::Rule(other, other_slot)) => {
                std::ptr::eq(*tree, *other) && slot == other_slot
            }
            (Self::EndpointToHost, Self::EndpointToHost) => true,
            _ => false,
        }
    }
}

impl By<'_> {
    /// For people.
    pub fn name(&self) -> String {
        let decider: Option<Decider> = match self {
            Self::Rule(tree, slot) => tree.decider(*slot),
            Self::EndpointToHost => return "endpoint-to-host action".to_owned(),
        };
        let Some(decider) = decider else { return "no policy applies".to_owned() };
        match (decider.tier(), decider.policy().as_str(), decider.rule) {
            (_, policy, rule @ 0..) => format!("{policy}[{rule}]"),
            ("", ..) => "default".to_owned(),
            (tier, ..) => format!("default of tier {tier}"),
        }
    }
}

impl<'c> Ends<'c> {
    /// Finds them.
    pub fn new(cluster: &'c Cluster, groups: &[Group]) -> Outcome<Self> {
        let mut known: BTreeMap<*const CompiledPolicy, Arc<Edges>> = BTreeMap::new();
        let hosts = cluster.nodes.iter().map(|(name, node)| {
            let edges = node.host_trees().map(Edges::of).fold(Edges::default(), Edges::and);
            (name.as_str(), Arc::new(edges))
        });
        let hosts: BTreeMap<&str, Arc<Edges>> = hosts.collect();
        let mut by_group = Vec::with_capacity(groups.len());
        for group in groups {
            if let Some((name, node)) = group.host.as_ref().and_then(|host| cluster.nodes.get_key_value(host))
            {
                let host = hosts[name.as_str()].clone();
                by_group.push(Some(Place { node, end: End::Host, asked: None, host }));
                continue;
            }
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
            let asked = [asked(Direction::Egress)?, asked(Direction::Ingress)?];
            let host = hosts[endpoint.spec.node.as_str()].clone();
            let end = node.end(endpoint).unwrap_or(End::Nowhere);
            by_group.push(Some(Place { node, end, asked: Some(asked), host }));
        }
        Ok(Self { by_group })
    }

    /// From one group to another, by their places in the list.
    pub fn between(&self, from: usize, to: usize) -> Between<'_, 'c> {
        Between { from: self.by_group[from].as_ref(), to: self.by_group[to].as_ref() }
    }
}

impl<'c> Between<'_, 'c> {
    /// Where the rules of these ends make a difference, and those of `others`.
    pub fn pieces<'o>(&self, others: Option<&'o Between<'o, 'c>>, src: Addr, dst: Addr) -> Pieces {
        let all = self.edges().chain(others.into_iter().flat_map(|others| others.edges()));
        Pieces::of(all, src, dst)
    }

    fn edges(&self) -> impl Iterator<Item = (&Edges, &SetTable)> {
        let own = [self.egress(), self.ingress()].into_iter().flatten();
        let hosts = self.from.into_iter().chain(self.to).map(|place| (&*place.host, place.node.sets()));
        own.map(|asked| (&*asked.edges, asked.sets)).chain(hosts)
    }

    fn egress(&self) -> Option<&Asked<'c>> {
        self.from?.asked.as_ref().map(|[egress, _]| egress)
    }

    /// What a host sends to its own workloads is not policed.
    fn ingress(&self) -> Option<&Asked<'c>> {
        let to = self.to?;
        let own_host = self.from.is_some_and(|from| from.end == End::Host && from.is_with(to));
        to.asked.as_ref().filter(|_| !own_host).map(|[_, ingress]| ingress)
    }

    /// Judges a packet.
    pub fn judge(&self, query: &Query) -> Judged<'c> {
        let mut last = (true, None);
        if let Some(egress) = self.egress() {
            last = egress.judge(query);
        }
        if last.0 {
            self.judge_as_hosts(query, &mut last);
        }
        if let Some(ingress) = self.ingress().filter(|_| last.0) {
            last = ingress.judge(query);
        }
        last
    }

    /// The host endpoints of both nodes, as far as they have something to say.
    fn judge_as_hosts(&self, query: &Query, last: &mut Judged<'c>) {
        let places = [self.from, self.to];
        if let [Some(from), Some(to)] = places
            && to.end == End::Host
            && from.end != End::Host
            && from.is_with(to)
            && from.node.is_closed()
        {
            *last = (false, Some(By::EndpointToHost));
            return;
        }
        let [from, to] = places;
        let other = to.filter(|to| !from.is_some_and(|from| from.is_with(to)));
        for place in from.into_iter().chain(other) {
            let here = |one: &&Place<'_>| one.is_with(place);
            let ends = places.map(|one| one.filter(here).map(|one| one.end.clone()));
            place.node.ask_as_host(ends, query, |tree, verdict| {
                *last = (verdict.allow, Some(By::Rule(tree, verdict.slot)));
            });
            if !last.0 {
                return;
            }
        }
    }
}

impl Place<'_> {
    /// They are on one node.
    fn is_with(&self, other: &Place<'_>) -> bool {
        std::ptr::eq(self.node, other.node)
    }
}

impl<'c> Asked<'c> {
    fn judge(&self, query: &Query) -> Judged<'c> {
        let verdict = self.tree.judge(self.sets, query);
        (verdict.allow, Some(By::Rule(self.tree, verdict.slot)))
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::cluster::{Packet, groups::groups};

    #[test]
    fn regions_are_judged_as_single_packets_are() {
        let files = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/manifests/hosts.yaml"));
        let cluster = Cluster::read(files).unwrap();
        let groups = groups(&[&cluster]).unwrap();
        assert!(groups.iter().filter(|group| group.host.is_some()).count() == 2, "{groups:?}");
        let ends = Ends::new(&cluster, &groups).unwrap();
        let (mut judged, mut denied) = (0, 0);
        for (from, source) in groups.iter().enumerate() {
            for (to, destination) in groups.iter().enumerate().filter(|(to, _)| *to != from) {
                let Some((src, dst)) = common(source, destination) else { continue };
                let between = ends.between(from, to);
                between.pieces(None, src, dst).judge(src, dst, |query| {
                    let answer = cluster.judge(&Packet::of(*query, &cluster)).unwrap();
                    let allowed = between.judge(query).0;
                    assert_eq!(allowed, answer.verdict == "allow", "{query:?}");
                    judged += 1;
                    denied += usize::from(!allowed);
                    allowed
                });
            }
        }
        assert!(denied > 50 && judged - denied > 50, "{denied} of {judged} denied");
    }
}
