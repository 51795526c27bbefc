//! Services and their backends as packets meet them, in messages.

use super::{ServiceId, State};
use crate::net::Addr;
use crate::service::{Assembled, Backend, Kind, Port};
use margay_api::dataplane::v1 as pb;
use std::sync::Arc;

/// The service of this name, or all where it is empty.
pub fn served(state: &State, name: &str) -> Vec<pb::ServedService> {
    let services = state.desired().services.keys();
    let wanted = services.filter(|id| name.is_empty() || id.to_string() == name);
    wanted.filter_map(|id| Some(service(id, state.service(id)?))).collect()
}

fn service(id: &ServiceId, assembled: &Assembled) -> pb::ServedService {
    pb::ServedService {
        id: Some(pb::ServiceId { namespace: id.namespace.to_string(), name: id.name.to_string() }),
        ports: assembled.ports().map(|port| self::port(port, assembled)).collect(),
    }
}

fn port(port: &Arc<Port>, assembled: &Assembled) -> pb::ServedPort {
    let its = assembled.frontends().iter().filter(|(_, bound)| Arc::ptr_eq(&bound.port, port));
    pb::ServedPort {
        name: port.name.to_string(),
        frontends: its
            .map(|(frontend, bound)| pb::Frontend {
                address: if frontend.addr.is_unspecified() { vec![] } else { octets(frontend.addr) },
                protocol: frontend.proto.0.into(),
                port: frontend.port.into(),
                kind: kind(bound.kind).to_owned(),
            })
            .collect(),
        backends: port.cluster.list().iter().map(backend).collect(),
        local_backends: port.local.iter().flat_map(|local| local.list()).map(backend).collect(),
        internal_traffic_local: port.internal_local,
        external_traffic_local: port.external_local,
        client_affinity_seconds: port.affinity.unwrap_or_default(),
        table_bytes: port.sets().map(|set| set.bytes() as u64).sum(),
        table_pending: port.sets().any(|set| !set.is_built()),
    }
}

pub(super) fn backend(backend: &Backend) -> pb::ServedBackend {
    pb::ServedBackend {
        address: octets(backend.addr),
        port: backend.port.into(),
        local: backend.local,
        weight: backend.weight,
    }
}

pub(super) const fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Cluster => "cluster",
        Kind::LoadBalancer => "load-balancer",
        Kind::External => "external",
        Kind::Node => "node",
    }
}

fn octets(addr: Addr) -> Vec<u8> {
    if addr.is_v4() { addr.v4_octets().to_vec() } else { addr.octets().to_vec() }
}
