//! Host endpoints: which interfaces they protect, and the lists that judge there.

use super::{Purpose, Slot, State};
use crate::control::convert::FieldError;
use crate::control::desired::{Desired, EndpointId, ObjectError, Tier};
use crate::control::difference::Difference;
use crate::control::host_endpoint::{FailsafePort, HostEndpoint, On};
use crate::fib;
use crate::net::{Addr, IfId, PortRange, Prefix, SharedMap};
use crate::policy::{
    Action, Direction, EndpointIdx, ListedPolicy, Otherwise, PolicyId, Rule, RuleList, SetTable, TierDefault,
    TierList,
};
use crate::snapshot::Protection;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

/// A list of the policy table that is not a workload's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HostList {
    /// Failsafe ports.
    Failsafe,
    /// Answers from and to them.
    FailsafeReplies,
    /// A stage of the host endpoint of this name.
    Of(Arc<str>, Stage),
}

impl HostList {
    /// It sees a packet as it came, before a service's address became a backend's.
    pub fn is_before_translation(&self) -> bool {
        !matches!(self, Self::Of(_, Stage::Forward | Stage::Normal))
    }
}

/// When a host endpoint's list is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Before conntrack.
    Untracked,
    /// Before destination NAT.
    PreDnat,
    /// For what is forwarded.
    Forward,
    /// For traffic of the host itself.
    Normal,
}

impl Stage {
    const ALL: [Self; 4] = [Self::Untracked, Self::PreDnat, Self::Forward, Self::Normal];
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Untracked => "doNotTrack",
            Self::PreDnat => "preDNAT",
            Self::Forward => "applyOnForward",
            Self::Normal => "normal",
        })
    }
}

impl fmt::Display for HostList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failsafe => f.write_str("failsafe ports"),
            Self::FailsafeReplies => f.write_str("answers of failsafe ports"),
            Self::Of(id, _) => write!(f, "host endpoint {id}"),
        }
    }
}

impl State {
    /// Every address of this host, as the kernel has them.
    pub fn set_host_addresses(&mut self, addresses: impl IntoIterator<Item = Addr>) {
        let addresses: BTreeSet<Addr> = addresses.into_iter().collect();
        if self.host_addresses != addresses {
            self.host_addresses = addresses;
            // Snapshots have no use for them unless the host's traffic comes by way of us, or services.
            self.judges_anew |= !self.host_lists.is_empty() || !self.desired.services.is_empty();
        }
    }

    /// Addresses whose packets a protected uplink leaves to us, in order.
    pub fn host_addresses(&self) -> Vec<Addr> {
        let of_uplinks = self.slots.values().filter_map(|slot| slot.facts.as_ref());
        let of_uplinks = of_uplinks.flat_map(|facts| facts.addresses.iter().map(|(addr, _)| *addr));
        let own = of_uplinks.chain(self.host_addresses.iter().copied());
        let all: BTreeSet<Addr> = own.chain(self.desired.masquerade.address).collect();
        all.into_iter().collect()
    }

    /// The host endpoint that protects the uplink of this name.
    pub fn host_endpoint_on(&self, uplink: &str) -> Option<&HostEndpoint> {
        let slot = self.slots.get(&self.id(uplink)?)?;
        protector(&self.desired, slot).map(|endpoint| &**endpoint)
    }

    /// What a number of the policy table stands for, if it is not a workload's.
    pub fn host_list(&self, index: EndpointIdx) -> Option<&HostList> {
        self.host_lists.iter().find(|(_, of)| **of == index).map(|(list, _)| list)
    }

    /// The number of a list, if there is such a list.
    pub fn host_list_index(&self, list: &HostList) -> Option<EndpointIdx> {
        self.host_lists.get(list).copied()
    }

    /// The uplinks whose host traffic comes by way of us, by name: those that are protected, or all.
    pub(super) fn led_through(&self) -> Vec<Arc<str>> {
        let uplinks = self.slots.values().filter(|slot| match slot.purpose {
            Purpose::Uplink { vlan: None } if self.desired.leads_hosts() => true,
            Purpose::Uplink { .. } => protector(&self.desired, slot).is_some(),
            _ => false,
        });
        uplinks.map(|slot| slot.name.clone()).collect()
    }

    /// What workers need to know of the interface's host endpoint.
    pub(super) fn host_of(&self, slot: &Slot) -> Option<fib::HostEndpoint> {
        let endpoint = protector(&self.desired, slot)?;
        let number = |stage| {
            self.host_list_index(&HostList::Of(endpoint.id.clone(), stage)).map(|EndpointIdx(number)| number)
        };
        let some = |tiers: &[Tier], stage| if tiers.is_empty() { None } else { number(stage) };
        Some(fib::HostEndpoint {
            normal: number(Stage::Normal).unwrap_or(u32::MAX),
            untracked: some(&endpoint.untracked, Stage::Untracked),
            pre_dnat: some(&endpoint.pre_dnat, Stage::PreDnat),
            forward: some(&endpoint.forward, Stage::Forward),
        })
    }

    /// The other side of the interface, for the host's own traffic: an uplink's stack, a stack's
    /// uplink; of a tunnel that carries it, the stack of the uplink with the tunnel's address.
    pub(super) fn through(&self, slot: &Slot) -> Option<IfId> {
        match &slot.purpose {
            Purpose::Uplink { .. } => {
                let is_its = |(_, other): &(&IfId, &Slot)| match &other.purpose {
                    Purpose::Stack { uplink } => *uplink == slot.name && other.up,
                    _ => false,
                };
                self.slots.iter().find(is_its).map(|(id, _)| *id)
            }
            Purpose::Stack { uplink } => self.id(uplink),
            Purpose::Tunnel(kind) => self.through(self.host_side(*kind)?),
            Purpose::Workload(_) | Purpose::Host => None,
        }
    }

    /// Untracked policy judges what comes in by the interface.
    pub(super) fn has_untracked(&self, slot: &Slot) -> bool {
        let uplink = match &slot.purpose {
            Purpose::Uplink { .. } => Some(slot),
            Purpose::Stack { uplink } => self.id(uplink).and_then(|id| self.slots.get(&id)),
            Purpose::Workload(_) | Purpose::Tunnel(_) | Purpose::Host => None,
        };
        let endpoint = uplink.and_then(|slot| protector(&self.desired, slot));
        endpoint.is_some_and(|endpoint| !endpoint.untracked.is_empty())
    }

    /// What all host endpoints share; `None`: no host traffic comes by way of us.
    pub(super) fn protection(&self) -> Option<Protection> {
        Some(Protection {
            addresses: self.host_addresses().into(),
            failsafe: self.host_list_index(&HostList::Failsafe)?,
            failsafe_replies: self.host_list_index(&HostList::FailsafeReplies)?,
        })
    }

    /// Host endpoints that cannot be enforced here.
    pub(super) fn unprotectable(&self, difference: &Difference<'_>) -> Vec<ObjectError> {
        let next = difference.next;
        if next.host_endpoints.is_empty() || !difference.hosts && difference.endpoints.is_empty() {
            return vec![];
        }
        let refuse = |endpoint: &HostEndpoint, why: String| ObjectError {
            object: format!("host endpoint {}", endpoint.id),
            error: FieldError::new("interface_name", why),
        };
        let mut errors = vec![];
        let uplinks = self.slots.values().filter(|slot| matches!(slot.purpose, Purpose::Uplink { .. }));
        let protected: Vec<_> = uplinks.filter_map(|slot| protector(next, slot)).collect();
        let own = |slot: &&Slot| !matches!(slot.purpose, Purpose::Workload(_) | Purpose::Stack { .. });
        let wanted = self.slots.values().filter(own).count() + next.endpoints.len() + protected.len();
        if let (Some(endpoint), true) = (protected.first(), wanted > usize::from(self.max_interfaces)) {
            errors.push(refuse(
                endpoint,
                format!("no room for its tap: {wanted} interfaces; raise --interfaces"),
            ));
        }
        for endpoint in next.host_endpoints.values() {
            if let On::Interface(name) = &endpoint.on {
                let slot = self.id(name).and_then(|id| self.slots.get(&id));
                if !slot.is_some_and(|slot| matches!(slot.purpose, Purpose::Uplink { .. })) {
                    let why = format!(
                        "{name} is no uplink of this dataplane, so its traffic cannot be judged; start it with \
                         --uplink {name}"
                    );
                    errors.push(refuse(endpoint, why));
                }
            }
        }
        let vlans =
            self.slots.values().filter(|slot| matches!(slot.purpose, Purpose::Uplink { vlan: Some(_) }));
        for slot in vlans {
            if let Some(endpoint) = protector(next, slot) {
                let why = format!("{} is a VLAN, which this version cannot protect", slot.name);
                errors.push(refuse(endpoint, why));
            }
        }
        errors
    }

    /// Numbers for the lists that `next` has, besides those of its workloads.
    pub(super) fn numbered_hosts(
        &self,
        difference: &Difference<'_>,
        workloads: &SharedMap<EndpointId, EndpointIdx>,
    ) -> BTreeMap<HostList, EndpointIdx> {
        if !difference.hosts {
            return self.host_lists.clone();
        }
        let used: BTreeSet<EndpointIdx> =
            self.host_lists.values().chain(workloads.values()).copied().collect();
        let mut free = (0..).map(EndpointIdx).filter(|index| !used.contains(index));
        let number = |list: HostList| {
            let index = self.host_lists.get(&list).copied().or_else(|| free.next());
            Some((list, index?))
        };
        lists(difference.next).into_iter().filter_map(number).collect()
    }

    /// Both directions of a list.
    pub(super) fn host_rules(&self, desired: &Desired, sets: &SetTable, list: &HostList) -> [RuleList; 2] {
        let ports = &desired.failsafe;
        match list {
            HostList::Failsafe => [
                failsafe(&ports.inbound, |port| Rule { src_nets: nets(port), ..to(port) }),
                failsafe(&ports.outbound, |port| Rule { dst_nets: nets(port), ..to(port) }),
            ],
            // In the other direction, from the very ports.
            HostList::FailsafeReplies => [
                failsafe(&ports.outbound, |port| Rule { src_nets: nets(port), ..from(port) }),
                failsafe(&ports.inbound, |port| Rule { dst_nets: nets(port), ..from(port) }),
            ],
            HostList::Of(id, stage) => match desired.host_endpoints.get(id) {
                Some(endpoint) => [Direction::Ingress, Direction::Egress].map(|direction| {
                    let (applied, otherwise) = applied(endpoint, *stage);
                    RuleList { otherwise, ..self.rule_list(desired, sets, applied, direction) }
                }),
                None => Default::default(),
            },
        }
    }
}

/// The host endpoint that protects the interface: of those that name it, or one of its addresses,
/// the first by name; else the first of those for all interfaces. As Felix resolves them.
fn protector<'a>(desired: &'a Desired, slot: &Slot) -> Option<&'a Arc<HostEndpoint>> {
    let all = || desired.host_endpoints.values().find(|endpoint| endpoint.on == On::All);
    match slot.purpose {
        Purpose::Uplink { .. } => {
            let own = slot.facts.as_ref().map(|facts| facts.addresses.as_slice()).unwrap_or_default();
            let its = |endpoint: &&Arc<HostEndpoint>| match &endpoint.on {
                On::All => false,
                On::Interface(name) => *name == slot.name,
                On::Addresses(expected) => own.iter().any(|(addr, _)| expected.contains(addr)),
            };
            desired.host_endpoints.values().find(its).or_else(all)
        }
        Purpose::Workload(_) | Purpose::Tunnel(_) => all(),
        Purpose::Host | Purpose::Stack { .. } => None,
    }
}

fn lists(desired: &Desired) -> Vec<HostList> {
    if desired.host_endpoints.is_empty() && !desired.leads_hosts() {
        return vec![];
    }
    let of = |id: &Arc<str>| Stage::ALL.map(|stage| HostList::Of(id.clone(), stage));
    let endpoints = desired.host_endpoints.keys().flat_map(of);
    [HostList::Failsafe, HostList::FailsafeReplies].into_iter().chain(endpoints).collect()
}

/// The tiers and profiles of a stage, and what becomes of packets they do not decide.
fn applied(endpoint: &HostEndpoint, stage: Stage) -> ((&[Tier], &[Arc<str>]), Otherwise) {
    match stage {
        Stage::Untracked => ((&endpoint.untracked, &[]), Otherwise::GoOn),
        Stage::PreDnat => ((&endpoint.pre_dnat, &[]), Otherwise::GoOn),
        Stage::Forward => ((&endpoint.forward, &[]), Otherwise::GoOn),
        Stage::Normal => ((&endpoint.normal, &endpoint.profiles), Otherwise::Deny),
    }
}

/// One rule a port; what none matches goes on.
fn failsafe(ports: &[FailsafePort], rule: impl Fn(&FailsafePort) -> Rule) -> RuleList {
    let id = PolicyId { kind: "Failsafe".into(), namespace: "".into(), name: "failsafe ports".into() };
    let policies = vec![ListedPolicy { id, rules: ports.iter().map(rule).collect() }];
    let tier = TierList { name: "failsafe".into(), default: TierDefault::Pass, policies };
    RuleList { tiers: vec![tier], otherwise: Otherwise::GoOn, ..RuleList::default() }
}

fn to(port: &FailsafePort) -> Rule {
    Rule {
        protocol: Some(port.proto),
        dst_ports: vec![PortRange::one(port.port)],
        ..Rule::any(Action::Allow)
    }
}

fn from(port: &FailsafePort) -> Rule {
    Rule {
        protocol: Some(port.proto),
        src_ports: vec![PortRange::one(port.port)],
        ..Rule::any(Action::Allow)
    }
}

fn nets(port: &FailsafePort) -> Vec<Prefix> {
    port.net.into_iter().collect()
}
