//! What works and what does not, in one answer.

use super::{Agent, ask};
use crate::{health::Health, routing::Bird, sync::Progress};
use margay_api::{
    control::v1::{Component, Endpoint, Status},
    dataplane::v1::{self as dataplane, GetStatusRequest, Prefix, endpoint_status::State},
};
use std::{net::IpAddr, time::UNIX_EPOCH};

impl Agent {
    /// The agent, all that it is made of, and the dataplane as far as it answers.
    pub async fn status(&self) -> Status {
        let asked = ask::within(ask::PART, &self.link, async |dataplane| {
            dataplane.get_status(GetStatusRequest {}).await
        });
        let dataplane = asked.await.ok();
        let progress = self.link.progress().borrow().clone();
        let endpoints = self.endpoints(&progress);
        let mut components: Vec<_> = self.parts().into_iter().map(component).collect();
        components.extend(endpoints.iter().map(|endpoint| Component {
            name: format!("endpoint {}/{}", endpoint.namespace, endpoint.name),
            healthy: endpoint.state == "up",
            reason: endpoint.reason.clone(),
            since_unix_seconds: 0,
        }));
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            node: self.node.clone(),
            uptime_seconds: self.started.elapsed().as_secs(),
            components,
            dataplane,
            endpoints,
            sent_generation: progress.sent_generation,
            adopted_generation: progress.adopted_generation,
            relay: None,
        }
    }

    /// What the agent is made of.
    pub(super) fn parts(&self) -> Vec<&Health> {
        let always = [
            self.store.health(),
            self.calculation.health(),
            self.link.health(),
            self.health_checks.health(),
            self.key_publication.health(),
        ];
        always.into_iter().chain(self.bird.as_ref().map(Bird::health)).collect()
    }

    /// This node's endpoints: as they should be, and what the dataplane says of them.
    pub(super) fn endpoints(&self, progress: &Progress) -> Vec<Endpoint> {
        let latest = self.calculation.latest();
        let Some(calculated) = latest.borrow().clone() else { return Vec::new() };
        let endpoints = calculated.desired.endpoints.iter().map(|(key, endpoint)| {
            let (state, reason) = match progress.endpoints.get(key) {
                Some(status) => (state(status.state()), status.reason.clone()),
                None if progress.connected => ("down", "the dataplane has not reported it yet".to_owned()),
                None => ("down", "the dataplane is not connected".to_owned()),
            };
            let (namespace, name) =
                endpoint.display_name.split_once('/').unwrap_or(("", &endpoint.display_name));
            Endpoint {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
                interface_name: endpoint.interface_name.clone(),
                addresses: endpoint.nets.iter().map(address).collect(),
                state: state.to_owned(),
                reason,
            }
        });
        endpoints.collect()
    }
}

pub(super) fn component(health: &Health) -> Component {
    let state = health.state();
    Component {
        name: health.name().to_owned(),
        healthy: state.healthy,
        reason: state.reason,
        since_unix_seconds: state.since.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
    }
}

fn state(state: dataplane::endpoint_status::State) -> &'static str {
    match state {
        State::Up => "up",
        State::Down | State::Unspecified => "down",
        State::Error => "error",
    }
}

/// A single address without its length.
fn address(prefix: &Prefix) -> String {
    let address = match prefix.address.len() {
        4 => <[u8; 4]>::try_from(prefix.address.as_slice()).ok().map(IpAddr::from),
        _ => <[u8; 16]>::try_from(prefix.address.as_slice()).ok().map(IpAddr::from),
    };
    match address {
        Some(address) if prefix.length as usize == prefix.address.len() * 8 => address.to_string(),
        Some(address) => format!("{address}/{}", prefix.length),
        None => String::new(),
    }
}
