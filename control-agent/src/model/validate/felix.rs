//! Settings of the dataplane.

use super::Check;
use crate::model::net::Port;
use crate::model::{FailsafePort, FelixConfigurationSpec, RouteTables};

/// Entries of `kubeNodePortRanges`: what one rule of iptables can match.
const MAX_NODE_PORTS: usize = 7;
/// Routing tables that one node may use.
const MAX_TABLES: i64 = 65_535;

pub(super) fn felix(check: &mut Check, spec: &FelixConfigurationSpec) {
    for (i, part) in spec.health_timeout_overrides.iter().flatten().enumerate() {
        let name = &part.name;
        let ok = !name.is_empty()
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b' ' | b'-'));
        let message = format_args!("{name:?}; use letters, digits, spaces, _ and -");
        check.require(ok, format_args!("spec.healthTimeoutOverrides[{i}].name"), message);
    }
    for (i, net) in spec.external_nodes_list.iter().flatten().enumerate() {
        let message = format_args!("{net} is not IPv4, and tunnels from outside are");
        check.require(net.addr.is_ipv4(), format_args!("spec.externalNodesList[{i}]"), message);
    }
    for (list, field) in [
        (&spec.failsafe_inbound_host_ports, "failsafeInboundHostPorts"),
        (&spec.failsafe_outbound_host_ports, "failsafeOutboundHostPorts"),
    ] {
        list.iter()
            .flatten()
            .enumerate()
            .for_each(|(i, port)| failsafe(check, port, &format!("spec.{field}[{i}]")));
    }
    node_ports(check, spec);
    route_tables(check, spec);
    for interface in spec.bpf_log_filters.iter().flat_map(|filters| filters.keys()) {
        let message =
            format_args!("{interface:?} is no interface's name; use 1 to 15 letters, digits and _ . -");
        check.require(super::text::is_interface(interface), "spec.bpfLogFilters", message);
    }
}

fn failsafe(check: &mut Check, port: &FailsafePort, at: &str) {
    let protocol = port.protocol();
    let message = format_args!("{protocol} has no ports; use TCP, UDP or SCTP");
    check.require(protocol.has_ports(), format_args!("{at}.protocol"), message);
}

fn node_ports(check: &mut Check, spec: &FelixConfigurationSpec) {
    let ports = spec.kube_node_port_ranges.as_deref().unwrap_or_default();
    check.at_most(ports, MAX_NODE_PORTS, "spec.kubeNodePortRanges");
    for (i, port) in ports.iter().enumerate() {
        let message = format_args!("{port} is a name; write numbers, as in 30000:32767");
        let numbered = matches!(port, Port::Range { .. });
        check.require(numbered, format_args!("spec.kubeNodePortRanges[{i}]"), message);
    }
}

fn route_tables(check: &mut Check, spec: &FelixConfigurationSpec) {
    if let Some(range) = spec.route_table_range {
        ordered(check, range, "spec.routeTableRange");
        check.require(
            spec.route_table_ranges.is_none(),
            "spec.routeTableRange",
            "superseded by routeTableRanges, which is given too; remove it",
        );
    }
    let mut tables = 0;
    for (i, range) in spec.route_table_ranges.iter().flatten().enumerate() {
        ordered(check, *range, &format!("spec.routeTableRanges[{i}]"));
        tables += (range.max.get() - range.min.get()).max(0) + 1;
    }
    let message = format_args!("{tables} tables; at most {MAX_TABLES} are allowed, narrow the ranges");
    check.require(tables <= MAX_TABLES, "spec.routeTableRanges", message);
}

fn ordered<const MAX: i64>(check: &mut Check, range: RouteTables<MAX>, at: &str) {
    let (min, max) = (range.min.get(), range.max.get());
    check.require(
        min <= max,
        format_args!("{at}.max"),
        format_args!("{max} is below min, {min}; write the lower table as min"),
    );
}
