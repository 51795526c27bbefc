//! A cluster read from files, and packets judged in it.
//!
//! Nothing is imitated: the agent's calculation says what each node's dataplane would be sent, the
//! dataplane's control room takes that, and the trees that come of it judge. The source's egress and
//! the destination's ingress are each asked of the node that has the endpoint.

mod change;
#[cfg(test)]
mod conformance;
mod counterfactual;
mod node;
mod packet;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Write as _},
    net::IpAddr,
    path::Path,
    sync::Arc,
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

pub use self::{
    counterfactual::Counterfactual,
    node::{Judgement, Node},
    packet::{End, NumberOrName, Packet, Written},
};
use crate::{
    args::Source,
    exit::{Failure, Outcome},
    lines::Unanswered,
    manifest::Manifest,
};

/// Every node of a cluster that has endpoints.
pub struct Cluster {
    /// All there is, in Calico's kinds.
    resources: Vec<Arc<Resource>>,
    endpoints: Vec<WorkloadEndpoint>,
    nodes: BTreeMap<String, Node>,
    around: Arc<Around>,
    problems: Vec<String>,
}

/// What packets may come from or go to besides endpoints.
#[derive(Default)]
struct Around {
    /// Addresses of nodes, with the node.
    hosts: BTreeMap<IpAddr, String>,
    host_pods: BTreeMap<(String, String), Vec<IpAddr>>,
    services: BTreeMap<IpAddr, String>,
}

/// What becomes of a packet.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    pub verdict: &'static str,
    /// Absent: the source is no endpoint, or is not policed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress: Option<Judgement>,
    /// Absent: the destination is no endpoint, or is not policed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ingress: Option<Judgement>,
    /// What else decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<&'static str>,
}

impl Cluster {
    /// The cluster of a file or folder. What is wrong with the objects and yet no error is told on
    /// standard error.
    ///
    /// # Errors
    /// The files cannot be read, or hold what is no object, or a dataplane would refuse them.
    pub fn read(path: &Path) -> Outcome<Self> {
        let source = Source { files: vec![path.to_owned()], namespace: None };
        let manifest = Manifest::read_offline(&source)?;
        manifest.check()?;
        let cluster = Self::new(manifest.resources().cloned().collect(), manifest.offline().cloned())?;
        for problem in cluster.problems() {
            // Nobody may be listening, and there is nobody else to tell.
            let _ = writeln!(io::stderr(), "warning: {problem}");
        }
        Ok(cluster)
    }

    /// Calculates and compiles what every node needs. The objects are ones that were found valid.
    ///
    /// # Errors
    /// A dataplane would refuse what it is sent.
    pub fn new(own: Vec<Resource>, offline: impl Iterator<Item = Offline>) -> Outcome<Self> {
        let Converted { resources, problems, mut hosts, host_pods, services } =
            convert(own, &offline.collect::<Vec<_>>());
        let mut all = Vec::with_capacity(resources.len());
        let mut keys = BTreeSet::new();
        for mut resource in resources {
            resource.set_defaults();
            if let Resource::Node(node) = &resource {
                let bgp = node.spec.bgp.iter().flat_map(|bgp| [bgp.ipv4_address, bgp.ipv6_address]);
                hosts.extend(bgp.flatten().map(|address| (address.addr, node.metadata.name.clone())));
            }
            if !keys.insert(resource.key()) {
                return Err(Failure::usage(
                    format!("there are two of {}", resource.key()),
                    "one is written, the other is what an object of Kubernetes becomes",
                    "remove one of them",
                ));
            }
            all.push(Arc::new(resource));
        }
        Self::of(all, Arc::new(Around { hosts, host_pods, services }), problems)
    }

    /// What every node that has endpoints needs of the resources.
    fn of(resources: Vec<Arc<Resource>>, around: Arc<Around>, mut problems: Vec<String>) -> Outcome<Self> {
        let mut known = Resources::default();
        resources.iter().for_each(|resource| known.insert(resource.clone()));
        let of_resource = |resource: &Arc<Resource>| match &**resource {
            Resource::WorkloadEndpoint(endpoint) => Some(endpoint.clone()),
            _ => None,
        };
        let endpoints: Vec<WorkloadEndpoint> = resources.iter().filter_map(of_resource).collect();
        let names: BTreeSet<&String> = endpoints.iter().map(|endpoint| &endpoint.spec.node).collect();
        let mut nodes = BTreeMap::new();
        for name in names {
            let (node, wrong) = Node::new(&known, name)?;
            problems.extend(wrong);
            nodes.insert(name.clone(), node);
        }
        let mut seen = BTreeSet::new();
        problems.retain(|problem| seen.insert(problem.clone()));
        Ok(Self { resources, endpoints, nodes, around, problems })
    }

    /// What is wrong with the objects, and what was done about it. A sentence each.
    pub fn problems(&self) -> &[String] {
        &self.problems
    }

    /// The node that has the endpoint.
    pub fn node_of(&self, endpoint: &WorkloadEndpoint) -> &Node {
        &self.nodes[&endpoint.spec.node]
    }

    /// Judges the packet of a line.
    pub fn answer(&self, line: &[u8]) -> Result<Answer, Unanswered> {
        let packet = Packet::read(line, self)?;
        self.judge(&packet).map_err(Unanswered::Broken)
    }

    /// Judges a packet.
    pub fn judge(&self, packet: &Packet<'_>) -> Outcome<Answer> {
        let ask = |end: &End<'_>, direction| match end.endpoint {
            Some(endpoint) => self.node_of(endpoint).judge(endpoint, direction, &packet.query).map(Some),
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
