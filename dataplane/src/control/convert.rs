//! Messages of the API, parsed into the types that the rest of the dataplane uses.

use crate::net::{Addr, Mac, PortRange, Prefix, Proto};
use crate::policy::{Action, IcmpMatch, IpVersion, PolicyId, PortMember, Rule, SetId, SetMembers};
use margay_api::dataplane::v1 as pb;
use std::fmt::Display;
use std::sync::Arc;

/// Rules in one direction of one policy at most, as Calico's API has it.
pub(super) const MAX_RULES: usize = 100_000;
/// Members of one IP set at most: Calico's default for its kernel sets, times four.
pub(super) const MAX_MEMBERS: usize = 4 << 20;

/// A field that does not parse.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct FieldError {
    /// Path inside the message.
    pub field: String,
    /// What is wrong with it, and what to do.
    pub message: String,
}

impl FieldError {
    /// An error of this very field.
    pub fn new(field: impl Into<String>, message: impl Display) -> Self {
        Self { field: field.into(), message: message.to_string() }
    }

    /// The same error, one level further out.
    pub fn within(mut self, outer: impl Display) -> Self {
        self.field =
            if self.field.is_empty() { outer.to_string() } else { format!("{outer}.{}", self.field) };
        self
    }
}

type Parsed<T> = Result<T, FieldError>;

/// An address block.
pub fn prefix(message: &pb::Prefix) -> Parsed<Prefix> {
    Prefix::from_bytes(&message.address, message.length).map_err(|e| FieldError::new("", e))
}

/// A list of address blocks in the field of this name.
pub fn prefixes(field: &str, messages: &[pb::Prefix]) -> Parsed<Vec<Prefix>> {
    let each = messages.iter().enumerate();
    each.map(|(at, message)| prefix(message).map_err(|e| e.within(format!("{field}[{at}]")))).collect()
}

/// An address in the field of this name.
pub fn addr(field: &str, bytes: &[u8]) -> Parsed<Addr> {
    Addr::from_slice(bytes)
        .ok_or_else(|| FieldError::new(field, format!("an address has 4 or 16 bytes, not {}", bytes.len())))
}

/// An Ethernet address, or none where the field is empty.
pub fn mac(field: &str, bytes: &[u8]) -> Parsed<Option<Mac>> {
    match <[u8; 6]>::try_from(bytes) {
        Ok(bytes) if !Mac(bytes).is_group() => Ok(Some(Mac(bytes))),
        Ok(bytes) => {
            Err(FieldError::new(field, format!("{} is a group address, not a station's", Mac(bytes))))
        }
        Err(_) if bytes.is_empty() => Ok(None),
        Err(_) => {
            Err(FieldError::new(field, format!("an Ethernet address has 6 bytes, not {}", bytes.len())))
        }
    }
}

/// A policy's identity.
pub fn policy_id(message: Option<&pb::PolicyId>) -> Parsed<PolicyId> {
    let id = message.ok_or_else(|| FieldError::new("id", "missing"))?;
    for (field, value) in [("id.kind", &id.kind), ("id.name", &id.name)] {
        if value.is_empty() {
            return Err(FieldError::new(field, "missing"));
        }
    }
    let arc = |s: &String| Arc::from(s.as_str());
    Ok(PolicyId { kind: arc(&id.kind), namespace: arc(&id.namespace), name: arc(&id.name) })
}

/// What a set holds, with `type` and packed members checked.
pub fn members(kind: pb::ip_set::Type, packed: &pb::Members) -> Parsed<SetMembers> {
    use pb::ip_set::Type;
    let both = |behind: usize| -> Parsed<Vec<(Addr, &[u8])>> {
        let v4 = records("members.ipv4", &packed.ipv4, 4, behind)?;
        let v6 = records("members.ipv6", &packed.ipv6, 16, behind)?;
        if v4.len() + v6.len() > MAX_MEMBERS {
            let message = format!("{} members; at most {MAX_MEMBERS} fit one set", v4.len() + v6.len());
            return Err(FieldError::new("members", message));
        }
        Ok([v4, v6].concat())
    };
    match kind {
        Type::Unspecified => Err(FieldError::new("type", "missing; say IP, IP_AND_PORT or NET")),
        Type::Ip => Ok(SetMembers::Ip(both(0)?.into_iter().map(|(addr, _)| addr).collect())),
        Type::Net => {
            let net = |(addr, rest): (Addr, &[u8])| {
                Prefix::new(addr, u32::from(rest[0])).map_err(|e| FieldError::new("members", e))
            };
            Ok(SetMembers::Net(both(1)?.into_iter().map(net).collect::<Parsed<_>>()?))
        }
        Type::IpAndPort => {
            let member = |(addr, rest): (Addr, &[u8])| PortMember {
                addr,
                proto: Proto(rest[0]),
                port: u16::from_be_bytes([rest[1], rest[2]]),
            };
            Ok(SetMembers::IpPort(both(3)?.into_iter().map(member).collect()))
        }
    }
}

/// Cuts packed members into address and what follows it.
fn records<'b>(field: &str, bytes: &'b [u8], addr: usize, behind: usize) -> Parsed<Vec<(Addr, &'b [u8])>> {
    let size = addr + behind;
    if !bytes.len().is_multiple_of(size) {
        let message = format!("{} bytes are no whole number of {size}-byte members", bytes.len());
        return Err(FieldError::new(field, message));
    }
    bytes
        .chunks_exact(size)
        .map(|record| {
            let (address, rest) = record.split_at(addr);
            let parsed = self::addr(field, address)?;
            if addr == 16 && parsed.is_v4() {
                return Err(FieldError::new(field, format!("::ffff:{parsed} is IPv4; send it as such")));
            }
            Ok((parsed, rest))
        })
        .collect()
}

/// One rule. `set` gives the number of a set's name.
pub(super) fn rule(message: &pb::Rule, set: &mut dyn FnMut(&str) -> SetId) -> Parsed<Rule> {
    if message.http.is_some() {
        let why =
            "HTTP matches cannot be enforced by this version; a rule that ignored one would allow too much";
        return Err(FieldError::new("http", why));
    }
    let mut sets = |names: &[String]| names.iter().map(|name| set(name)).collect::<Vec<_>>();
    Ok(Rule {
        action: action("action", message.action())?,
        ip_version: match message.ip_version {
            0 => None,
            4 => Some(IpVersion::V4),
            6 => Some(IpVersion::V6),
            other => return Err(FieldError::new("ip_version", format!("{other} is neither 4 nor 6"))),
        },
        protocol: message.protocol.map(|number| proto("protocol", number)).transpose()?,
        not_protocol: message.not_protocol.map(|number| proto("not_protocol", number)).transpose()?,
        src_nets: prefixes("src_nets", &message.src_nets)?,
        dst_nets: prefixes("dst_nets", &message.dst_nets)?,
        not_src_nets: prefixes("not_src_nets", &message.not_src_nets)?,
        not_dst_nets: prefixes("not_dst_nets", &message.not_dst_nets)?,
        src_ports: ports("src_ports", &message.src_ports)?,
        dst_ports: ports("dst_ports", &message.dst_ports)?,
        not_src_ports: ports("not_src_ports", &message.not_src_ports)?,
        not_dst_ports: ports("not_dst_ports", &message.not_dst_ports)?,
        src_named_ports: sets(&message.src_named_port_ip_set_ids),
        dst_named_ports: sets(&message.dst_named_port_ip_set_ids),
        not_src_named_ports: sets(&message.not_src_named_port_ip_set_ids),
        not_dst_named_ports: sets(&message.not_dst_named_port_ip_set_ids),
        src_ip_sets: sets(&message.src_ip_set_ids),
        dst_ip_sets: sets(&message.dst_ip_set_ids),
        not_src_ip_sets: sets(&message.not_src_ip_set_ids),
        not_dst_ip_sets: sets(&message.not_dst_ip_set_ids),
        dst_ip_port_sets: sets(&message.dst_ip_port_set_ids),
        icmp: message.icmp.as_ref().map(|m| icmp("icmp", m)).transpose()?,
        not_icmp: message.not_icmp.as_ref().map(|m| icmp("not_icmp", m)).transpose()?,
        rule_id: message
            .origin
            .as_ref()
            .filter(|origin| !origin.rule_id.is_empty())
            .map(|origin| origin.rule_id.as_str().into()),
    })
}

fn action(field: &str, action: pb::Action) -> Parsed<Action> {
    match action {
        pb::Action::Allow => Ok(Action::Allow),
        pb::Action::Deny => Ok(Action::Deny),
        pb::Action::Pass => Ok(Action::Pass),
        pb::Action::Log => Ok(Action::Log),
        pb::Action::Unspecified => Err(FieldError::new(field, "missing; say ALLOW, DENY, PASS or LOG")),
    }
}

fn proto(field: &str, number: u32) -> Parsed<Proto> {
    u8::try_from(number)
        .map(Proto)
        .map_err(|_| FieldError::new(field, format!("{number} is no protocol number; they end at 255")))
}

fn ports(field: &str, messages: &[pb::PortRange]) -> Parsed<Vec<PortRange>> {
    let each = messages.iter().enumerate();
    each.map(|(at, range)| match (u16::try_from(range.first), u16::try_from(range.last)) {
        (Ok(first), Ok(last)) if first <= last => Ok(PortRange { first, last }),
        _ => {
            let message = format!(
                "{}:{} is no port range; ports go from 0 to 65535, the lower first",
                range.first, range.last
            );
            Err(FieldError::new(format!("{field}[{at}]"), message))
        }
    })
    .collect()
}

fn icmp(field: &str, message: &pb::IcmpMatch) -> Parsed<IcmpMatch> {
    let byte = |name: &str, value: u32| {
        u8::try_from(value)
            .map_err(|_| FieldError::new(format!("{field}.{name}"), format!("{value} is above 255")))
    };
    Ok(IcmpMatch {
        kind: byte("type", message.r#type)?,
        code: message.code.map(|code| byte("code", code)).transpose()?,
    })
}
