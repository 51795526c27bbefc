//! Judges a packet that nobody sent, by the very trees that forward.

use super::backend::{Served, served};
use super::convert::{self, FieldError};
use super::desired::Endpoint;
use super::passage::{End, HostStage, host_stages};
use super::route::Target;
use super::state::State;
use crate::fib::{Hop, Interface, Scope};
use crate::net::{Addr, FlowKey, Icmp, Nanos, Proto};
use crate::policy::{Decider, Direction, Explanation, Query};
use crate::snapshot::{EndpointToHost, Snapshot};
use margay_api::dataplane::v1 as pb;
use std::sync::Arc;

/// The verdict of this node, with the reasons of either end that is here.
pub fn explain(
    state: &State,
    request: &pb::ExplainRequest,
    now: Nanos,
) -> Result<pb::ExplainResponse, FieldError> {
    let asked = query(request)?;
    let served = served(state, &asked, &End::of(state, asked.key.src), now);
    let (service, query) = match served {
        None => (None, asked),
        Some(Served { choice, query: Some(query) }) => (Some(choice), query),
        Some(Served { choice, query: None }) => {
            return Ok(pb::ExplainResponse {
                verdict: "deny".into(),
                generation: state.committed(),
                route: "nowhere: the service has nobody for it".into(),
                service: Some(choice),
                ..pb::ExplainResponse::default()
            });
        }
    };
    let said = Said::translated(state, &asked, &query);
    let snapshot = state.publisher().current();
    let reachable = match way(&snapshot, &query.key) {
        Hop::Adjacency(_) | Hop::Unresolved { .. } | Hop::Local => true,
        Hop::Blackhole | Hop::Unreachable | Hop::Prohibited | Hop::NoRoute => false,
    };
    Ok(pb::ExplainResponse {
        verdict: if said.allows() && reachable { "allow" } else { "deny" }.into(),
        generation: state.committed(),
        egress: said.egress,
        ingress: said.ingress,
        route: route(state, &query.key),
        conntrack: None,
        host: said.host.into_iter().map(Into::into).collect(),
        service,
    })
}

/// All that policy says of a packet.
pub(super) struct Said {
    /// Host endpoints on its way.
    host: Vec<HostStage>,
    /// The source's workload, where it is here.
    egress: Option<pb::Direction>,
    /// The destination's workload, where it is here.
    ingress: Option<pb::Direction>,
    /// A workload speaks to its own host, which DefaultEndpointToHostAction forbids.
    to_host: bool,
}

impl Said {
    pub fn of(state: &State, query: &Query) -> Self {
        Self::translated(state, query, query)
    }

    /// Of a packet that came as `asked` and goes on as `query`.
    fn translated(state: &State, asked: &Query, query: &Query) -> Self {
        let (src, dst) = (query.key.src, query.key.dst);
        let (from, to) = (End::of(state, src), End::of(state, dst));
        let meant = if asked.key.dst == dst { to.clone() } else { End::of(state, asked.key.dst) };
        let judge = |addr: Addr, direction| {
            let owns = |endpoint: &&Arc<Endpoint>| endpoint.nets.iter().any(|net| net.contains(addr));
            let endpoint = state.desired().endpoints.values().find(owns)?;
            Some(judge(state, endpoint, direction, query))
        };
        Self {
            host: host_stages(state, (&from, &meant, &to), (asked, query)),
            to_host: matches!(from, End::Workload(_))
                && to == End::Host
                && state.desired().endpoint_to_host == EndpointToHost::Drop,
            egress: judge(src, Direction::Egress),
            // A host is free to speak to its own workloads.
            ingress: if from == End::Host { None } else { judge(dst, Direction::Ingress) },
        }
    }

    pub fn allows(&self) -> bool {
        let workloads = [&self.egress, &self.ingress];
        !self.to_host
            && workloads.into_iter().flatten().all(|direction| direction.verdict == "allow")
            && !self.host.iter().any(HostStage::denies)
    }

    /// What was decided at the source's workload, at the destination's, and at host endpoints, without the way to it.
    pub fn in_short(self) -> (Option<pb::Direction>, Option<pb::Direction>, Vec<pb::HostStage>) {
        fn short(direction: pb::Direction) -> pb::Direction {
            let staged = direction.staged.map(|staged| Box::new(short(*staged)));
            pb::Direction { walk: vec![], minimal_match: String::new(), staged, ..direction }
        }
        let stage = |stage: HostStage| {
            let stage = pb::HostStage::from(stage);
            pb::HostStage { decision: stage.decision.map(short), ..stage }
        };
        (self.egress.map(short), self.ingress.map(short), self.host.into_iter().map(stage).collect())
    }

    /// The first that denies, where policy does.
    pub fn denier(self) -> Option<pb::Direction> {
        let decided = self.host.into_iter().filter_map(|stage| pb::HostStage::from(stage).decision);
        let all = self.egress.into_iter().chain(decided).chain(self.ingress);
        all.into_iter().find(|direction| direction.verdict == "deny")
    }
}

pub(super) fn query(request: &pb::ExplainRequest) -> Result<Query, FieldError> {
    let src = convert::addr("source", &request.source)?;
    let dst = convert::addr("destination", &request.destination)?;
    if src.is_v4() != dst.is_v4() {
        return Err(FieldError::new("destination", format!("{dst} is of another family than {src}")));
    }
    let narrow = |field: &str, value: u32, max: u32| {
        if value > max { Err(FieldError::new(field, format!("{value} is above {max}"))) } else { Ok(value) }
    };
    let proto = Proto(narrow("protocol", request.protocol, 255)? as u8);
    let sport = narrow("source_port", request.source_port, 65535)? as u16;
    let dport = narrow("destination_port", request.destination_port, 65535)? as u16;
    let kind = narrow("icmp_type", request.icmp_type, 255)? as u8;
    let code = narrow("icmp_code", request.icmp_code, 255)? as u8;
    let ports = if proto.has_ports() { (sport, dport) } else { (0, 0) };
    let icmp = if proto.is_icmp() { Icmp { kind, code } } else { Icmp::default() };
    Ok(Query { key: FlowKey { src, dst, sport: ports.0, dport: ports.1, proto }, icmp })
}

fn judge(state: &State, endpoint: &Endpoint, direction: Direction, query: &Query) -> pb::Direction {
    let name = endpoint.name.to_string();
    let index = state.endpoint_index(&endpoint.id);
    let explained = index.and_then(|index| state.policy().explain(index, direction, query));
    let Some(explained) = explained.filter(|_| endpoint.active) else {
        let minimal_match =
            if endpoint.active { "no policy is held for it" } else { "the endpoint is switched off" };
        return pb::Direction {
            endpoint: name,
            verdict: "deny".into(),
            rule: -1,
            minimal_match: minimal_match.into(),
            ..pb::Direction::default()
        };
    };
    let staged = index.and_then(|index| state.shadow()?.explain(index, direction, query));
    let staged = staged.map(|staged| Box::new(self::direction(name.clone(), staged)));
    pb::Direction { staged, ..self::direction(name, explained) }
}

/// What a list says, under the name of what it judges for.
pub(super) fn direction(endpoint: String, explained: Explanation) -> pb::Direction {
    pb::Direction {
        endpoint,
        verdict: if explained.verdict.allow { "allow" } else { "deny" }.into(),
        tier: explained.decider.tier().to_owned(),
        policy: explained.decider.policy(),
        rule: explained.decider.rule,
        walk: explained.walk.iter().map(step).collect(),
        minimal_match: explained.minimal_match.clone(),
        staged: None,
    }
}

impl From<HostStage> for pb::HostStage {
    fn from(stage: HostStage) -> Self {
        let (name, of) = (stage.name(), stage.list.to_string());
        let mut decision = direction(of.clone(), stage.explained);
        decision.staged = stage.staged.map(|staged| Box::new(direction(of, staged)));
        if !stage.decided {
            decision.verdict = "pass".into();
        }
        Self { stage: name, direction: stage.direction.to_string(), decision: Some(decision) }
    }
}

fn step(decider: &Decider) -> pb::Step {
    pb::Step {
        tier: decider.tier().to_owned(),
        policy: decider.policy(),
        rule: decider.rule,
        action: decider.action.to_string(),
    }
}

/// Where the packet would go. Of several ways, which one it is depends on a worker's key: here it is the first.
fn way(snapshot: &Snapshot, key: &FlowKey) -> Hop {
    let owns = |interface: &&Interface| interface.workload().is_some_and(|workload| workload.owns(key.src));
    let from = snapshot.interfaces.iter().find(owns);
    snapshot.fib.lookup(key.dst, from.map_or(Scope::Host, Interface::scope), 0)
}

/// Where the packet would go, in words.
fn route(state: &State, key: &FlowKey) -> String {
    let (snapshot, dst) = (state.publisher().current(), key.dst);
    let via = |interface, how: String| match snapshot.interfaces.get(interface) {
        Some(interface) => match interface.workload() {
            Some(workload) => format!("workload {} via {}{how}", workload.name, interface.name),
            None => format!("{}{} on {}", node(state, dst), how.trim_start(), interface.name),
        },
        None => "an interface that is gone".into(),
    };
    match way(&snapshot, key) {
        Hop::Adjacency(index) => match snapshot.fib.leaves_by(index) {
            Some(tx_if) => via(tx_if, String::new()),
            None => "an adjacency that is gone".into(),
        },
        Hop::Unresolved { tx_if, next_hop, .. } => {
            via(tx_if, format!(" (next hop {next_hop} not resolved yet)"))
        }
        Hop::Local => "this host".into(),
        Hop::Blackhole => {
            "nowhere: the address is in a pool of workloads or a block of services, and nobody has it".into()
        }
        Hop::Unreachable => "nowhere: the route says unreachable".into(),
        Hop::Prohibited => "nowhere: the route says prohibited".into(),
        Hop::NoRoute => "nowhere: no route, or its next hop or interface is not there".into(),
    }
}

/// The node and gateway that a remote destination lies behind.
fn node(state: &State, dst: Addr) -> String {
    let routes = state.desired().routes.iter();
    let longest = routes.filter(|(prefix, _)| prefix.contains(dst)).max_by_key(|(prefix, _)| prefix.len());
    match longest {
        Some((_, Target::Gateway { hops, node })) => {
            let gateways: Vec<String> = hops.iter().map(|hop| hop.addr.to_string()).collect();
            let via = format!("via {}", gateways.join(" or "));
            if node.is_empty() { via } else { format!("node {node} {via}") }
        }
        Some((_, Target::Tunnel { tunnel, node })) => {
            format!("node {node} through {} to {}", tunnel.kind.name(), tunnel.remote)
        }
        _ => "a neighbour".into(),
    }
}
