//! What holds for the whole node, from FelixConfiguration: `default`, overruled field by field by
//! `node.NAME`.

use super::{Resources, packed};
use crate::model::{
    BpfConntrackTimeouts, EndpointToHostAction, FailsafePort, FelixConfiguration, FelixConfigurationSpec,
    MIDSTREAM, NAT_MAPPING, NODE_PORT_ADDRESSES, NatMapping, NatOutgoingExclusions, Port, REMOVED_BACKENDS,
    RemovedBackends, TCP_WINDOWS, is_strict, milliseconds, node_port_addresses, picks_up, scalar::BpfTimeout,
};
use margay_api::dataplane::v1::{
    self as api, Action, NodeConfig,
    node_config::{self, Established, Midstream, RemovedBackend, TcpWindows},
};

/// The configuration of `node`.
pub(super) fn config(resources: &Resources, node: &str) -> NodeConfig {
    let settings = Settings::of(resources, node);
    let to_host = settings.first(|spec| spec.default_endpoint_to_host_action);
    let inbound = settings.first(|spec| spec.failsafe_inbound_host_ports.as_deref());
    let outbound = settings.first(|spec| spec.failsafe_outbound_host_ports.as_deref());
    let nat_address = settings.first(|spec| spec.nat_outgoing_address);
    let nat_ports = settings.first(|spec| spec.nat_port_range.as_ref());
    let nat_mapping = settings.annotation(NAT_MAPPING).and_then(|text| text.parse().ok());
    let exclusions = settings.first(|spec| spec.nat_outgoing_exclusions);
    let node_ports = settings.annotation(NODE_PORT_ADDRESSES).and_then(|text| node_port_addresses(text).ok());
    let removed = settings.annotation(REMOVED_BACKENDS).and_then(|text| text.parse().ok());
    let picks_up = settings.annotation(MIDSTREAM).and_then(|text| picks_up(text).ok());
    let strict = settings.annotation(TCP_WINDOWS).and_then(|text| is_strict(text).ok());
    NodeConfig {
        hostname: node.to_owned(),
        endpoint_to_host_action: match to_host {
            None | Some(EndpointToHostAction::Drop) => Action::Deny,
            Some(EndpointToHostAction::Accept) => Action::Allow,
            Some(EndpointToHostAction::Return) => Action::Pass,
        }
        .into(),
        // Anything else is refused when it is applied.
        established: match settings.annotation(FelixConfiguration::ESTABLISHED) {
            Some("Recheck") => Established::Recheck,
            _ => Established::Keep,
        }
        .into(),
        failsafe_inbound: ports(inbound.unwrap_or(&FailsafePort::INBOUND)),
        failsafe_outbound: ports(outbound.unwrap_or(&FailsafePort::OUTBOUND)),
        nat_outgoing_address: nat_address.map_or(vec![], |address| address.octets().to_vec()),
        nat_ports: nat_ports.and_then(range),
        nat_mapping: match nat_mapping.unwrap_or_default() {
            NatMapping::AddressAndPort => node_config::NatMapping::AddressAndPort,
            NatMapping::EndpointIndependent => node_config::NatMapping::EndpointIndependent,
        }
        .into(),
        nat_excludes_hosts: exclusions == Some(NatOutgoingExclusions::IPPoolsAndHostIPs),
        node_port_nets: node_ports.unwrap_or_default().into_iter().map(packed).collect(),
        removed_backend: match removed.unwrap_or_default() {
            RemovedBackends::Drain => RemovedBackend::Drain,
            RemovedBackends::Reset => RemovedBackend::Reset,
        }
        .into(),
        conntrack_timeouts: settings.first(|spec| spec.bpf_conntrack_timeouts.as_ref()).map(timeouts),
        midstream: if picks_up == Some(false) { Midstream::Refuse } else { Midstream::PickUp }.into(),
        tcp_windows: if strict == Some(false) { TcpWindows::Liberal } else { TcpWindows::Strict }.into(),
        mtu_interfaces: settings
            .first(|spec| spec.mtu_iface_pattern.as_ref())
            .map_or_else(String::new, |pattern| pattern.as_str().to_owned()),
        allow_ipip_from_workloads: settings.first(|spec| spec.allow_ipip_packets_from_workloads)
            == Some(true),
        allow_vxlan_from_workloads: settings.first(|spec| spec.allow_vxlan_packets_from_workloads)
            == Some(true),
        ..NodeConfig::default()
    }
}

/// What is wrong with a timeout was said when it was applied.
fn timeouts(of: &BpfConntrackTimeouts) -> api::ConntrackTimeouts {
    let ms = |timeout: &Option<BpfTimeout>| {
        timeout.as_ref().and_then(|timeout| milliseconds(timeout).ok().flatten()).unwrap_or_default()
    };
    api::ConntrackTimeouts {
        tcp_syn_sent_ms: ms(&of.tcp_syn_sent),
        tcp_established_ms: ms(&of.tcp_established),
        tcp_fins_seen_ms: ms(&of.tcp_fins_seen),
        tcp_reset_seen_ms: ms(&of.tcp_reset_seen),
        udp_ms: ms(&of.udp_timeout),
        icmp_ms: ms(&of.icmp_timeout),
        generic_ms: ms(&of.generic_timeout),
    }
}

/// What FelixConfigurations say to a node.
pub(super) struct Settings<'a> {
    own: Option<&'a FelixConfiguration>,
    cluster: Option<&'a FelixConfiguration>,
}

impl<'a> Settings<'a> {
    /// To `node`.
    pub(super) fn of(resources: &'a Resources, node: &str) -> Self {
        Self { own: resources.get("", &format!("node.{node}")), cluster: resources.get("", "default") }
    }

    /// What the node's own configuration says of a setting, or else the cluster's.
    pub(super) fn first<T>(&self, setting: impl Fn(&'a FelixConfigurationSpec) -> Option<T>) -> Option<T> {
        [self.own, self.cluster].into_iter().flatten().find_map(|configuration| setting(&configuration.spec))
    }

    /// The same of an annotation.
    pub(super) fn annotation(&self, name: &str) -> Option<&'a str> {
        let of = |configuration: &'a FelixConfiguration| configuration.metadata.annotations.get(name);
        [self.own, self.cluster].into_iter().flatten().find_map(of).map(String::as_str)
    }
}

/// A name, which is refused when it is applied, stands for no range.
fn range(port: &Port) -> Option<api::PortRange> {
    match port {
        Port::Range { first, last } => {
            Some(api::PortRange { first: u32::from(*first), last: u32::from(*last) })
        }
        Port::Named(_) => None,
    }
}

fn ports(ports: &[FailsafePort]) -> Vec<api::FailsafePort> {
    let message = |port: &FailsafePort| api::FailsafePort {
        protocol: port.protocol().number().into(),
        port: port.port.into(),
        net: port.peers().map(packed),
    };
    ports.iter().map(message).collect()
}
