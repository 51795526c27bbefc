//! `dp services`: services and their backends as packets meet them.

use std::io::{self, Write as _};

use margay_api::dataplane::v1::{self as api, dataplane_client::DataplaneClient};
use serde::Serialize;
use tonic::{Status, transport::Channel};

use super::Counted;
use crate::{
    output::{Cell, Output, Table, Tone, View},
    readable::{address, count, span},
};

/// Every service.
#[derive(Debug, Serialize)]
pub struct Services {
    services: Vec<Service>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Service {
    namespace: String,
    name: String,
    ports: Vec<Port>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Port {
    name: String,
    frontends: Vec<Frontend>,
    backends: Vec<Backend>,
    /// For clients whom a traffic policy keeps on this node.
    local_backends: Vec<Backend>,
    internal_traffic_local: bool,
    external_traffic_local: bool,
    client_affinity_seconds: u32,
    table_bytes: u64,
    table_pending: bool,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Frontend {
    /// Empty: those of this node at which it serves node ports.
    address: String,
    protocol: String,
    port: u32,
    kind: String,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Backend {
    address: String,
    port: u32,
    local: bool,
    weight: u32,
}

impl Counted for Services {
    const WHAT: &'static str = "services";

    async fn fetch(dataplane: &mut DataplaneClient<Channel>) -> Result<Self, Status> {
        let mut answers = dataplane.list_services(api::ListServicesRequest::default()).await?.into_inner();
        let mut services = Vec::new();
        while let Some(service) = answers.message().await? {
            services.push(service.into());
        }
        Ok(Self { services })
    }

    /// Nothing of it is counted.
    fn since(&self, _: &Self) -> Self {
        Self { services: self.services.clone() }
    }
}

impl From<api::ServedService> for Service {
    fn from(from: api::ServedService) -> Self {
        let id = from.id.unwrap_or_default();
        Self {
            namespace: id.namespace,
            name: id.name,
            ports: from.ports.into_iter().map(Port::from).collect(),
        }
    }
}

impl From<api::ServedPort> for Port {
    fn from(from: api::ServedPort) -> Self {
        let backends = |all: Vec<api::ServedBackend>| all.into_iter().map(Backend::from).collect();
        Self {
            name: from.name,
            frontends: from.frontends.into_iter().map(Frontend::from).collect(),
            backends: backends(from.backends),
            local_backends: backends(from.local_backends),
            internal_traffic_local: from.internal_traffic_local,
            external_traffic_local: from.external_traffic_local,
            client_affinity_seconds: from.client_affinity_seconds,
            table_bytes: from.table_bytes,
            table_pending: from.table_pending,
        }
    }
}

impl From<api::Frontend> for Frontend {
    fn from(from: api::Frontend) -> Self {
        let protocol = match from.protocol {
            6 => "TCP".to_owned(),
            17 => "UDP".to_owned(),
            132 => "SCTP".to_owned(),
            other => other.to_string(),
        };
        Self { address: address(&from.address), protocol, port: from.port, kind: from.kind }
    }
}

impl From<api::ServedBackend> for Backend {
    fn from(from: api::ServedBackend) -> Self {
        Self { address: address(&from.address), port: from.port, local: from.local, weight: from.weight }
    }
}

impl Port {
    /// Backends, and how many of them are here.
    fn served(&self) -> Cell {
        match self.backends.len() {
            0 => Cell::toned("none", Tone::Bad),
            all => Cell::from(format!("{all}, {} local", self.backends.iter().filter(|b| b.local).count())),
        }
    }

    fn policy(&self) -> &'static str {
        match (self.internal_traffic_local, self.external_traffic_local) {
            (false, false) => "cluster",
            (true, false) => "internal local",
            (false, true) => "external local",
            (true, true) => "local",
        }
    }
}

impl View for Services {
    const RECORDS: Option<&'static str> = Some("services");

    fn text(&self, out: &mut Output, wide: bool) -> io::Result<()> {
        let ports =
            || self.services.iter().flat_map(|service| service.ports.iter().map(move |port| (service, port)));
        let titles = [
            "NAMESPACE",
            "NAME",
            "PORT",
            "KIND",
            "ADDRESS",
            ">NUMBER",
            "PROTOCOL",
            "POLICY",
            "AFFINITY",
            "BACKENDS",
        ];
        let mut table = Table::new(titles);
        for (service, port) in ports() {
            for frontend in &port.frontends {
                let affinity = match port.client_affinity_seconds {
                    0 => String::new(),
                    seconds => span(seconds.into()),
                };
                table.row(vec![
                    (&service.namespace).into(),
                    (&service.name).into(),
                    (&port.name).into(),
                    (&frontend.kind).into(),
                    (&frontend.address).into(),
                    frontend.port.into(),
                    (&frontend.protocol).into(),
                    port.policy().into(),
                    affinity.into(),
                    port.served(),
                ]);
            }
        }
        table.print(out)?;
        let pending = ports().filter(|(_, port)| port.table_pending).count();
        if pending > 0 {
            writeln!(out, "\ntables of {} are still being made", count(pending as u64, "port", "ports"))?;
        }
        if wide {
            let mut table =
                Table::new(["NAMESPACE", "NAME", "PORT", "BACKEND", ">NUMBER", "LOCAL", ">WEIGHT"]);
            for (service, port) in ports() {
                for backend in &port.backends {
                    table.row(vec![
                        (&service.namespace).into(),
                        (&service.name).into(),
                        (&port.name).into(),
                        (&backend.address).into(),
                        backend.port.into(),
                        if backend.local { "yes" } else { "no" }.into(),
                        backend.weight.into(),
                    ]);
                }
            }
            writeln!(out)?;
            table.print(out)?;
        }
        Ok(())
    }
}
