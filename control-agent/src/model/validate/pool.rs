//! IP pools.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Check;
use crate::model::{AllowedUse, Cidr, EncapMode, IpPoolSpec};

pub(super) fn pool(check: &mut Check, spec: &IpPoolSpec) {
    let cidr = spec.cidr;
    let link_local = [
        Cidr::truncate(IpAddr::V4(Ipv4Addr::new(169, 254, 0, 0)), 16),
        Cidr::truncate(IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0)), 10),
    ];
    for net in link_local {
        let message = format_args!("{cidr} overlaps {net}, which is link-local; choose another prefix");
        check.require(!cidr.overlaps(net), "spec.cidr", message);
    }
    blocks(check, spec);
    let tunnels = |mode: Option<EncapMode>| mode.is_some_and(|m| m != EncapMode::Never);
    let (ipip, vxlan) = (tunnels(spec.ipip_mode), tunnels(spec.vxlan_mode));
    check.require(cidr.is_v4() || !ipip, "spec.ipipMode", "IPIP carries IPv4 only; set it to Never");
    check.require(!(ipip && vxlan), "spec.ipipMode", "a pool has IPIP or VXLAN, not both; set one to Never");
    check.selector_without_global(&spec.node_selector, "spec.nodeSelector");
    check.selector_without_global(&spec.namespace_selector, "spec.namespaceSelector");
    uses(check, spec, ipip || vxlan);
}

fn blocks(check: &mut Check, spec: &IpPoolSpec) {
    let (cidr, size) = (spec.cidr, spec.block_size());
    let allowed = if cidr.is_v4() { 20..=32 } else { 116..=128 };
    let (min, max) = (allowed.start(), allowed.end());
    let message = format_args!("{size}; the blocks of this pool are /{min} to /{max}");
    check.require(allowed.contains(&size), "spec.blockSize", message);
    let message = format_args!("{cidr} is smaller than one block of /{size}; widen it or set spec.blockSize");
    check.require(spec.disabled || cidr.len() <= size, "spec.cidr", message);
}

fn uses(check: &mut Check, spec: &IpPoolSpec, tunnels: bool) {
    let used = |u| spec.allowed_uses.contains(&u);
    if used(AllowedUse::LoadBalancer) {
        let alone = spec.allowed_uses.iter().all(|u| *u == AllowedUse::LoadBalancer);
        check.require(
            alone,
            "spec.allowedUses",
            "LoadBalancer cannot be combined with other uses; make two pools",
        );
        check.require(
            !tunnels,
            "spec.allowedUses",
            "a LoadBalancer pool has no tunnels; set ipipMode and vxlanMode to Never",
        );
        let exported = "a LoadBalancer pool must be announced; set it to false";
        check.require(!spec.disable_bgp_export, "spec.disableBGPExport", exported);
        let everywhere = spec.node_selector == "all()";
        check.require(
            everywhere,
            "spec.nodeSelector",
            "a LoadBalancer pool is for all nodes; set it to all()",
        );
        let services = spec.namespace_selector.is_empty();
        check.require(
            services,
            "spec.namespaceSelector",
            "a LoadBalancer pool is for all namespaces; remove it",
        );
    }
    if used(AllowedUse::Tunnel) {
        let nodes = spec.namespace_selector.is_empty();
        check.require(
            nodes,
            "spec.namespaceSelector",
            "tunnels have no namespace; remove it or the use Tunnel",
        );
    }
}
