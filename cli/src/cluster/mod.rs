//! A cluster read from files, and packets judged in it.
//!
//! Nothing is imitated: the agent's calculation says what each node's dataplane would be sent, the
//! dataplane's control room takes that, and the trees that come of it judge. The source's egress and
//! the destination's ingress are each asked of the node that has the endpoint, and the host endpoints of
//! both nodes on the way.

#[cfg(test)]
mod administrators;
pub mod between;
mod change;
#[cfg(test)]
mod conformance;
mod counterfactual;
pub mod groups;
mod node;
pub mod objects;
mod packet;
pub mod reach;
mod served;
#[cfg(test)]
mod twin;
mod uplinks;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Write as _},
    net::IpAddr,
    path::Path,
    sync::Arc,
};

use margay_agent::{
    calc::{self, Resources},
    model::{
        EndpointToHostAction, FelixConfiguration, HostEndpoint, Kind, Resource, WorkloadEndpoint,
        kubernetes::{self, Pod, Typed},
    },
};
use margay_api::dataplane::v1 as api;
use margay_dataplane::{control, policy::Direction};
use serde::Serialize;

pub use self::{
    counterfactual::Counterfactual,
    node::{HostJudgement, Judgement, Node},
    packet::{End, NumberOrName, Packet, Written},
};
use crate::{
    exit::{Code, Failure, Outcome},
    lines::Unanswered,
    manifest::Manifest,
};

/// Where pods are that name no node.
const UNSCHEDULED: &str = "no-node";

/// Every node of a cluster that has endpoints, be they the host's own.
pub struct Cluster {
    /// All there is, in Calico's kinds.
    resources: Vec<Arc<Resource>>,
    endpoints: Vec<WorkloadEndpoint>,
    nodes: BTreeMap<String, Node>,
    around: Arc<Around>,
    problems: Vec<String>,
    /// Nobody said that workloads may speak to their hosts; it was assumed.
    opens_hosts: bool,
}

/// What packets may come from or go to besides endpoints.
#[derive(Default)]
struct Around {
    /// Addresses of nodes, with the node.
    hosts: BTreeMap<IpAddr, String>,
    /// Of those, by node, what host endpoints do not say.
    own: BTreeMap<String, Vec<IpAddr>>,
    /// Pods that are no endpoints, by namespace and name: in the host's network, or without address.
    other_pods: BTreeMap<(String, String), Vec<IpAddr>>,
    /// Addresses of services, with their names. Policy sees the backends' instead.
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
    /// What host endpoints on the way say, in order, as far as the packet comes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub host: Vec<HostJudgement>,
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
        let manifest = Manifest::read_cluster(path)?;
        manifest.check()?;
        let mut objects: Vec<Resource> = manifest.resources().cloned().collect();
        let assumed = open_hosts(&mut objects);
        let mut cluster = Self::told(objects)?;
        cluster.opens_hosts = assumed;
        Ok(cluster)
    }

    /// As [`Self::new`]. What is wrong with the objects and yet no error is told on standard error.
    pub fn told(objects: Vec<Resource>) -> Outcome<Self> {
        let cluster = Self::new(objects)?;
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
    pub fn new(mut objects: Vec<Resource>) -> Outcome<Self> {
        objects.iter_mut().for_each(Resource::set_defaults);
        complete(&mut objects);
        let known: Resources = objects.into_iter().collect();
        let mut around = Around::default();
        known.iter().for_each(|object| around.take(object));
        // What was converted would be converted again; slices are what rules ask for, and services.
        let wanted = |object: &&Arc<Resource>| {
            !matches!(&***object, Resource::Kubernetes(_))
                || matches!(object.kind(), Kind::EndpointSlice | Kind::Service)
        };
        let resources = known.iter().filter(wanted).cloned().collect();
        Self::of(resources, Arc::new(around), known.problems())
    }

    /// What every node that has endpoints needs of the resources.
    fn of(resources: Vec<Arc<Resource>>, around: Arc<Around>, mut problems: Vec<String>) -> Outcome<Self> {
        let mut known = Resources::default();
        resources.iter().for_each(|resource| known.insert(resource.clone()));
        let endpoints: Vec<WorkloadEndpoint> = known.all().cloned().collect();
        let protected = known.all::<HostEndpoint>().map(|host| &host.spec.node);
        let names: BTreeSet<&String> =
            endpoints.iter().map(|endpoint| &endpoint.spec.node).chain(protected).collect();
        let mut nodes = BTreeMap::new();
        for name in names {
            let own = around.own.get(name).map(Vec::as_slice).unwrap_or_default();
            let (node, wrong) = Node::new(&known, name, own)?;
            problems.extend(wrong);
            nodes.insert(name.clone(), node);
        }
        let mut seen = BTreeSet::new();
        problems.retain(|problem| seen.insert(problem.clone()));
        Ok(Self { resources, endpoints, nodes, around, problems, opens_hosts: false })
    }

    /// What is wrong with the objects, and what was done about it. A sentence each.
    pub fn problems(&self) -> &[String] {
        &self.problems
    }

    /// How many endpoints only this one has, and how many only the other.
    pub fn only_in_one(&self, other: &Self) -> (usize, usize) {
        let keys = |cluster: &Self| -> BTreeSet<(String, String)> {
            let own = cluster.endpoints.iter().map(|endpoint| &endpoint.metadata);
            own.map(|metadata| (metadata.namespace.clone(), metadata.name.clone())).collect()
        };
        let (here, there) = (keys(self), keys(other));
        (here.difference(&there).count(), there.difference(&here).count())
    }

    /// What applies to an endpoint, as its node's dataplane would say.
    pub fn show(&self, request: &api::GetEndpointPolicyRequest) -> Outcome<api::EndpointPolicy> {
        let end = End::named(self, "endpoint", &request.endpoint).map_err(|wrong| {
            let code = if wrong.missing { Code::NotFound } else { Code::Usage };
            Failure::new(code, "cannot show the policy", wrong.to_string(), "name an endpoint of the files")
        })?;
        let (node, endpoint) = match (end.endpoint, end.protected) {
            (Some(endpoint), _) => (self.node_of(endpoint), end.name()),
            (None, Some(host)) => (&self.nodes[&host.spec.node], host.metadata.name.clone()),
            (None, None) => {
                let cause = format!("{} is no endpoint", request.endpoint);
                return Err(Failure::new(
                    Code::NotFound,
                    "cannot show the policy",
                    cause,
                    "name an endpoint of the files",
                ));
            }
        };
        node.show(&api::GetEndpointPolicyRequest { endpoint, ..request.clone() })
    }

    /// What the agent of a node would send its dataplane, of all that judges packets.
    pub fn transaction(&self, node: &str) -> Vec<api::Change> {
        let mut known = Resources::default();
        self.resources.iter().for_each(|resource| known.insert(resource.clone()));
        node::changes(&calc::policy(&known, node))
    }

    fn host_endpoints(&self) -> impl Iterator<Item = &HostEndpoint> {
        self.resources.iter().filter_map(|resource| match &**resource {
            Resource::HostEndpoint(host) => Some(host),
            _ => None,
        })
    }

    /// The node of this name, if it has policy.
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.get(name)
    }

    /// The node that has the endpoint.
    pub fn node_of(&self, endpoint: &WorkloadEndpoint) -> &Node {
        &self.nodes[&endpoint.spec.node]
    }

    /// Judges the packet of a line.
    pub fn answer(&self, line: &[u8]) -> Result<Answer, Unanswered> {
        let packet = Packet::read(line, self)?;
        let mut answer = self.judge(&packet).map_err(Unanswered::Broken)?;
        answer.complete(&packet);
        Ok(answer)
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
        let host = self.judge_as_hosts(packet)?;
        let allowed = [&egress, &ingress].into_iter().flatten().all(Judgement::allows)
            && host.iter().all(|stage| stage.judgement.allows());
        let closed = |endpoint| self.node_of(endpoint).is_closed();
        let to_own_host = own(&packet.to, &packet.from);
        let dropped = to_own_host && packet.from.endpoint.is_some_and(closed);
        let note = match (from_own_host, to_own_host && allowed) {
            (true, _) => Some("what a host sends to its own workloads is not policed"),
            (_, true) if dropped => {
                Some("what a workload sends to its own host is dropped: the endpoint-to-host action is Drop")
            }
            (_, true) if self.opens_hosts => Some(
                "what a workload sends to its own host is taken for accepted, as Kubernetes has it: \
                 no FelixConfiguration of the files sets defaultEndpointToHostAction",
            ),
            _ => None,
        };
        let verdict = if allowed && !dropped { "allow" } else { "deny" };
        Ok(Answer { verdict, egress, ingress, host, note })
    }

    /// What the host endpoints say of the node that the packet comes from, and of the one it goes to.
    fn judge_as_hosts(&self, packet: &Packet<'_>) -> Outcome<Vec<HostJudgement>> {
        let mut said: Vec<HostJudgement> = Vec::new();
        for (name, node) in self.passed(packet.from.node(), packet.to.node()) {
            let local = |end: &End<'_>| match end.endpoint {
                _ if end.node() != Some(name) => None,
                Some(endpoint) => node.end(endpoint),
                None => Some(control::End::Host),
            };
            let before = packet.asked.as_ref().map(|asked| {
                let of = self.around.hosts.get(&IpAddr::from(asked.key.dst));
                let meant =
                    if of.is_some_and(|of| of == name) { control::End::Host } else { control::End::Nowhere };
                (asked, meant)
            });
            said.extend(node.judge_as_host([&packet.from, &packet.to].map(local), &packet.query, before)?);
            if said.iter().any(|stage| !stage.judgement.allows()) {
                break;
            }
        }
        Ok(said)
    }

    /// The nodes that a packet passes, of those that have policy.
    fn passed<'a>(
        &'a self,
        from: Option<&str>,
        to: Option<&str>,
    ) -> impl Iterator<Item = (&'a str, &'a Node)> {
        let names = from.into_iter().chain(to.filter(|to| from != Some(*to)));
        let known = names.filter_map(|name| self.nodes.get_key_value(name));
        known.map(|(name, node)| (name.as_str(), node)).collect::<Vec<_>>().into_iter()
    }
}

impl Answer {
    /// Says for a host what its host endpoint does: the stage that decided last.
    fn complete(&mut self, packet: &Packet<'_>) {
        let decided = |host: &[HostJudgement], direction: Direction| {
            let own = |stage: &&HostJudgement| {
                stage.judgement.decides() && stage.direction == direction.to_string()
            };
            host.iter().rev().find(own).map(|stage| stage.judgement.clone())
        };
        if packet.from.host.is_some() {
            self.egress = self.egress.take().or_else(|| decided(&self.host, Direction::Egress));
        }
        if packet.to.host.is_some() {
            self.ingress = self.ingress.take().or_else(|| decided(&self.host, Direction::Ingress));
        }
    }
}

impl Around {
    fn take(&mut self, object: &Resource) {
        match object {
            Resource::Node(node) => {
                node.addresses().for_each(|address| self.own(address.addr, &node.metadata.name));
            }
            Resource::HostEndpoint(host) => {
                let expected = host.spec.expected_ips.iter();
                self.hosts.extend(expected.map(|address| (*address, host.spec.node.clone())));
            }
            Resource::Kubernetes(object) => match object.typed() {
                Typed::Pod(pod) => self.pod(pod),
                Typed::Service(service) => {
                    let name = format!("{}/{}", service.metadata.namespace, service.metadata.name);
                    self.services.extend(service.addresses().map(|addr| (addr, name.clone())));
                }
                _ => {}
            },
            _ => {}
        }
    }

    fn own(&mut self, address: IpAddr, node: &str) {
        self.hosts.insert(address, node.to_owned());
        let own = self.own.entry(node.to_owned()).or_default();
        if !own.contains(&address) {
            own.push(address);
        }
    }

    fn pod(&mut self, pod: &Pod) {
        let addresses = pod.addresses();
        if !pod.spec.host_network && !addresses.is_empty() {
            return;
        }
        addresses.iter().for_each(|address| self.own(*address, &pod.spec.node_name));
        self.other_pods.insert((pod.metadata.namespace.clone(), pod.metadata.name.clone()), addresses);
    }
}

/// Whether it had to be assumed that workloads may speak to their hosts: pods in the networks of their hosts are to be reached by the pods beside them, so where there are such and the
/// files say nothing of it, `defaultEndpointToHostAction` is what Calico's manifests for Kubernetes make it.
pub fn open_hosts(objects: &mut Vec<Resource>) -> bool {
    let in_host = |object: &Resource| match object {
        Resource::Kubernetes(object) => matches!(object.typed(), Typed::Pod(pod) if pod.spec.host_network),
        _ => false,
    };
    let says = |object: &Resource| match object {
        Resource::FelixConfiguration(felix) => felix.spec.default_endpoint_to_host_action.is_some(),
        _ => false,
    };
    if !objects.iter().any(in_host) || objects.iter().any(says) {
        return false;
    }
    let cluster_wide = objects.iter_mut().find_map(|object| match object {
        Resource::FelixConfiguration(felix) if felix.metadata.name == "default" => Some(felix),
        _ => None,
    });
    match cluster_wide {
        Some(felix) => felix.spec.default_endpoint_to_host_action = Some(EndpointToHostAction::Accept),
        None => {
            let mut felix = FelixConfiguration::default();
            "default".clone_into(&mut felix.metadata.name);
            felix.spec.default_endpoint_to_host_action = Some(EndpointToHostAction::Accept);
            objects.push(felix.into());
        }
    }
    true
}

/// What files leave out and every cluster has: the namespaces of what is in them, and nodes for pods.
fn complete(objects: &mut Vec<Resource>) {
    let namespace = |object: &Resource| object.kind() == Kind::Namespace;
    let written: BTreeSet<String> =
        objects.iter().filter(|one| namespace(one)).map(|one| one.name().to_owned()).collect();
    let mut mentioned = BTreeSet::new();
    for object in objects.iter_mut() {
        let Resource::Kubernetes(object) = object else { continue };
        object.schedule(UNSCHEDULED);
        let namespace = &object.metadata().namespace;
        if !namespace.is_empty() && !written.contains(namespace) {
            mentioned.insert(namespace.clone());
        }
    }
    objects.extend(mentioned.iter().map(|name| kubernetes::Object::namespace(name).into()));
}
