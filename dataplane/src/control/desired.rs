//! What the agent asked for: parsed objects by their identity, changed a transaction at a time.

use super::convert::{self, FieldError};
use super::host_endpoint::{Failsafe, HostEndpoint};
use super::route::{self, Target};
use super::services::{self, ServiceId, ServiceSettings};
use super::set_names::SetNames;
use super::tracking;
use super::tunnels::{OverlaySettings, TunnelNode};
use super::wireguard::WireguardPeer;
use super::written::{Policy, Profile, Written};
use crate::conntrack::Tracking;
use crate::conntrack::nat::{Mapping, MasqueradeSettings};
use crate::fib::Quota;
use crate::net::{Addr, Mac, PortRange, Prefix, SharedMap};
use crate::policy::{Direction, IpSet, PolicyId, SetMembers, TierDefault};
use crate::service::Definition;
use crate::snapshot::{EndpointToHost, Established};
use margay_api::dataplane::v1::{self as pb, change::Change};
use std::sync::Arc;

const NO_MEMBERS: pb::Members = pb::Members { ipv4: vec![], ipv6: vec![] };

/// An object that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectError {
    /// As in `policy default/web`.
    pub object: String,
    /// What is wrong with it.
    pub error: FieldError,
}

impl From<ObjectError> for pb::ObjectError {
    fn from(error: ObjectError) -> Self {
        Self { object: error.object, field: error.error.field, message: error.error.message }
    }
}

/// A workload's identity.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointId {
    /// As in `k8s`.
    pub orchestrator: String,
    /// As in `default/web-0`.
    pub workload: String,
    /// As in `eth0`.
    pub endpoint: String,
}

impl From<pb::WorkloadEndpointId> for EndpointId {
    fn from(id: pb::WorkloadEndpointId) -> Self {
        Self { orchestrator: id.orchestrator, workload: id.workload, endpoint: id.endpoint }
    }
}

impl From<EndpointId> for pb::WorkloadEndpointId {
    fn from(id: EndpointId) -> Self {
        Self { orchestrator: id.orchestrator, workload: id.workload, endpoint: id.endpoint }
    }
}

/// A workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its identity.
    pub id: EndpointId,
    /// For people.
    pub name: Arc<str>,
    /// The host side of its link.
    pub interface: Arc<str>,
    /// Switched on.
    pub active: bool,
    /// Its station, where it is known beforehand.
    pub mac: Option<Mac>,
    /// Its addresses.
    pub nets: Vec<Prefix>,
    /// Addresses it may send from besides.
    pub spoofable: Vec<Prefix>,
    /// The tiers that apply to it, in order.
    pub tiers: Vec<Tier>,
    /// What `tiers` would be with every staged policy in force; empty: what they are.
    pub staged_tiers: Vec<Tier>,
    /// Its profiles, in order.
    pub profiles: Vec<Arc<str>>,
    /// What others may open to it.
    pub ingress: Quota,
    /// What it may open.
    pub egress: Quota,
}

/// The policies of a tier that select an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tier {
    /// Its name.
    pub name: Arc<str>,
    /// For what no policy decided.
    pub default: TierDefault,
    /// In order.
    pub ingress: Vec<PolicyId>,
    /// In order.
    pub egress: Vec<PolicyId>,
}

impl Tier {
    /// The policies of one direction.
    pub fn of(&self, direction: Direction) -> &[PolicyId] {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }
}

/// Everything that was asked for. A clone is cheap, and shares what does not change.
#[derive(Clone, Debug, Default)]
pub struct Desired {
    /// By name.
    pub ip_sets: SharedMap<Arc<str>, Arc<IpSet>>,
    /// Those in force.
    pub policies: SharedMap<PolicyId, Arc<Policy>>,
    /// Those that are only reported on.
    pub staged: SharedMap<PolicyId, Arc<Policy>>,
    /// By name.
    pub profiles: SharedMap<Arc<str>, Arc<Profile>>,
    /// Workloads of this node.
    pub endpoints: SharedMap<EndpointId, Arc<Endpoint>>,
    /// By destination.
    pub routes: SharedMap<Prefix, Target>,
    /// What a policy change means for live flows.
    pub established: Established,
    /// How packets are held against live flows.
    pub tracking: Tracking,
    /// What becomes of packets from workloads to their own host.
    pub endpoint_to_host: EndpointToHost,
    /// By name.
    pub host_endpoints: SharedMap<Arc<str>, Arc<HostEndpoint>>,
    /// Ports that host endpoints leave open.
    pub failsafe: Arc<Failsafe>,
    /// Pools that workloads may have addresses of, and whether what leaves them is translated.
    pub pools: SharedMap<Prefix, bool>,
    /// How it is.
    pub masquerade: MasqueradeSettings,
    /// Addresses of the cluster's nodes, by name: IPv4, IPv6.
    pub hosts: SharedMap<Arc<str>, [Option<Addr>; 2]>,
    /// Services of the cluster.
    pub services: SharedMap<ServiceId, Arc<Definition>>,
    /// What holds for all of them.
    pub service_settings: ServiceSettings,
    /// This end of tunnels.
    pub overlay: OverlaySettings,
    /// Their other ends, by node.
    pub far_ends: SharedMap<Arc<str>, Arc<TunnelNode>>,
    /// The other ends of encrypted ones, by node.
    pub wireguard_peers: SharedMap<Arc<str>, Arc<WireguardPeer>>,
}

impl Desired {
    /// Applies one change. Nothing is changed when it is refused.
    pub fn apply(&mut self, change: &Change, sets: &mut SetNames) -> Result<(), ObjectError> {
        let refused = |error| ObjectError { object: describe(change), error };
        self.apply_parsed(change, sets).map_err(refused)
    }

    fn apply_parsed(&mut self, change: &Change, sets: &mut SetNames) -> Result<(), FieldError> {
        match change {
            Change::IpSet(set) => {
                let kind = set.r#type();
                if set.id.is_empty() {
                    return Err(FieldError::new("id", "missing"));
                }
                let members = convert::members(kind, set.members.as_ref().unwrap_or(&NO_MEMBERS))?;
                let name: Arc<str> = set.id.as_str().into();
                self.ip_sets.insert(name.clone(), Arc::new(IpSet { name, members }));
            }
            Change::IpSetDelta(delta) => self.apply_delta(delta)?,
            Change::IpSetRemove(id) => drop(self.ip_sets.remove(id.as_str())),
            Change::Policy(policy) => self.apply_policy(policy, sets)?,
            Change::PolicyRemove(id) => {
                let id = convert::policy_id(Some(id))?;
                self.policies.remove(&id);
                self.staged.remove(&id);
            }
            Change::Profile(profile) => {
                if profile.name.is_empty() {
                    return Err(FieldError::new("name", "missing"));
                }
                let mut id = |name: &str| sets.id(name);
                let name: Arc<str> = profile.name.as_str().into();
                let before = self.profiles.get(&name);
                let [to, from] = [before.map(|p| &p.inbound), before.map(|p| &p.outbound)];
                let inbound = Written::parse("inbound_rules", &profile.inbound_rules, to, &mut id)?;
                let outbound = Written::parse("outbound_rules", &profile.outbound_rules, from, &mut id)?;
                let profile = Profile { name: name.clone(), inbound, outbound };
                keep_equal(&mut self.profiles, name, profile);
            }
            Change::ProfileRemove(name) => drop(self.profiles.remove(name.as_str())),
            Change::WorkloadEndpoint(endpoint) => {
                let endpoint = endpoint_of(endpoint.clone())?;
                keep_equal(&mut self.endpoints, endpoint.id.clone(), endpoint);
            }
            Change::WorkloadEndpointRemove(id) => drop(self.endpoints.remove(&id.clone().into())),
            Change::Route(route) => {
                let (destination, target) = route::parse(route.clone())?;
                self.routes.insert(destination, target);
            }
            Change::RouteRemove(destination) => {
                let destination = convert::prefix(destination).map_err(|e| e.within("destination"))?;
                self.routes.remove(&destination);
            }
            Change::Config(config) => {
                let failsafe = Failsafe::parse(config)?;
                let masquerade = masquerade_of(config)?;
                let service_settings = ServiceSettings::parse(config)?;
                let tracking = tracking::parse(config)?;
                let overlay = OverlaySettings::parse(config)?;
                self.endpoint_to_host = match config.endpoint_to_host_action() {
                    pb::Action::Allow => EndpointToHost::Accept,
                    pb::Action::Pass => EndpointToHost::Return,
                    pb::Action::Deny | pb::Action::Unspecified => EndpointToHost::Drop,
                    other @ pb::Action::Log => {
                        let message = format!("{} is none of ALLOW, DENY and PASS", other.as_str_name());
                        return Err(FieldError::new("endpoint_to_host_action", message));
                    }
                };
                self.established = match config.established() {
                    pb::node_config::Established::Keep => Established::Keep,
                    pb::node_config::Established::Recheck => Established::Recheck,
                };
                self.failsafe = Arc::new(failsafe);
                self.masquerade = masquerade;
                self.service_settings = service_settings;
                self.tracking = tracking;
                self.overlay = overlay;
            }
            Change::IpPool(pool) => {
                let cidr = pool.cidr.as_ref().ok_or_else(|| FieldError::new("cidr", "missing"))?;
                let cidr = convert::prefix(cidr).map_err(|e| e.within("cidr"))?;
                // Nobody leaves from an address that only services have, and what goes there is a service.
                if pool.allowed_uses.iter().all(|of| of == "LoadBalancer") && !pool.allowed_uses.is_empty() {
                    self.pools.remove(&cidr);
                } else {
                    self.pools.insert(cidr, pool.masquerade);
                }
            }
            Change::IpPoolRemove(cidr) => {
                let cidr = convert::prefix(cidr).map_err(|e| e.within("cidr"))?;
                self.pools.remove(&cidr);
            }
            Change::Host(host) => {
                let address = |field: &str, prefix: &Option<pb::Prefix>| {
                    let address = prefix.as_ref().filter(|prefix| !prefix.address.is_empty());
                    address.map(|prefix| convert::addr(field, &prefix.address)).transpose()
                };
                let addresses = [address("ipv4", &host.ipv4)?, address("ipv6", &host.ipv6)?];
                self.hosts.insert(host.hostname.as_str().into(), addresses);
            }
            Change::HostRemove(name) => drop(self.hosts.remove(name.as_str())),
            Change::HostEndpoint(endpoint) => {
                let endpoint = HostEndpoint::parse(endpoint.clone())?;
                keep_equal(&mut self.host_endpoints, endpoint.id.clone(), endpoint);
            }
            Change::HostEndpointRemove(id) => drop(self.host_endpoints.remove(id.as_str())),
            Change::TunnelEndpoint(endpoint) => {
                let (name, node) = TunnelNode::parse(endpoint)?;
                keep_equal(&mut self.far_ends, name, node);
            }
            Change::TunnelEndpointRemove(node) => drop(self.far_ends.remove(node.as_str())),
            Change::Service(service) => {
                let (id, definition) = services::definition(service)?;
                keep_equal(&mut self.services, id, definition);
            }
            Change::ServiceRemove(id) => drop(self.services.remove(&services::id(Some(id))?)),
            Change::WireguardPeer(peer) => {
                let (name, peer) = WireguardPeer::parse(peer)?;
                keep_equal(&mut self.wireguard_peers, name, peer);
            }
            Change::WireguardPeerRemove(node) => drop(self.wireguard_peers.remove(node.as_str())),
        }
        Ok(())
    }

    fn apply_policy(&mut self, policy: &pb::Policy, sets: &mut SetNames) -> Result<(), FieldError> {
        let id = convert::policy_id(policy.id.as_ref())?;
        let mut set = |name: &str| sets.id(name);
        let before = self.policies.get(&id).or_else(|| self.staged.get(&id));
        let [to, from] = [before.map(|p| &p.inbound), before.map(|p| &p.outbound)];
        let inbound = Written::parse("inbound_rules", &policy.inbound_rules, to, &mut set)?;
        let outbound = Written::parse("outbound_rules", &policy.outbound_rules, from, &mut set)?;
        let (of, other) = match policy.staged {
            false => (&mut self.policies, &mut self.staged),
            true => (&mut self.staged, &mut self.policies),
        };
        other.remove(&id);
        let policy = Policy { id: id.clone(), tier: policy.tier.as_str().into(), inbound, outbound };
        keep_equal(of, id, policy);
        Ok(())
    }

    fn apply_delta(&mut self, delta: &pb::IpSetDelta) -> Result<(), FieldError> {
        let set = self.ip_sets.get(delta.id.as_str());
        let set =
            set.ok_or_else(|| FieldError::new("id", "no such set; send it whole before its changes"))?;
        let kind = match set.members {
            SetMembers::Ip(_) => pb::ip_set::Type::Ip,
            SetMembers::Net(_) => pb::ip_set::Type::Net,
            SetMembers::IpPort(_) => pb::ip_set::Type::IpAndPort,
        };
        let added = convert::members(kind, delta.added.as_ref().unwrap_or(&NO_MEMBERS))
            .map_err(|e| e.within("added"))?;
        let removed = convert::members(kind, delta.removed.as_ref().unwrap_or(&NO_MEMBERS))
            .map_err(|e| e.within("removed"))?;
        let members = match (&set.members, &removed, &added) {
            (SetMembers::Ip(old), SetMembers::Ip(gone), SetMembers::Ip(new)) => {
                SetMembers::Ip(old.updated(gone, new))
            }
            (SetMembers::Net(old), SetMembers::Net(gone), SetMembers::Net(new)) => {
                SetMembers::Net(old.updated(gone, new))
            }
            (SetMembers::IpPort(old), SetMembers::IpPort(gone), SetMembers::IpPort(new)) => {
                SetMembers::IpPort(old.updated(gone, new))
            }
            _ => unreachable!("all three were parsed as one type"),
        };
        if members.len() > convert::MAX_MEMBERS {
            let most = convert::MAX_MEMBERS;
            let why = format!("{} members with these; at most {most} fit one set", members.len());
            return Err(FieldError::new("added", why));
        }
        let name = set.name.clone();
        self.ip_sets.insert(name.clone(), Arc::new(IpSet { name, members }));
        Ok(())
    }

    /// Something leaves with an address of this host.
    pub fn masquerades(&self) -> bool {
        self.pools.values().any(|masquerade| *masquerade)
            || self.services.values().any(|service| service.is_for_outside())
    }

    /// The host's own packets come by way of us, whether host endpoints protect it or not: only connection tracking tells
    /// answers to what leaves with an address of this host from what is the host's; or they are to be sealed.
    pub fn leads_hosts(&self) -> bool {
        self.masquerades() || self.overlay.seals_hosts
    }

    /// Has what is as in `old` be the very same object, so that nothing need be made of it again.
    pub fn reuse(&mut self, old: &Self) {
        reuse(&mut self.ip_sets, &old.ip_sets);
        reuse(&mut self.policies, &old.policies);
        reuse(&mut self.staged, &old.staged);
        reuse(&mut self.profiles, &old.profiles);
        reuse(&mut self.endpoints, &old.endpoints);
        reuse(&mut self.host_endpoints, &old.host_endpoints);
        reuse(&mut self.services, &old.services);
        reuse(&mut self.far_ends, &old.far_ends);
        reuse(&mut self.wireguard_peers, &old.wireguard_peers);
    }
}

/// Sets an object, unless it is as it was.
fn keep_equal<K: Ord + Clone, T: PartialEq>(map: &mut SharedMap<K, Arc<T>>, key: K, object: T) {
    if map.get(&key).is_none_or(|old| **old != object) {
        map.insert(key, Arc::new(object));
    }
}

fn reuse<K: Ord + Clone, T: Eq>(map: &mut SharedMap<K, Arc<T>>, old: &SharedMap<K, Arc<T>>) {
    let same = |(key, old): (&K, &Arc<T>)| {
        let new = map.get(key)?;
        (!Arc::ptr_eq(new, old) && new == old).then(|| (key.clone(), Some(old.clone())))
    };
    let same: Vec<_> = old.iter().filter_map(same).collect();
    map.apply(&same);
}

fn endpoint_of(message: pb::WorkloadEndpoint) -> Result<Endpoint, FieldError> {
    let id: EndpointId = message.id.ok_or_else(|| FieldError::new("id", "missing"))?.into();
    let interface = interface_name("interface_name", &message.interface_name)?;
    if !message.nat.is_empty() {
        return Err(unsupported("nat", "nat"));
    }
    let qos = message.qos.unwrap_or_default();
    let display = if message.display_name.is_empty() { &id.workload } else { &message.display_name };
    Ok(Endpoint {
        name: display.as_str().into(),
        interface,
        active: message.active,
        mac: convert::mac("mac", &message.mac)?,
        nets: convert::prefixes("nets", &message.nets)?,
        spoofable: convert::prefixes("allow_spoofed_sources", &message.allow_spoofed_sources)?,
        tiers: tiers("tiers", &message.tiers)?,
        staged_tiers: tiers("staged_tiers", &message.staged_tiers)?,
        profiles: message.profile_ids.iter().map(|name| name.as_str().into()).collect(),
        ingress: quota("qos.ingress", qos.ingress.unwrap_or_default())?,
        egress: quota("qos.egress", qos.egress.unwrap_or_default())?,
        id,
    })
}

/// The limits of one direction. 0 is none, as in Calico.
fn quota(field: &str, limit: pb::qos_controls::Limit) -> Result<Quota, FieldError> {
    let pb::qos_controls::Limit { bandwidth, burst, peak_rate, min_burst, packet_rate, packet_burst, .. } =
        limit;
    for (name, value) in [
        ("bandwidth", bandwidth),
        ("burst", burst),
        ("peak_rate", peak_rate),
        ("min_burst", min_burst),
        ("packet_rate", packet_rate),
        ("packet_burst", packet_burst),
    ] {
        if value != 0 {
            return Err(unsupported(&format!("{field}.{name}"), name));
        }
    }
    let number = |name: &str, value: u64| {
        let most = u64::from(u32::MAX);
        let too_high = || FieldError::new(format!("{field}.{name}"), format!("{value} is above {most}"));
        (value != 0).then(|| u32::try_from(value).map_err(|_| too_high())).transpose()
    };
    Ok(Quota {
        flows: number("max_connections", limit.max_connections)?,
        rate: number("new_connections_per_second", limit.new_connections_per_second)?,
    })
}

fn masquerade_of(config: &pb::NodeConfig) -> Result<MasqueradeSettings, FieldError> {
    let mut settings = MasqueradeSettings::default();
    if !config.nat_outgoing_address.is_empty() {
        settings.address = Some(convert::addr("nat_outgoing_address", &config.nat_outgoing_address)?);
    }
    if let Some(range) = &config.nat_ports {
        let port = |port: u32| u16::try_from(port).ok().filter(|port| *port != 0);
        settings.ports = match (port(range.first), port(range.last)) {
            (Some(first), Some(last)) if first <= last => PortRange { first, last },
            _ => {
                let why = format!("{}-{} is no range of ports from 1 to 65535", range.first, range.last);
                return Err(FieldError::new("nat_ports", why));
            }
        };
    }
    settings.mapping = match config.nat_mapping() {
        pb::node_config::NatMapping::AddressAndPort => Mapping::AddressAndPort,
        pb::node_config::NatMapping::EndpointIndependent => Mapping::EndpointIndependent,
    };
    settings.excludes_hosts = config.nat_excludes_hosts;
    Ok(settings)
}

/// A name that an interface can have.
pub(super) fn interface_name(field: &str, name: &str) -> Result<Arc<str>, FieldError> {
    if name.is_empty() || name.len() > 15 || name.contains(['/', ' ']) {
        let why = format!("{name:?} is no interface name: 1 to 15 bytes, no slash, no space");
        return Err(FieldError::new(field, why));
    }
    Ok(name.into())
}

/// Tiers with the policies that select an endpoint.
pub(super) fn tiers(field: &str, tiers: &[pb::TierBinding]) -> Result<Vec<Tier>, FieldError> {
    let tier = |(at, tier): (usize, &pb::TierBinding)| {
        let ids = |list: &str, ids: &[pb::PolicyId]| {
            let each = ids.iter().enumerate();
            each.map(|(k, id)| {
                convert::policy_id(Some(id)).map_err(|e| e.within(format!("{field}[{at}].{list}[{k}]")))
            })
            .collect::<Result<Vec<_>, _>>()
        };
        Ok(Tier {
            name: tier.name.as_str().into(),
            default: match tier.default_action() {
                pb::Action::Pass => TierDefault::Pass,
                pb::Action::Deny => TierDefault::Deny,
                other => {
                    let why = format!("{} is neither DENY nor PASS", other.as_str_name());
                    return Err(FieldError::new(format!("{field}[{at}].default_action"), why));
                }
            },
            ingress: ids("ingress_policies", &tier.ingress_policies)?,
            egress: ids("egress_policies", &tier.egress_policies)?,
        })
    };
    tiers.iter().enumerate().map(tier).collect()
}

fn unsupported(field: &str, what: &str) -> FieldError {
    FieldError::new(field, format!("{what} is not supported by this version of the dataplane"))
}

/// What a change is about, for messages.
fn describe(change: &Change) -> String {
    let policy = |id: &pb::PolicyId| match id.namespace.as_str() {
        "" => format!("policy {}", id.name),
        namespace => format!("policy {namespace}/{}", id.name),
    };
    let cidr = |prefix: Option<&pb::Prefix>| match prefix.map(convert::prefix) {
        Some(Ok(prefix)) => prefix.to_string(),
        _ => "?".into(),
    };
    let workload = |id: &pb::WorkloadEndpointId| format!("workload endpoint {}/{}", id.workload, id.endpoint);
    match change {
        Change::IpSet(set) => format!("IP set {}", set.id),
        Change::IpSetDelta(delta) => format!("IP set {}", delta.id),
        Change::IpSetRemove(id) => format!("IP set {id}"),
        Change::Policy(p) => p.id.as_ref().map_or_else(|| "policy".into(), policy),
        Change::PolicyRemove(id) => policy(id),
        Change::Profile(pb::Profile { name, .. }) | Change::ProfileRemove(name) => format!("profile {name}"),
        Change::WorkloadEndpoint(e) => e.id.as_ref().map_or_else(|| "workload endpoint".into(), workload),
        Change::WorkloadEndpointRemove(id) => workload(id),
        Change::HostEndpoint(pb::HostEndpoint { id, .. }) | Change::HostEndpointRemove(id) => {
            format!("host endpoint {id}")
        }
        Change::Route(route) => format!("route {}", cidr(route.destination.as_ref())),
        Change::RouteRemove(destination) => format!("route {}", cidr(Some(destination))),
        Change::IpPool(pool) => format!("IP pool {}", cidr(pool.cidr.as_ref())),
        Change::IpPoolRemove(pool) => format!("IP pool {}", cidr(Some(pool))),
        Change::TunnelEndpoint(pb::TunnelEndpoint { node, .. }) | Change::TunnelEndpointRemove(node) => {
            format!("tunnel endpoint {node}")
        }
        Change::Service(service) => match &service.id {
            Some(id) => format!("service {}/{}", id.namespace, id.name),
            None => "service".into(),
        },
        Change::ServiceRemove(id) => format!("service {}/{}", id.namespace, id.name),
        Change::Host(pb::HostMetadata { hostname, .. }) | Change::HostRemove(hostname) => {
            format!("host {hostname}")
        }
        Change::Config(_) => "config".into(),
        Change::WireguardPeer(pb::WireguardPeer { node, .. }) | Change::WireguardPeerRemove(node) => {
            format!("WireGuard peer {node}")
        }
    }
}
