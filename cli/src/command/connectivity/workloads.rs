//! The test's own workloads: namespaces with a link each, endpoints of the node's agent, and policy between them.
//!
//! A namespace has no name: it goes with this process, however that ends, and takes the links along. What is in the
//! store is taken away at the end, or else by the next test on the node.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixListener},
    },
};

use margay_api::{
    control::v1::{
        ApplyRequest, CniAddRequest, CniAttachment, CniGcRequest, CniStatusRequest, DeleteRequest,
        GetStatusRequest, cni_status_response::State, control_client::ControlClient,
    },
    link::host_interface,
};
use margay_cni::{
    attachment::{Attachment, GATEWAY_V4, GATEWAY_V6, furnish, links_to},
    error::Error,
    kernel::{Kernel, Prefix, has_ipv6},
    netns::Netns,
};
use serde_json::{Value, json};
use tonic::{Code as Status, transport::Channel};

use super::{
    ATTEMPT,
    speech::{Answering, allow_echoes, answer},
};
use crate::{
    args::Global,
    client,
    exit::{Code, Failure, Outcome},
};

/// Of all that is made, as CNI's networks and Kubernetes' namespaces are called.
const NAME: &str = "margay-connectivity";

/// Whose workloads they are: another node may test at the same time.
const LABEL: &str = "margay.io/connectivity-test";

/// Where somebody answers, and policy lets the client speak to.
pub const OPEN: u16 = 8080;

/// Where somebody answers, and policy lets nobody speak to.
pub const CLOSED: u16 = 8081;

/// Who is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Client,
    Server,
    /// Whom policy lets speak to nobody.
    Stranger,
}

impl Role {
    const ALL: [Self; 3] = [Self::Client, Self::Server, Self::Stranger];

    /// As its endpoint is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
            Self::Stranger => "stranger",
        }
    }
}

/// One of them.
pub struct Workload {
    pub netns: Netns,
    /// IPv4, and IPv6 where the machine has it.
    pub addresses: Vec<IpAddr>,
}

/// The place where they are made.
pub struct Workloads {
    /// The node's name.
    pub node: String,
    /// That policy is in force by.
    pub generation: u64,
    made: Vec<Workload>,
    agent: ControlClient<Channel>,
    host: Kernel,
    /// The server's.
    answering: Option<Answering>,
    /// One test at a time on a node: the name is of its network namespace, and free when this process ends.
    _only: UnixListener,
}

impl Workloads {
    /// A place without any yet, and without those that a killed test left.
    pub async fn prepare(global: &Global) -> Outcome<Self> {
        let only = SocketAddr::from_abstract_name(NAME).and_then(|name| UnixListener::bind_addr(&name));
        let only = only.map_err(|error| {
            let next = "wait for the other test to end, or name endpoints: --from, --to, --proto";
            failed(format!("another test may be under way on this node: {error}"), next)
        })?;
        let mut agent = client::agent(global).await?;
        let status = agent.get_status(GetStatusRequest {});
        let status = client::answer(global.timeout, "ask which node this is", status).await?.into_inner();
        let ready = agent.cni_status(CniStatusRequest::default());
        let ready =
            client::answer(global.timeout, "ask whether workloads can be added", ready).await?.into_inner();
        if ready.state() != State::Ready {
            return Err(failed(ready.reason, "see `margayctl status`"));
        }
        let host = Kernel::here().map_err(broken)?;
        let mut workloads = Self {
            node: status.node,
            generation: 0,
            made: vec![],
            agent,
            host,
            answering: None,
            _only: only,
        };
        workloads.clear(global).await?;
        Ok(workloads)
    }

    /// Makes them all. Returns when policy is in force on each.
    pub async fn make(&mut self, global: &Global) -> Outcome<()> {
        let request = ApplyRequest {
            objects: objects(&self.node).iter().map(Value::to_string).collect(),
            ..ApplyRequest::default()
        };
        let applied = self.agent.apply(request);
        client::answer(global.timeout, "apply the test's policies", applied).await?;
        for role in Role::ALL {
            let workload = self.add(global, role).await?;
            self.made.push(workload);
        }
        let server = self.of(Role::Server);
        let answering = answer(&server.netns, &server.addresses, &[OPEN, CLOSED]);
        self.answering =
            Some(answering.map_err(|error| failed(error.to_string(), "check the limits of this process"))?);
        Ok(())
    }

    /// One of those that were made.
    pub fn of(&self, role: Role) -> &Workload {
        &self.made[role as usize]
    }

    async fn add(&mut self, global: &Global, role: Role) -> Outcome<Workload> {
        let attachment = attachment(role);
        let netns = Netns::anonymous().map_err(broken)?;
        let link = attachment.make(&self.host, &netns, 0, None, false).await.map_err(broken)?;
        let addresses = addresses(&self.node, role);
        let request = CniAddRequest {
            attachment: Some(attachment.id.clone()),
            pod_namespace: NAME.to_owned(),
            pod_name: role.name().to_owned(),
            host_interface: attachment.host_interface.clone(),
            mac: link.mac.clone(),
            addresses: addresses.iter().map(IpAddr::to_string).collect(),
            labels: [(LABEL, self.node.as_str()), ("role", role.name())]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
            ..CniAddRequest::default()
        };
        let added = self.agent.cni_add(request);
        let what = format!("add the workload {}", role.name());
        let added = client::answer(global.timeout, &what, added).await.map_err(|failure| {
            failure
                .advise("run this where the dataplane runs, in its network namespace; see `margayctl status`")
        })?;
        self.generation = added.into_inner().adopted_generation;
        let routes: Vec<(Prefix, IpAddr)> = addresses
            .iter()
            .map(|addr| match addr {
                IpAddr::V4(_) => ((Ipv4Addr::UNSPECIFIED.into(), 0), GATEWAY_V4),
                IpAddr::V6(_) => ((Ipv6Addr::UNSPECIFIED.into(), 0), GATEWAY_V6),
            })
            .collect();
        furnish(&netns, &link, &addresses, &routes).await.map_err(broken)?;
        allow_echoes(&netns).map_err(|error| failed(error.to_string(), "run it as root of the machine"))?;
        Ok(Workload { netns, addresses })
    }

    /// Takes away all there is: endpoints first, so that nobody misses their links.
    pub async fn clear(&mut self, global: &Global) -> Outcome<()> {
        self.answering = None;
        let mut failures = vec![];
        let gone = self.agent.cni_gc(CniGcRequest { network: NAME.to_owned(), valid: vec![] });
        failures.extend(client::answer(global.timeout, "remove the test's endpoints", gone).await.err());
        let links = links_to(NAME, &self.host).await;
        for (link, _) in links.map_err(broken)? {
            failures.extend(self.host.remove(link.index).await.err().map(broken));
        }
        self.made.clear();
        for object in objects(&self.node) {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let request = DeleteRequest {
                kind: text(&object["kind"]),
                namespace: text(&object["metadata"]["namespace"]),
                name: text(&object["metadata"]["name"]),
                ..DeleteRequest::default()
            };
            let deleted = async {
                match self.agent.delete(request).await {
                    Err(status) if status.code() == Status::NotFound => Ok(()),
                    other => other.map(drop),
                }
            };
            failures
                .extend(client::answer(global.timeout, "delete the test's policies", deleted).await.err());
        }
        match failures.into_iter().next() {
            None => Ok(()),
            Some(failure) => Err(failure.advise("the next test removes what this one has left: try again")),
        }
    }
}

fn attachment(role: Role) -> Attachment {
    let id = CniAttachment {
        network: NAME.to_owned(),
        container_id: role.name().to_owned(),
        interface: "eth0".to_owned(),
    };
    Attachment { host_interface: host_interface(&format!("{NAME}.{}", role.name())), id }
}

/// Of nobody else: of the ranges for tests of networks (RFC 2544, RFC 5180), others on each node.
fn addresses(node: &str, role: Role) -> Vec<IpAddr> {
    let mut hasher = DefaultHasher::new();
    node.hash(&mut hasher);
    // Four addresses each of 198.18.0.0/15.
    let slot = (hasher.finish() % (1 << 15)) as u32;
    let host = role as u32;
    let v4 = Ipv4Addr::from_bits(Ipv4Addr::new(198, 18, 0, 0).to_bits() + slot * 4 + host + 1);
    let v6 = Ipv6Addr::new(0x2001, 2, 0, slot as u16, 0, 0, 0, host as u16 + 1);
    let mut addresses = vec![IpAddr::from(v4)];
    addresses.extend(has_ipv6().then_some(IpAddr::from(v6)));
    addresses
}

/// The client may speak to the server's open port and ask it for echoes; nobody may do anything else with it. The
/// profile is that of the namespace, which every pod's endpoint names: other nodes may have it stored, too.
fn objects(node: &str) -> [Value; 3] {
    let policy = |name: &str, spec: Value| {
        // A dot would make a tier of what is before it.
        let name = format!("{name}-{}", node.replace('.', "-"));
        json!({
            "apiVersion": "projectcalico.org/v3",
            "kind": "NetworkPolicy",
            "metadata": {"name": name, "namespace": NAME},
            "spec": spec,
        })
    };
    let all = format!("{LABEL} == '{node}'");
    let allow = |protocol: &str, more: Value| {
        let mut rule =
            json!({"action": "Allow", "protocol": protocol, "source": {"selector": "role == 'client'"}});
        if let (Some(rule), Value::Object(more)) = (rule.as_object_mut(), more) {
            rule.extend(more);
        }
        rule
    };
    let open = json!({"destination": {"ports": [OPEN]}});
    [
        json!({
            "apiVersion": "projectcalico.org/v3",
            "kind": "Profile",
            "metadata": {"name": format!("kns.{NAME}")},
            "spec": {},
        }),
        policy(
            "egress",
            json!({"order": 0, "selector": all, "types": ["Egress"], "egress": [{"action": "Allow"}]}),
        ),
        policy(
            "server",
            json!({
                "order": 0,
                "selector": format!("{all} && role == 'server'"),
                "types": ["Ingress"],
                "ingress": [
                    allow("TCP", open.clone()),
                    allow("UDP", open),
                    allow("ICMP", json!({"icmp": {"type": 8}})),
                    allow("ICMPv6", json!({"icmp": {"type": 128}})),
                ],
            }),
        ),
    ]
}

fn failed(cause: impl Into<String>, next: &str) -> Failure {
    Failure::new(Code::Failed, format!("cannot {ATTEMPT}"), cause, next)
}

/// What the kernel would not.
fn broken(error: Error) -> Failure {
    failed(error.message, "run it as root of the machine, in the dataplane's network namespace")
}

#[cfg(test)]
mod tests {
    use super::*;
    use margay_agent::model::Resource;

    #[test]
    fn objects_are_as_the_agent_takes_them_whatever_the_node_is_called() {
        for node in ["node-a", "ip-10-0-0-1.eu.example"] {
            for object in objects(node) {
                let read = Resource::from_json(&object.to_string()).unwrap().admit();
                assert!(read.is_ok(), "{object}: {:?}", read.err());
            }
        }
    }

    #[test]
    fn each_has_addresses_of_its_own_in_the_ranges_for_tests() {
        for node in ["node-a", "node-b", ""] {
            let all: Vec<IpAddr> = Role::ALL.iter().flat_map(|role| addresses(node, *role)).collect();
            let distinct: std::collections::BTreeSet<_> = all.iter().collect();
            assert_eq!(distinct.len(), all.len());
            for addr in all {
                match addr {
                    IpAddr::V4(addr) => {
                        assert!(addr.octets()[0] == 198 && addr.octets()[1] & !1 == 18, "{addr}")
                    }
                    IpAddr::V6(addr) => assert_eq!(addr.segments()[..3], [0x2001, 2, 0]),
                }
            }
        }
        assert_ne!(addresses("node-a", Role::Client), addresses("node-b", Role::Client));
    }
}
