//! One rule, as the agent resolved it: selectors have become IP sets, names have become numbers.

use crate::net::{Addr, PortRange, Prefix, Proto};
use std::fmt;
use std::sync::Arc;

/// What a matching rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Accept, and look no further in this direction.
    Allow,
    /// Drop.
    Deny,
    /// Leave the tier: on to the next one, or to the profiles after the last. In a profile: drop.
    Pass,
    /// Note the packet and go on with the next rule.
    Log,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Pass => "pass",
            Self::Log => "log",
        })
    }
}

/// The version of a packet's IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IpVersion {
    /// RFC 791.
    V4,
    /// RFC 8200.
    V6,
}

impl IpVersion {
    /// The version `addr` belongs to.
    #[inline]
    pub const fn of(addr: Addr) -> Self {
        if addr.is_v4() { Self::V4 } else { Self::V6 }
    }
}

/// An IP set, by its place in the [`SetTable`](super::SetTable).
///
/// Whoever assigns the ids keeps one for a set as long as any rule names it: trees outlive
/// the table they were compiled beside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SetId(pub u32);

/// An ICMP type, and perhaps a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IcmpMatch {
    /// The type.
    pub kind: u8,
    /// `None`: any code.
    pub code: Option<u8>,
}

/// What a policy is known by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyId {
    /// `NetworkPolicy`, `GlobalNetworkPolicy`...
    pub kind: Arc<str>,
    /// Empty for global kinds.
    pub namespace: Arc<str>,
    /// Name within kind and namespace.
    pub name: Arc<str>,
}

impl fmt::Display for PolicyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.namespace.is_empty() {
            write!(f, "{}/", self.namespace)?;
        }
        f.write_str(&self.name)
    }
}

/// A match and an action. Every field must match.
///
/// A list matches when one of its entries does, except `*_ip_sets`, all of which must hold the
/// address. A `not_` list matches when none of its entries does. An empty list matches
/// everything. Port ranges and named-port sets of one side are alternatives to each other.
///
/// Prefix lists count only the prefixes of the packet's IP version. Where that empties a list
/// that was not empty, or where a `not_` list holds the whole address space, the rule does not
/// exist for that version.
///
/// A packet without ports is in no port range and in no named-port set; a packet that is not
/// ICMP has no type.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    /// What to do.
    pub action: Action,
    /// `None`: both.
    pub ip_version: Option<IpVersion>,
    /// The packet's protocol is this.
    pub protocol: Option<Proto>,
    /// The packet's protocol is not this.
    pub not_protocol: Option<Proto>,
    /// The source is in one of these.
    pub src_nets: Vec<Prefix>,
    /// The destination is in one of these.
    pub dst_nets: Vec<Prefix>,
    /// The source is in none of these.
    pub not_src_nets: Vec<Prefix>,
    /// The destination is in none of these.
    pub not_dst_nets: Vec<Prefix>,
    /// The source port is in one of these, or (see below) in a named-port set.
    pub src_ports: Vec<PortRange>,
    /// The destination port is in one of these, or in a named-port set.
    pub dst_ports: Vec<PortRange>,
    /// The source port is in none of these.
    pub not_src_ports: Vec<PortRange>,
    /// The destination port is in none of these.
    pub not_dst_ports: Vec<PortRange>,
    /// One of these holds (source, protocol, source port), or `src_ports` holds the port.
    pub src_named_ports: Vec<SetId>,
    /// One of these holds (destination, protocol, destination port), or `dst_ports` does.
    pub dst_named_ports: Vec<SetId>,
    /// None of these holds (source, protocol, source port).
    pub not_src_named_ports: Vec<SetId>,
    /// None of these holds (destination, protocol, destination port).
    pub not_dst_named_ports: Vec<SetId>,
    /// Each of these holds the source.
    pub src_ip_sets: Vec<SetId>,
    /// Each of these holds the destination.
    pub dst_ip_sets: Vec<SetId>,
    /// None of these holds the source.
    pub not_src_ip_sets: Vec<SetId>,
    /// None of these holds the destination.
    pub not_dst_ip_sets: Vec<SetId>,
    /// Each of these holds (destination, protocol, destination port): a service's backends.
    pub dst_ip_port_sets: Vec<SetId>,
    /// The packet is ICMP of this type and code.
    pub icmp: Option<IcmpMatch>,
    /// The packet is not ICMP of this type and code.
    pub not_icmp: Option<IcmpMatch>,
    /// For people and logs: opaque, from the agent.
    pub rule_id: Option<Arc<str>>,
}

impl Rule {
    /// A rule that matches every packet.
    pub const fn any(action: Action) -> Self {
        Self {
            action,
            ip_version: None,
            protocol: None,
            not_protocol: None,
            src_nets: Vec::new(),
            dst_nets: Vec::new(),
            not_src_nets: Vec::new(),
            not_dst_nets: Vec::new(),
            src_ports: Vec::new(),
            dst_ports: Vec::new(),
            not_src_ports: Vec::new(),
            not_dst_ports: Vec::new(),
            src_named_ports: Vec::new(),
            dst_named_ports: Vec::new(),
            not_src_named_ports: Vec::new(),
            not_dst_named_ports: Vec::new(),
            src_ip_sets: Vec::new(),
            dst_ip_sets: Vec::new(),
            not_src_ip_sets: Vec::new(),
            not_dst_ip_sets: Vec::new(),
            dst_ip_port_sets: Vec::new(),
            icmp: None,
            not_icmp: None,
            rule_id: None,
        }
    }

    /// The sets of addresses the rule names.
    pub fn address_sets(&self) -> impl Iterator<Item = SetId> + '_ {
        [&self.src_ip_sets, &self.dst_ip_sets, &self.not_src_ip_sets, &self.not_dst_ip_sets]
            .into_iter()
            .flatten()
            .copied()
    }

    /// The sets of (address, protocol, port) the rule names.
    pub fn port_sets(&self) -> impl Iterator<Item = SetId> + '_ {
        [
            &self.src_named_ports,
            &self.dst_named_ports,
            &self.not_src_named_ports,
            &self.not_dst_named_ports,
            &self.dst_ip_port_sets,
        ]
        .into_iter()
        .flatten()
        .copied()
    }
}
