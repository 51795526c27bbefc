//! A cluster read from files, and packets judged in it.
//!
//! Nothing is imitated: the agent's calculation says what each node's dataplane would be sent, the
//! dataplane's control room takes that, and the trees that come of it judge. The source's egress and
//! the destination's ingress are each asked of the node that has the endpoint.

#[cfg(test)]
mod conformance;
mod node;
mod packet;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use margay_agent::{
    calc::Resources,
    model::{
        Resource, WorkloadEndpoint,
        kubernetes::{Converted, Offline, convert},
    },
};
use margay_dataplane::policy::Direction;
use serde::Serialize;

use self::{
    node::{Judgement, Node},
    packet::{End, Packet},
};
use crate::{
    exit::{Failure, Outcome},
    lines::Unanswered,
};

/// Every node of a cluster that has endpoints.
pub struct Cluster {
    endpoints: Vec<WorkloadEndpoint>,
    nodes: BTreeMap<String, Node>,
    /// Addresses of nodes, with the node.
    hosts: BTreeMap<IpAddr, String>,
    host_pods: BTreeMap<(String, String), Vec<IpAddr>>,
    services: BTreeMap<IpAddr, String>,
    problems: Vec<String>,
}

/// What becomes of a packet.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    verdict: &'static str,
    /// Absent: the source is no endpoint, or is not policed.
    #[serde(skip_serializing_if = "Option::is_none")]
    egress: Option<Judgement>,
    /// Absent: the destination is no endpoint, or is not policed.
    #[serde(skip_serializing_if = "Option::is_none")]
    ingress: Option<Judgement>,
    /// What else decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'static str>,
}

impl Cluster {
    /// Calculates and compiles what every node needs. The objects are ones that were found valid.
    ///
    /// # Errors
    /// A dataplane would refuse what it is sent.
    pub fn new(own: Vec<Resource>, offline: impl Iterator<Item = Offline>) -> Outcome<Self> {
        let Converted { resources, problems, mut hosts, host_pods, services } =
            convert(own, &offline.collect::<Vec<_>>());
        let mut known = Resources::default();
        let mut endpoints = Vec::new();
        let mut keys = BTreeSet::new();
        for mut resource in resources {
            resource.set_defaults();
            match &resource {
                Resource::WorkloadEndpoint(endpoint) => endpoints.push(endpoint.clone()),
                Resource::Node(node) => {
                    let bgp = node.spec.bgp.iter().flat_map(|bgp| [bgp.ipv4_address, bgp.ipv6_address]);
                    hosts.extend(bgp.flatten().map(|address| (address.addr, node.metadata.name.clone())));
                }
                _ => {}
            }
            if !keys.insert(resource.key()) {
                return Err(Failure::usage(
                    format!("there are two of {}", resource.key()),
                    "one is written, the other is what an object of Kubernetes becomes",
                    "remove one of them",
                ));
            }
            known.insert(resource);
        }
        let names: BTreeSet<&String> = endpoints.iter().map(|endpoint| &endpoint.spec.node).collect();
        let mut cluster =
            Self { nodes: BTreeMap::new(), hosts, host_pods, services, problems, endpoints: Vec::new() };
        for name in names {
            let (node, problems) = Node::new(&known, name)?;
            cluster.problems.extend(problems);
            cluster.nodes.insert(name.clone(), node);
        }
        cluster.endpoints = endpoints;
        let mut seen = BTreeSet::new();
        cluster.problems.retain(|problem| seen.insert(problem.clone()));
        Ok(cluster)
    }

    /// What is wrong with the objects, and what was done about it. A sentence each.
    pub fn problems(&self) -> &[String] {
        &self.problems
    }

    /// Judges the packet of a line.
    pub fn answer(&self, line: &[u8]) -> Result<Answer, Unanswered> {
        let packet = packet::read(line, self)?;
        self.judge(&packet).map_err(Unanswered::Broken)
    }

    fn judge(&self, packet: &Packet<'_>) -> Outcome<Answer> {
        let ask = |end: &End<'_>, direction| match end.endpoint {
            Some(endpoint) => {
                self.nodes[&endpoint.spec.node].judge(endpoint, direction, &packet.query).map(Some)
            }
            None => Ok(None),
        };
        let egress = ask(&packet.from, Direction::Egress)?;
        let own = |host: &End<'_>, other: &End<'_>| {
            host.host.is_some() && host.host == other.endpoint.map(|endpoint| endpoint.spec.node.as_str())
        };
        let from_own_host = own(&packet.from, &packet.to);
        let ingress = if from_own_host { None } else { ask(&packet.to, Direction::Ingress)? };
        let allowed = [&egress, &ingress].into_iter().flatten().all(Judgement::allows);
        let to_own_host = own(&packet.to, &packet.from);
        let note = match (from_own_host, to_own_host && allowed) {
            (true, _) => Some("what a host sends to its own workloads is not policed"),
            (_, true) => {
                Some("what a workload sends to its own host is dropped: the endpoint-to-host action is Drop")
            }
            _ => None,
        };
        let verdict = if allowed && !to_own_host { "allow" } else { "deny" };
        Ok(Answer { verdict, egress, ingress, note })
    }
}
