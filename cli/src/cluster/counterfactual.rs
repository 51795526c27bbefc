//! The single change that would turn a verdict.
//!
//! Candidates come from the rules that nearly decided and from the one that did; each is tried on
//! the whole: a changed packet by the trees as they are, a changed label by trees made anew from
//! the changed objects. So what is found is true.

use std::sync::Arc;

use margay_agent::model::{HostEndpoint, Resource};
use margay_dataplane::policy::{
    CompiledPolicy, Direction, Query, SetId, SetTable,
    counterfactual::{self, Field},
};
use serde::Serialize;

use super::{
    Answer, Cluster, End, HostJudgement, Judgement, Node, Packet,
    change::{Change, Side},
};
use crate::exit::{Code, Failure, Outcome};

/// Changes that are tried at most.
const MAX_TRIED: usize = 256;

/// What was found.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Counterfactual {
    /// What the packet would get.
    pub verdict: &'static str,
    /// A clause behind "if". Absent: no change that was tried turns the verdict.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub change: Option<String>,
    /// What kind of change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<&'static str>,
    /// What would decide then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decided_by: Option<String>,
    /// Changes tried, this one too.
    pub tried: usize,
    /// There were more to try.
    pub cut: bool,
}

impl Cluster {
    /// Looks for the change that turns the verdict of a packet.
    pub fn counterfactual(&self, packet: &Packet<'_>, answer: &Answer) -> Outcome<Counterfactual> {
        let turned = if answer.verdict == "allow" { "deny" } else { "allow" };
        let mut found = Counterfactual {
            verdict: turned,
            change: None,
            kind: None,
            decided_by: None,
            tried: 0,
            cut: false,
        };
        // A verdict depends on nothing but who has the packet's addresses: cheap to make anew.
        let small = self.around(packet);
        let unchanged = Self::of(small.clone(), self.around.clone(), Vec::new())?;
        if unchanged.judge(&packet.within(&unchanged))?.verdict != answer.verdict {
            return Err(Failure::new(
                Code::Failed,
                "the packet's ends alone are not judged as they are in the cluster",
                format!("for {:?}", packet.query),
                "please report this, with the files",
            ));
        }
        for change in self.candidates(packet, answer)? {
            if found.tried == MAX_TRIED {
                found.cut = true;
                break;
            }
            let changed = match &change {
                Change::Packet(_, query) => self.judge(&Packet::of(*query, self))?,
                Change::End(..) | Change::Host(..) => {
                    let Some(resources) = change.of_resources(&small) else { continue };
                    // What a dataplane would refuse is no way to turn anything.
                    let Ok(cluster) = Self::of(resources, self.around.clone(), Vec::new()) else { continue };
                    cluster.judge(&packet.within(&cluster))?
                }
            };
            found.tried += 1;
            if changed.verdict == turned {
                found.change = Some(change.describe(self));
                found.kind = Some(change.kind());
                found.decided_by = decided_by(answer, &changed);
                break;
            }
        }
        Ok(found)
    }

    /// The resources, but of endpoints and network sets those alone that have one of the addresses, or
    /// protect a node that has.
    fn around(&self, packet: &Packet<'_>) -> Vec<Arc<Resource>> {
        let ends = [packet.query.key.src, packet.query.key.dst].map(std::net::IpAddr::from);
        let nodes = [packet.from.node(), packet.to.node()];
        let has = |nets: &[margay_agent::model::Cidr]| {
            nets.iter().any(|net| ends.iter().any(|end| net.contains(*end)))
        };
        let matters = |resource: &&Arc<Resource>| match &***resource {
            Resource::WorkloadEndpoint(endpoint) => has(&endpoint.spec.ip_networks),
            Resource::HostEndpoint(host) => {
                nodes.contains(&Some(&*host.spec.node))
                    || host.spec.expected_ips.iter().any(|own| ends.contains(own))
            }
            Resource::NetworkSet(set) => has(&set.spec.nets),
            Resource::GlobalNetworkSet(set) => has(&set.spec.nets),
            _ => true,
        };
        self.resources.iter().filter(matters).cloned().collect()
    }

    /// What to try, the smallest changes first.
    fn candidates(&self, packet: &Packet<'_>, answer: &Answer) -> Outcome<Vec<Change>> {
        let query = &packet.query;
        let sides = [
            (&packet.from, &answer.egress, Direction::Egress),
            (&packet.to, &answer.ingress, Direction::Ingress),
        ];
        let mut asked = Vec::new();
        // Of a packet that is denied, only who denies it has to change its mind.
        let matters = |judgement: &Judgement| answer.verdict == "allow" || !judgement.allows();
        for (end, judgement, direction) in sides {
            let (Some(endpoint), Some(judgement)) = (end.endpoint, judgement) else { continue };
            if matters(judgement) {
                let node = self.node_of(endpoint);
                let tree = node.tree(endpoint, direction)?;
                let whose = Some((direction.into(), end));
                asked.push(Asked { cluster: self, packet, node, tree, whose, judgement });
            }
        }
        for HostJudgement { endpoint, judgement, node, list, direction, .. } in &answer.host {
            let at = if direction == "egress" { Direction::Egress } else { Direction::Ingress };
            let Some(node) = self.nodes.get(node).filter(|_| matters(judgement)) else { continue };
            let Some(tree) = node.host_tree(list, at) else { continue };
            let (side, end) = (at.into(), if at == Direction::Egress { &packet.from } else { &packet.to });
            let its = |host: &HostEndpoint| *endpoint == format!("host endpoint {}", host.metadata.name);
            let whose = end.protected.is_some_and(its).then_some((side, end));
            asked.push(Asked { cluster: self, packet, node, tree, whose, judgement });
        }
        let mut changes = Changes::default();
        asked.iter().for_each(|one| one.toward(query, &mut changes.toward));
        asked.iter().for_each(|one| one.away(query, &mut changes.away));
        asked.iter().for_each(|one| one.unselected(&mut changes.unselected));
        Ok(changes.in_order())
    }
}

/// Candidates, by where they come from.
#[derive(Default)]
struct Changes {
    /// Rules that nearly matched would.
    toward: Vec<Change>,
    /// Rules that matched would not.
    away: Vec<Change>,
    /// Other policies would apply.
    unselected: Vec<Change>,
}

impl Changes {
    /// The least surprising first: a field or a label, then other peers, then other places.
    fn in_order(self) -> Vec<Change> {
        let size = |change: &Change| match change {
            Change::Packet(Field::Source | Field::Destination, _) => 2,
            Change::Packet(..) => 0,
            Change::End(_, _, one) if one.is_label() => 0,
            Change::Host(..) => 0,
            Change::End(..) => 1,
        };
        let ranked = |list: Vec<Change>, ranks: [usize; 3]| {
            list.into_iter().take(4 * MAX_TRIED).map(move |change| (ranks[size(&change)], change))
        };
        let all = ranked(self.toward, [0, 2, 3]).chain(ranked(self.away, [1, 5, 6]));
        let mut all: Vec<_> = all.chain(ranked(self.unselected, [4, 5, 6])).collect();
        all.sort_by_key(|(rank, _)| *rank);
        let mut ordered: Vec<Change> = Vec::with_capacity(all.len());
        for (_, change) in all {
            if !ordered.contains(&change) {
                ordered.push(change);
            }
        }
        ordered
    }
}

/// A direction whose verdict matters.
struct Asked<'a, 'c> {
    cluster: &'a Cluster,
    packet: &'a Packet<'c>,
    node: &'a Node,
    tree: &'a CompiledPolicy,
    /// The end that it protects; `None`: neither.
    whose: Option<(Side, &'a End<'c>)>,
    judgement: &'a Judgement,
}

impl Asked<'_, '_> {
    fn sets(&self) -> &SetTable {
        self.node.sets()
    }

    /// So that rules match which nearly did.
    fn toward(&self, query: &Query, changes: &mut Vec<Change>) {
        for (rule, field) in counterfactual::near(self.tree.list(), self.sets(), query) {
            let queries = counterfactual::toward(rule, field, self.sets(), query);
            changes.extend(queries.into_iter().map(|query| Change::Packet(field, query)));
            self.relabel(counterfactual::sets_of(rule, field), field, changes);
        }
    }

    /// So that the rules which had a say no longer match.
    fn away(&self, query: &Query, changes: &mut Vec<Change>) {
        for decider in &self.judgement.explained.walk {
            let Some(rule) = counterfactual::rule(self.tree.list(), decider) else { continue };
            for field in Field::ALL {
                let queries = counterfactual::away(rule, field, self.sets(), query);
                changes.extend(queries.into_iter().map(|query| Change::Packet(field, query)));
                self.relabel(counterfactual::sets_of(rule, field), field, changes);
            }
        }
    }

    /// So that policies no longer select the endpoint, or others do.
    fn unselected(&self, changes: &mut Vec<Change>) {
        let Some((side, end)) = self.whose else { return };
        for resource in &self.cluster.resources {
            let selector = match &**resource {
                Resource::NetworkPolicy(policy) => policy.spec.applies_to(&policy.metadata.namespace),
                Resource::GlobalNetworkPolicy(policy) => policy.spec.applies_to(),
                _ => continue,
            };
            if let Ok(selector) = selector {
                changes.extend(Change::for_selector(side, end, &selector));
            }
        }
    }

    /// Changes of the end that a rule's sets are asked about.
    fn relabel(&self, sets: impl Iterator<Item = SetId>, field: Field, changes: &mut Vec<Change>) {
        let (side, end): (_, &End<'_>) = match field {
            Field::Source => (Side::Source, &self.packet.from),
            Field::Destination => (Side::Destination, &self.packet.to),
            _ => return,
        };
        let selectors = sets.filter_map(|set| self.node.selector(&self.sets().name(set)));
        changes.extend(selectors.flat_map(|selector| Change::for_selector(side, end, selector)));
    }
}

impl From<Direction> for Side {
    fn from(direction: Direction) -> Self {
        match direction {
            Direction::Egress => Self::Source,
            Direction::Ingress => Self::Destination,
        }
    }
}

/// What would decide, on the side whose verdict turned.
fn decided_by(before: &Answer, after: &Answer) -> Option<String> {
    let pairs = [(&before.egress, &after.egress), (&before.ingress, &after.ingress)];
    let verdict = |one: &Option<Judgement>| one.as_ref().map(Judgement::allows);
    let name = |judgement: &Judgement| judgement.explained.decider.to_string();
    let turned = pairs.into_iter().find(|(before, after)| verdict(before) != verdict(after));
    if let Some((_, after)) = turned {
        return after.as_ref().map(name);
    }
    let mut stages = after.host.iter().rev().map(|stage| &stage.judgement);
    stages.find(|judgement| judgement.decides()).map(name)
}
