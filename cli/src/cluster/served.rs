//! What services make of packets that are sent to them: the agent's calculation and the dataplane's own choice.

use std::{iter, net::IpAddr, sync::Arc};

use margay_agent::{
    calc::{self, Resources},
    model::Kind,
};
use margay_api::dataplane::v1::{self as api, change::Change};
use margay_dataplane::{
    control::{self, End, State},
    net::Nanos,
    snapshot::{Publisher, Snapshot},
};

use super::{Cluster, Packet, node::refused, uplinks::Uplinks};
use crate::exit::{Code, Failure, Outcome};

/// What a packet became.
pub struct Served<'c> {
    /// As policy sees it; `None`: it goes to nobody.
    pub packet: Option<Packet<'c>>,
    /// What a service did with it, and the node that was asked where the source is of none; `None`: it is for no service.
    pub service: Option<(api::ServiceChoice, Option<String>)>,
}

impl<'c> Served<'c> {
    fn not(packet: Packet<'c>) -> Self {
        Self { packet: Some(packet), service: None }
    }
}

impl Cluster {
    /// Asks the node that a packet comes from what its services make of it. What comes from no node is
    /// asked of the node it is for, else of the first that has a backend for it.
    ///
    /// # Errors
    /// Nobody can tell: the packet is a host's own, or for a port of another node.
    pub fn served<'c>(&'c self, packet: Packet<'c>) -> Outcome<Served<'c>> {
        let Some(dst) = packet.to.endpoint.is_none().then(|| IpAddr::from(packet.query.key.dst)) else {
            return Ok(Served::not(packet));
        };
        if !self.resources.iter().any(|resource| resource.kind() == Kind::Service) {
            return Ok(Served::not(packet));
        }
        let service = self.around.services.get(&dst);
        let (source, host) = (packet.from.node(), packet.to.host);
        let candidates: Vec<&str> = match (source, host) {
            (Some(source), _) => vec![source],
            (None, Some(host)) => vec![host],
            (None, None) => self.nodes.keys().map(String::as_str).collect(),
        };
        let mut answers = Vec::new();
        for node in candidates {
            let state = self.services_of(node)?;
            let from = match (packet.from.endpoint, packet.from.host) {
                (Some(_), _) => End::Workload("".into()),
                (None, Some(_)) => End::Host,
                (None, None) => End::Network("".into()),
            };
            if let Some(served) = control::served(&state, &packet.query, &from, Nanos::default()) {
                answers.push((node, served));
            }
        }
        let chosen = answers.iter().position(|(_, served)| served.query.is_some()).unwrap_or_default();
        let Some((node, served)) = answers.into_iter().nth(chosen) else {
            return match service {
                Some(service) => Err(unknown(&packet, service)),
                None if self.is_node_port(&packet)? => Err(elsewhere(&packet)),
                None => Ok(Served::not(packet)),
            };
        };
        let asked = source.is_none().then(|| node.to_owned());
        let packet = served.query.map(|query| packet.translated(query, self));
        Ok(Served { packet, service: Some((served.choice, asked)) })
    }

    /// The destination is a node port of the node that has the address.
    fn is_node_port(&self, packet: &Packet<'_>) -> Outcome<bool> {
        let Some(host) = packet.to.host.filter(|host| packet.from.node() != Some(host)) else {
            return Ok(false);
        };
        Ok(self.services_of(host)?.services().find(&packet.query.key).is_some())
    }

    /// A dataplane that serves what a node serves, and knows nothing else.
    fn services_of(&self, node: &str) -> Outcome<State> {
        let mut known = Resources::default();
        self.resources.iter().for_each(|resource| known.insert(Arc::clone(resource)));
        let desired = calc::served(&known, node);
        let mut state = State::new(Publisher::new(Snapshot::empty(1)), u16::MAX);
        Uplinks::one(self.around.own.get(node).map(Vec::as_slice).unwrap_or_default()).attach(&mut state);
        let services = desired.services.values().map(|service| Change::Service((**service).clone()));
        let changes = iter::once(Change::Config(desired.config)).chain(services);
        let changes: Vec<_> = changes.map(|change| api::Change { change: Some(change) }).collect();
        let commit = api::Commit { generation: 1, in_sync: true };
        state.commit(&changes, &commit, Nanos::default()).map_err(|errors| refused(node, &errors))?;
        state.publish();
        Ok(state)
    }
}

/// What a host sends to a service.
fn unknown(packet: &Packet<'_>, service: &str) -> Failure {
    let cause = if packet.from.host.is_some() && packet.from.endpoint.is_none() {
        format!(
            "{} is of service {service}; where no host endpoint protects it, a host's own packets to services are its kernel's to lead",
            packet.query.key.dst
        )
    } else {
        format!("{} is of service {service}, which no node of the files serves", packet.query.key.dst)
    };
    Failure::new(Code::Usage, "cannot explain the packet", cause, "name a backend in its place")
}

/// What goes to a port of another node.
fn elsewhere(packet: &Packet<'_>) -> Failure {
    let cause = format!(
        "{} port {} is a service's on another node than the source's: that one chooses the backend",
        packet.query.key.dst, packet.query.key.dport
    );
    Failure::new(Code::Usage, "cannot explain the packet", cause, "name a backend in its place")
}
