//! What services make of a packet that nobody sent, for explanations.

use super::passage::End;
use super::services_view;
use super::state::{Purpose, State};
use crate::net::{FlowKey, Nanos};
use crate::packet::DropReason;
use crate::policy::Query;
use crate::service::Origin;
use margay_api::dataplane::v1 as pb;

/// Backends that are listed at most.
const LISTED: usize = 64;

/// What a packet to a service becomes.
#[derive(Debug)]
pub struct Served {
    /// For who asks.
    pub choice: pb::ServiceChoice,
    /// As it goes on; `None`: it does not.
    pub query: Option<Query>,
}

/// What the packet becomes, if it is for a service. It comes from `from`.
pub fn served(state: &State, query: &Query, from: &End, now: Nanos) -> Option<Served> {
    let origin = match from {
        End::Workload(_) => Origin::Workload,
        // What the host sends comes to services over the tap alone.
        End::Host if state.wanted().any(|(_, _, purpose, _)| *purpose == Purpose::Host) => Origin::Host,
        End::Host => return None,
        End::Network(_) | End::Nowhere => Origin::Outside,
    };
    let (services, key) = (state.services(), &query.key);
    let refused = |reason: DropReason, choice| pb::ServiceChoice {
        refused: reason.name().to_owned(),
        sentence: reason.sentence().to_owned(),
        ..choice
    };
    let Some(found) = services.preview(key, origin, now) else {
        let bound = services.claimant(key.dst)?;
        let choice = pb::ServiceChoice {
            service: bound.port.service.to_string(),
            kind: services_view::kind(bound.kind).to_owned(),
            ..Default::default()
        };
        return Some(Served { choice: refused(DropReason::NoServicePort, choice), query: None });
    };
    let port = &found.bound.port;
    let choice = pb::ServiceChoice {
        service: port.service.to_string(),
        port: port.name.to_string(),
        kind: services_view::kind(found.bound.kind).to_owned(),
        backends: found.set.list().iter().take(LISTED).map(services_view::backend).collect(),
        local_only: found.local_only,
        by_affinity: found.recalled,
        by_source_port: port.affinity.is_none() && found.set.list().len() > 1,
        ..Default::default()
    };
    let (backend, target) = match found.outcome {
        Ok(chosen) => chosen,
        Err(reason) => return Some(Served { choice: refused(reason, choice), query: None }),
    };
    let choice = pb::ServiceChoice {
        backend: Some(services_view::backend(backend)),
        translates_source: target.snat,
        ..choice
    };
    let key = FlowKey { dst: target.addr, dport: target.port, ..*key };
    Some(Served { choice, query: Some(Query { key, ..*query }) })
}
