//! Workload and host endpoints, nodes and network sets.

use std::net::IpAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::Check;
use crate::model::net::{is_port_name, parse_mac};
use crate::model::{
    EndpointPort, HostEndpointSpec, LABEL_NAMESPACE, Metadata, Node, NodeBgp, Protocol, SubnetAddr,
    WorkloadEndpointPort, WorkloadEndpointSpec,
};

pub(super) fn network_set(check: &mut Check, metadata: &Metadata) {
    let forged = metadata.labels.contains_key(LABEL_NAMESPACE);
    check.require(
        !forged,
        "metadata.labels",
        format_args!("{LABEL_NAMESPACE} is set by the system; remove it"),
    );
}

pub(super) fn workload(check: &mut Check, spec: &WorkloadEndpointSpec) {
    let names = [
        (&spec.orchestrator, "spec.orchestrator"),
        (&spec.workload, "spec.workload"),
        (&spec.node, "spec.node"),
        (&spec.pod, "spec.pod"),
        (&spec.endpoint, "spec.endpoint"),
        (&spec.service_account_name, "spec.serviceAccountName"),
    ];
    for (name, field) in names {
        check.optional_name(name, field);
    }
    let id = &spec.container_id;
    check.require(is_container_id(id), "spec.containerID", format_args!("{id:?} is not a container id"));
    for (i, net) in spec.ip_networks.iter().enumerate() {
        let message = format_args!("{net} is more than one address; an endpoint's networks are /32 or /128");
        check.require(net.is_host(), format_args!("spec.ipNetworks[{i}]"), message);
    }
    for (i, nat) in spec.ip_nats.iter().enumerate() {
        let field = format!("spec.ipNATs[{i}]");
        let same = nat.internal_ip.is_ipv4() == nat.external_ip.is_ipv4();
        check.require(same, &field, "internalIP and externalIP are of different IP versions");
        let own = spec.ip_networks.iter().any(|n| n.contains(nat.internal_ip));
        let message = format_args!("{} is none of the endpoint's ipNetworks", nat.internal_ip);
        check.require(own, format_args!("{field}.internalIP"), message);
    }
    family(check, spec.ipv4_gateway, true, "spec.ipv4Gateway");
    family(check, spec.ipv6_gateway, false, "spec.ipv6Gateway");
    profiles(check, &spec.profiles);
    interface(check, &spec.interface_name);
    mac(check, &spec.mac, "spec.mac");
    for (i, port) in spec.ports.iter().enumerate() {
        self::port(check, port, &format!("spec.ports[{i}]"));
    }
}

pub(super) fn host(check: &mut Check, spec: &HostEndpointSpec) {
    check.require(!spec.node.is_empty(), "spec.node", "missing; name the node that has the interface");
    check.optional_name(&spec.node, "spec.node");
    if spec.interface_name.is_empty() {
        let message =
            "missing, and so is expectedIPs; name an interface, or * for all, or give its addresses";
        check.require(!spec.expected_ips.is_empty(), "spec.interfaceName", message);
    } else {
        interface(check, &spec.interface_name);
    }
    profiles(check, &spec.profiles);
    for (i, EndpointPort { name, protocol, port }) in spec.ports.iter().enumerate() {
        let at = format!("spec.ports[{i}]");
        number(check, *protocol, *port, &at);
        port_name(check, name, &at);
    }
}

fn profiles(check: &mut Check, profiles: &[String]) {
    for (i, profile) in profiles.iter().enumerate() {
        check.require(!profile.is_empty(), format_args!("spec.profiles[{i}]"), "empty; name a profile");
        check.optional_name(profile, format_args!("spec.profiles[{i}]"));
    }
}

fn interface(check: &mut Check, name: &str) {
    let message = "is not an interface's name; use 1 to 15 letters, digits and _ . -";
    check.require(is_interface(name), "spec.interfaceName", format_args!("{name:?} {message}"));
}

fn port(check: &mut Check, port: &WorkloadEndpointPort, at: &str) {
    number(check, port.protocol, port.port, at);
    if port.name.is_empty() {
        check.require(
            port.host_port != 0,
            format_args!("{at}.name"),
            "missing; a port without a hostPort needs a name",
        );
    } else {
        port_name(check, &port.name, at);
    }
}

fn number(check: &mut Check, protocol: Protocol, port: u16, at: &str) {
    check.require(
        protocol.has_ports(),
        format_args!("{at}.protocol"),
        format_args!("{protocol} has no ports; use TCP, UDP or SCTP"),
    );
    check.require(port != 0, format_args!("{at}.port"), "0; a port is 1 to 65535");
}

fn port_name(check: &mut Check, name: &str, at: &str) {
    let message = "is not a port's name; use up to 15 lower case letters, digits and single hyphens";
    check.require(is_port_name(name), format_args!("{at}.name"), format_args!("{name:?} {message}"));
}

pub(super) fn node(check: &mut Check, node: &Node) {
    let spec = &node.spec;
    if let Some(bgp) = &spec.bgp {
        check.require(*bgp != NodeBgp::default(), "spec.bgp", "empty; give an address or remove it");
        subnet(check, bgp.ipv4_address, true, "spec.bgp.ipv4Address");
        subnet(check, bgp.ipv6_address, false, "spec.bgp.ipv6Address");
        family(check, bgp.ipv4_ipip_tunnel_addr, true, "spec.bgp.ipv4IPIPTunnelAddr");
        family(check, bgp.route_reflector_cluster_id, true, "spec.bgp.routeReflectorClusterID");
    }
    family(check, spec.ipv4_vxlan_tunnel_addr, true, "spec.ipv4VXLANTunnelAddr");
    family(check, spec.ipv6_vxlan_tunnel_addr, false, "spec.ipv6VXLANTunnelAddr");
    mac(check, &spec.vxlan_tunnel_mac_addr, "spec.vxlanTunnelMACAddr");
    mac(check, &spec.vxlan_tunnel_mac_addr_v6, "spec.vxlanTunnelMACAddrV6");
    if let Some(wireguard) = &spec.wireguard {
        family(check, wireguard.interface_ipv4_address, true, "spec.wireguard.interfaceIPv4Address");
        family(check, wireguard.interface_ipv6_address, false, "spec.wireguard.interfaceIPv6Address");
    }
    for (i, address) in spec.addresses.iter().enumerate() {
        let known = matches!(address.kind.as_str(), "" | "CalicoNodeIP" | "InternalIP" | "ExternalIP");
        let message = format_args!("{:?} is none of CalicoNodeIP, InternalIP and ExternalIP", address.kind);
        check.require(known, format_args!("spec.addresses[{i}].type"), message);
    }
    for (i, interface) in spec.interfaces.iter().enumerate() {
        check.optional_name(&interface.name, format_args!("spec.interfaces[{i}].name"));
    }
    if let Some(status) = &node.status {
        wireguard_key(check, &status.wireguard_public_key, "status.wireguardPublicKey");
        wireguard_key(check, &status.wireguard_public_key_v6, "status.wireguardPublicKeyV6");
    }
}

fn family(check: &mut Check, addr: Option<IpAddr>, v4: bool, field: &str) {
    if let Some(addr) = addr {
        let wanted = if v4 { "IPv4" } else { "IPv6" };
        check.require(addr.is_ipv4() == v4, field, format_args!("{addr} is not an {wanted} address"));
    }
}

fn subnet(check: &mut Check, addr: Option<SubnetAddr>, v4: bool, field: &str) {
    family(check, addr.map(|a| a.addr), v4, field);
}

fn mac(check: &mut Check, text: &str, field: &str) {
    let ok = text.is_empty() || parse_mac(text).is_some();
    check.require(
        ok,
        field,
        format_args!("{text:?} is not an Ethernet address; write it as 02:00:00:00:00:01"),
    );
}

fn wireguard_key(check: &mut Check, text: &str, field: &str) {
    let ok = text.is_empty() || STANDARD.decode(text).is_ok_and(|key| key.len() == 32);
    check.require(ok, field, "not a WireGuard public key; give 32 bytes in base64");
}

/// A name that the kernel would take; `*` is what host endpoints call all interfaces.
fn is_interface(s: &str) -> bool {
    s == "*"
        || ((1..=15).contains(&s.len())
            && s.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-')))
}

fn is_container_id(s: &str) -> bool {
    s.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') && !s.starts_with('-') && !s.ends_with('-')
}
