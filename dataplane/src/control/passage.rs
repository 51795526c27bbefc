//! What host endpoints on a packet's way would say: the stages of [`nodes`](crate::nodes) once more, for
//! explanations and for whoever has policy and no packets.

use super::host_endpoint::HostEndpoint;
use super::state::{HostList, Stage, State};
use crate::fib::{Hop, Interface, Role, Scope};
use crate::net::Addr;
use crate::policy::{Direction, Explanation, Query};
use crate::snapshot::EndpointToHost;
use std::sync::Arc;

/// An end of a packet's way, as this node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// A workload of this node, by its interface.
    Workload(Arc<str>),
    /// This host.
    Host,
    /// Somewhere behind this uplink.
    Network(Arc<str>),
    /// Nobody knows.
    Nowhere,
}

impl End {
    /// Where packets to `addr` go, hence where its packets come from.
    pub(super) fn of(state: &State, addr: Addr) -> Self {
        let owns = |endpoint: &&Arc<super::Endpoint>| endpoint.nets.iter().any(|net| net.contains(addr));
        if let Some(workload) = state.desired().endpoints.values().find(owns) {
            return Self::Workload(workload.interface.clone());
        }
        if state.host_addresses().contains(&addr) {
            return Self::Host;
        }
        let snapshot = state.publisher().current();
        let by = match snapshot.fib.lookup(addr, Scope::Host, 0) {
            Hop::Adjacency(index) => snapshot.fib.leaves_by(index),
            Hop::Unresolved { tx_if, .. } => Some(tx_if),
            Hop::Local => return Self::Host,
            Hop::Blackhole | Hop::Unreachable | Hop::Prohibited | Hop::NoRoute => None,
        };
        match by.and_then(|by| snapshot.interfaces.get(by)) {
            Some(Interface { role: Role::Uplink | Role::Tunnel(_), name, .. }) => Self::Network(name.clone()),
            Some(_) => Self::Host,
            None => Self::Nowhere,
        }
    }

    fn interface(&self) -> Option<&str> {
        match self {
            Self::Workload(interface) | Self::Network(interface) => Some(interface),
            Self::Host | Self::Nowhere => None,
        }
    }
}

/// What a list said of a packet that it was asked about.
#[derive(Clone, Debug)]
pub struct HostStage {
    /// The list.
    pub list: HostList,
    /// Which of its directions.
    pub direction: Direction,
    /// It decided; else it has nothing to say, and what comes next is asked.
    pub decided: bool,
    /// What it said.
    pub explained: Explanation,
    /// What it would say with the staged policies in force, where they make a difference.
    pub staged: Option<Explanation>,
}

impl HostStage {
    /// It lets the packet go no further.
    pub fn denies(&self) -> bool {
        self.decided && !self.explained.verdict.allow
    }

    /// What people call the stage: failsafe, doNotTrack, preDNAT, applyOnForward or normal.
    pub fn name(&self) -> String {
        match &self.list {
            HostList::Failsafe | HostList::FailsafeReplies => "failsafe".to_owned(),
            HostList::Of(_, stage) => stage.to_string(),
        }
    }
}

/// The stages that a packet passes, in order, as far as it comes. It comes as `asked`, meant for `meant`,
/// and goes on as `query`, to `to`: they differ for one to a service. Failsafe ports are mentioned only
/// where they decide.
pub fn host_stages(
    state: &State,
    (from, meant, to): (&End, &End, &End),
    (asked, query): (&Query, &Query),
) -> Vec<HostStage> {
    let mut stages = vec![];
    walk_host_lists(state, (from, meant, to), |list, at| {
        let query = if list.is_before_translation() { asked } else { query };
        let (policy, index) = (state.policy(), state.host_list_index(list)?);
        let opinion = policy.opinion(index, at, query);
        let spare = opinion.is_none() && matches!(list, HostList::Failsafe | HostList::FailsafeReplies);
        if let Some(explained) = policy.explain(index, at, query).filter(|_| !spare) {
            let normal = matches!(list, HostList::Of(_, Stage::Normal));
            let shadow = state.shadow().filter(|_| normal);
            stages.push(HostStage {
                list: list.clone(),
                direction: at,
                decided: opinion.is_some(),
                explained,
                staged: shadow.and_then(|shadow| shadow.explain(index, at, query)),
            });
        }
        opinion.map(|verdict| verdict.allow)
    });
    stages
}

/// Asks the lists that are on the way of a packet, in order, until one denies it: whether none does. The
/// answer is what a list says of the packet, if it decides.
pub fn walk_host_lists(
    state: &State,
    (from, meant, to): (&End, &End, &End),
    ask: impl FnMut(&HostList, Direction) -> Option<bool>,
) -> bool {
    let mut walk = Walk { state, ask, allowed: true };
    let endpoint = |end: &End| state.host_endpoint_on(end.interface()?);
    if let Some(host) = endpoint(from) {
        walk.inwards(host, from, meant, to);
    }
    if let Some(host) = endpoint(to).filter(|_| walk.allowed) {
        walk.outwards(host, from, to);
    }
    walk.allowed
}

struct Walk<'a, A> {
    state: &'a State,
    ask: A,
    allowed: bool,
}

impl<A: FnMut(&HostList, Direction) -> Option<bool>> Walk<'_, A> {
    fn inwards(&mut self, host: &HostEndpoint, from: &End, meant: &End, to: &End) {
        let (local, network) = (*to == End::Host, matches!(from, End::Network(_)));
        let at = Direction::Ingress;
        if network && self.untracked(host, at, *meant == End::Host) {
            return;
        }
        let decided = !host.pre_dnat.is_empty() && self.stage(host, Stage::PreDnat, at);
        match (local, network) {
            _ if decided => {}
            (true, true) => drop(self.stage(host, Stage::Normal, at)),
            (true, false) if self.state.desired().endpoint_to_host == EndpointToHost::Return => {
                self.stage(host, Stage::Normal, at);
            }
            // DefaultEndpointToHostAction decides.
            (true, false) => {}
            (false, _) => self.forward(host, at),
        }
    }

    fn outwards(&mut self, host: &HostEndpoint, from: &End, to: &End) {
        let at = Direction::Egress;
        match (from, to) {
            // The host speaks to its own workload.
            (End::Host, End::Workload(_)) => {}
            (End::Host, _) => {
                if !self.untracked(host, at, true) {
                    self.stage(host, Stage::Normal, at);
                }
            }
            _ => self.forward(host, at),
        }
    }

    /// Failsafe ports and untracked policy: whether they decided.
    fn untracked(&mut self, host: &HostEndpoint, at: Direction, local: bool) -> bool {
        if local && self.list(&HostList::Failsafe, at) {
            return true;
        }
        let spared = local && !host.untracked.is_empty() && self.list(&HostList::FailsafeReplies, at);
        !spared && !host.untracked.is_empty() && self.stage(host, Stage::Untracked, at)
    }

    fn forward(&mut self, host: &HostEndpoint, at: Direction) {
        if !host.forward.is_empty() {
            self.stage(host, Stage::Forward, at);
        }
    }

    fn stage(&mut self, host: &HostEndpoint, stage: Stage, at: Direction) -> bool {
        self.list(&HostList::Of(host.id.clone(), stage), at)
    }

    /// Whether the list decided.
    fn list(&mut self, list: &HostList, at: Direction) -> bool {
        let said = (self.ask)(list, at);
        self.allowed &= said != Some(false);
        said.is_some()
    }
}
