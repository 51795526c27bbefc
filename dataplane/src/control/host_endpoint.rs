//! Host endpoints and failsafe ports as the agent sends them, parsed.

use super::convert::{self, FieldError};
use super::desired::{self, Tier};
use crate::net::{Addr, Prefix, Proto};
use crate::policy::TierDefault;
use margay_api::dataplane::v1 as pb;
use std::sync::Arc;

/// A host endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostEndpoint {
    /// Its name.
    pub id: Arc<str>,
    /// What it protects.
    pub on: On,
    /// Judge traffic of the host itself.
    pub normal: Vec<Tier>,
    /// Judge it before conntrack.
    pub untracked: Vec<Tier>,
    /// Judge what comes in, before destination NAT.
    pub pre_dnat: Vec<Tier>,
    /// Judge what is forwarded.
    pub forward: Vec<Tier>,
    /// What `normal` would be with every staged policy in force; empty: what it is.
    pub staged: Vec<Tier>,
    /// Judge traffic of the host that no tier decided.
    pub profiles: Vec<Arc<str>>,
}

/// The interfaces that a host endpoint protects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum On {
    /// All that no other host endpoint does.
    All,
    /// The one of this name.
    Interface(Arc<str>),
    /// Those that have one of these addresses.
    Addresses(Vec<Addr>),
}

/// A port that host endpoints leave open, whatever their policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailsafePort {
    /// TCP, UDP or another that has ports.
    pub proto: Proto,
    /// The destination port.
    pub port: u16,
    /// The other end is in it; `None`: anywhere.
    pub net: Option<Prefix>,
}

/// Failsafe ports: to the host, and from it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failsafe {
    /// To the host.
    pub inbound: Vec<FailsafePort>,
    /// From the host.
    pub outbound: Vec<FailsafePort>,
}

impl HostEndpoint {
    /// Parses and checks a message.
    pub(super) fn parse(message: pb::HostEndpoint) -> Result<Self, FieldError> {
        if message.id.is_empty() {
            return Err(FieldError::new("id", "missing"));
        }
        let addresses = message.expected_addresses.iter().enumerate();
        let addresses = addresses
            .map(|(at, bytes)| convert::addr(&format!("expected_addresses[{at}]"), bytes))
            .collect::<Result<Vec<_>, _>>()?;
        let on = match message.interface_name.as_str() {
            "*" => On::All,
            "" if addresses.is_empty() => {
                let why =
                    "missing, and no expected_addresses either: nothing says which interface it protects";
                return Err(FieldError::new("interface_name", why));
            }
            "" => On::Addresses(addresses),
            name => On::Interface(desired::interface_name("interface_name", name)?),
        };
        let tiers = |field: &str, tiers: &[pb::TierBinding]| desired::tiers(field, tiers);
        let endpoint = Self {
            id: message.id.as_str().into(),
            on,
            normal: tiers("tiers", &message.tiers)?,
            untracked: tiers("untracked_tiers", &message.untracked_tiers)?,
            pre_dnat: tiers("pre_dnat_tiers", &message.pre_dnat_tiers)?,
            forward: tiers("forward_tiers", &message.forward_tiers)?,
            staged: tiers("staged_tiers", &message.staged_tiers)?,
            profiles: message.profile_ids.iter().map(|name| name.as_str().into()).collect(),
        };
        for (field, tiers) in
            [("untracked_tiers", &endpoint.untracked), ("pre_dnat_tiers", &endpoint.pre_dnat)]
        {
            if let Some(at) = tiers.iter().position(|tier| tier.default != TierDefault::Pass) {
                let why = "DENY: these tiers have no drop at their end; send PASS";
                return Err(FieldError::new(format!("{field}[{at}].default_action"), why));
            }
        }
        if let Some(at) = endpoint.pre_dnat.iter().position(|tier| !tier.egress.is_empty()) {
            let why = "preDNAT policy is about what comes in and has no egress";
            return Err(FieldError::new(format!("pre_dnat_tiers[{at}].egress_policies"), why));
        }
        Ok(endpoint)
    }
}

impl Failsafe {
    /// Parses both lists.
    pub(super) fn parse(config: &pb::NodeConfig) -> Result<Self, FieldError> {
        Ok(Self {
            inbound: ports("failsafe_inbound", &config.failsafe_inbound)?,
            outbound: ports("failsafe_outbound", &config.failsafe_outbound)?,
        })
    }
}

fn ports(field: &str, messages: &[pb::FailsafePort]) -> Result<Vec<FailsafePort>, FieldError> {
    let one = |(at, message): (usize, &pb::FailsafePort)| {
        let wrong = |what: &str, why: String| FieldError::new(format!("{field}[{at}].{what}"), why);
        let proto = u8::try_from(message.protocol).ok().map(Proto).filter(|proto| proto.has_ports());
        Ok(FailsafePort {
            proto: proto.ok_or_else(|| {
                wrong("protocol", format!("{} has no ports", Proto(message.protocol as u8)))
            })?,
            port: u16::try_from(message.port)
                .map_err(|_| wrong("port", format!("{} is above 65535", message.port)))?,
            net: message
                .net
                .as_ref()
                .map(convert::prefix)
                .transpose()
                .map_err(|e| e.within(format!("{field}[{at}].net")))?,
        })
    };
    messages.iter().enumerate().map(one).collect()
}
