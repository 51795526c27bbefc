//! What host endpoints on a packet's way would say, for explanations: the stages of
//! [`nodes`](crate::nodes) once more, with their reasons.

use super::explain::direction;
use super::host_endpoint::HostEndpoint;
use super::state::{HostList, Stage, State};
use crate::fib::{Hop, Role};
use crate::net::Addr;
use crate::policy::{Direction, Query};
use crate::snapshot::EndpointToHost;
use margay_api::dataplane::v1 as pb;
use std::sync::Arc;

/// An end of a packet's way, as this node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
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
        let by = match snapshot.fib.lookup(addr) {
            Hop::Adjacency(index) => snapshot.fib.adjacency(index).map(|adjacency| adjacency.tx_if),
            Hop::Unresolved { tx_if, .. } => Some(tx_if),
            Hop::Local => return Self::Host,
            Hop::Blackhole | Hop::NoRoute => None,
        };
        match by.and_then(|by| snapshot.interfaces.get(by)) {
            Some(uplink) if uplink.role == Role::Uplink => Self::Network(uplink.name.clone()),
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

/// The stages that the packet passes, in order, as far as it comes.
pub(super) fn stages(state: &State, from: &End, to: &End, query: &Query) -> Vec<pb::HostStage> {
    let mut asked = Asked { state, query, stages: vec![] };
    let endpoint = |end: &End| state.host_endpoint_on(end.interface()?);
    if let Some(host) = endpoint(from) {
        asked.inwards(host, from, to);
    }
    let denied = asked.stages.iter().any(|stage| verdict(stage) == "deny");
    if let Some(host) = endpoint(to).filter(|_| !denied) {
        asked.outwards(host, from, to);
    }
    asked.stages
}

/// What a stage said: allow, deny, or pass where it had nothing to say.
pub(super) fn verdict(stage: &pb::HostStage) -> &str {
    stage.decision.as_ref().map_or("pass", |decision| &decision.verdict)
}

struct Asked<'a> {
    state: &'a State,
    query: &'a Query,
    stages: Vec<pb::HostStage>,
}

impl Asked<'_> {
    fn inwards(&mut self, host: &HostEndpoint, from: &End, to: &End) {
        let (local, network) = (*to == End::Host, matches!(from, End::Network(_)));
        let at = Direction::Ingress;
        if network && self.untracked(host, at, local) {
            return;
        }
        let decided = !host.pre_dnat.is_empty() && self.ask(host, Stage::PreDnat, at);
        match (local, network) {
            _ if decided => {}
            (true, true) => drop(self.ask(host, Stage::Normal, at)),
            (true, false) if self.state.desired().endpoint_to_host == EndpointToHost::Return => {
                self.ask(host, Stage::Normal, at);
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
                    self.ask(host, Stage::Normal, at);
                }
            }
            _ => self.forward(host, at),
        }
    }

    /// Failsafe ports and untracked policy: whether they decided.
    fn untracked(&mut self, host: &HostEndpoint, at: Direction, local: bool) -> bool {
        if local && self.list("failsafe", &HostList::Failsafe, at) {
            return true;
        }
        let spared =
            local && !host.untracked.is_empty() && self.list("failsafe", &HostList::FailsafeReplies, at);
        !spared && !host.untracked.is_empty() && self.ask(host, Stage::Untracked, at)
    }

    fn forward(&mut self, host: &HostEndpoint, at: Direction) {
        if !host.forward.is_empty() {
            self.ask(host, Stage::Forward, at);
        }
    }

    fn ask(&mut self, host: &HostEndpoint, stage: Stage, at: Direction) -> bool {
        let normal = stage == Stage::Normal;
        let list = HostList::Of(host.id.clone(), stage);
        let said = self.state.host_list_index(&list).and_then(|index| {
            let explained = self.state.policy().explain(index, at, self.query)?;
            let decided = self.state.policy().opinion(index, at, self.query).is_some();
            let staged = self.state.shadow().filter(|_| normal);
            Some((explained, decided, staged.and_then(|shadow| shadow.explain(index, at, self.query))))
        });
        let Some((explained, decided, staged)) = said else { return false };
        let mut decision = direction(list.to_string(), explained);
        decision.staged = staged.map(|staged| Box::new(direction(list.to_string(), staged)));
        if !decided {
            decision.verdict = "pass".into();
        }
        self.note(&stage.to_string(), at, decision);
        decided
    }

    /// A list that is mentioned only when it decides.
    fn list(&mut self, stage: &str, list: &HostList, at: Direction) -> bool {
        let policy = self.state.policy();
        let Some(index) = self.state.host_list_index(list) else { return false };
        if policy.opinion(index, at, self.query).is_none() {
            return false;
        }
        let Some(explained) = policy.explain(index, at, self.query) else { return false };
        self.note(stage, at, direction(list.to_string(), explained));
        true
    }

    fn note(&mut self, stage: &str, at: Direction, decision: pb::Direction) {
        let (stage, direction) = (stage.to_owned(), at.to_string());
        self.stages.push(pb::HostStage { stage, direction, decision: Some(decision) });
    }
}
