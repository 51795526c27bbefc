//! BGP: settings, peers and filters.

use super::Check;
use super::text::{bad_name, is_subdomain};
use crate::model::scalar::{AnyCommunity, AsNumber};
use crate::model::{
    BgpConfigurationSpec, BgpFilterAction, BgpFilterOperation, BgpFilterRule, BgpFilterSpec, BgpPeerSpec,
    ServiceBlock,
};

/// Of one rule of a filter, and of one path to prepend.
const MAX_CHANGES: usize = 10;

pub(super) fn configuration(check: &mut Check, spec: &BgpConfigurationSpec) {
    let blocks = |list: &Option<Vec<ServiceBlock>>| list.clone().unwrap_or_default();
    check.unique(&blocks(&spec.service_cluster_ips), "spec.serviceClusterIPs");
    check.unique(&blocks(&spec.service_external_ips), "spec.serviceExternalIPs");
    check.unique(&blocks(&spec.service_load_balancer_ips), "spec.serviceLoadBalancerIPs");
    check.unique(spec.ignored_interfaces.as_deref().unwrap_or_default(), "spec.ignoredInterfaces");
    communities(check, spec);
    if spec.node_to_node_mesh_enabled == Some(false) {
        let off = "is for the mesh of nodes, which nodeToNodeMeshEnabled switches off; remove one of them";
        check.require(spec.node_mesh_password.is_none(), "spec.nodeMeshPassword", off);
        check.require(spec.node_mesh_max_restart_time.is_none(), "spec.nodeMeshMaxRestartTime", off);
    }
}

fn communities(check: &mut Check, spec: &BgpConfigurationSpec) {
    let named = spec.communities.as_deref().unwrap_or_default();
    let advertised = spec.prefix_advertisements.as_deref().unwrap_or_default();
    for (i, community) in named.iter().enumerate() {
        let name = &community.name;
        check.require(is_subdomain(name), format_args!("spec.communities[{i}].name"), bad_name(name));
    }
    check.unique(named, "spec.communities");
    check.require(
        named.is_empty() || !advertised.is_empty(),
        "spec.communities",
        "used by nothing; name them in prefixAdvertisements, or remove them",
    );
    check.unique(advertised, "spec.prefixAdvertisements");
    for (i, prefix) in advertised.iter().enumerate() {
        let field = format!("spec.prefixAdvertisements[{i}].communities");
        check.require(!prefix.communities.is_empty(), &field, "missing; give one community at least");
        for (j, community) in prefix.communities.iter().enumerate() {
            if let AnyCommunity::Name(name) = community {
                let known = named.iter().any(|c| c.name == *name);
                let message = format_args!(
                    "{name:?} is no community; write aa:nn or aa:nn:mm, or give it in communities"
                );
                check.require(known, format_args!("{field}[{j}]"), message);
            }
        }
    }
}

pub(super) fn peer(check: &mut Check, spec: &BgpPeerSpec) {
    check.optional_name(spec.node.as_deref().unwrap_or_default(), "spec.node");
    for (selector, field) in [
        (&spec.node_selector, "spec.nodeSelector"),
        (&spec.peer_selector, "spec.peerSelector"),
        (&spec.local_workload_selector, "spec.localWorkloadSelector"),
    ] {
        if let Some(selector) = selector {
            check.selector(selector, field);
        }
    }
    let numbered = spec.as_number.is_some_and(|n| n != AsNumber::new(0));
    let peers = spec.peer_selector.is_some();
    let workloads = spec.local_workload_selector.is_some();
    let apart = [
        (spec.node.is_some(), spec.node_selector.is_some(), "node", "nodeSelector"),
        (spec.peer_ip.is_some(), peers, "peerIP", "peerSelector"),
        (numbered, peers, "asNumber", "peerSelector"),
        (spec.peer_ip.is_some(), workloads, "peerIP", "localWorkloadSelector"),
        (peers, workloads, "peerSelector", "localWorkloadSelector"),
        (
            spec.keep_original_next_hop == Some(true),
            spec.next_hop_mode.is_some(),
            "keepOriginalNextHop",
            "nextHopMode",
        ),
    ];
    for (one, other, field, other_field) in apart {
        let message = format_args!("cannot be combined with {other_field}; remove one of them");
        check.require(!(one && other), format_args!("spec.{field}"), message);
    }
    check.require(
        !workloads || numbered,
        "spec.asNumber",
        "missing; give the AS of localWorkloadSelector's peers",
    );
    if let Some(gateway) = spec.reachable_by {
        match spec.peer_ip {
            None => check.error("spec.reachableBy", "is the gateway to peerIP; give that, or remove it"),
            Some(peer) => {
                let message =
                    format_args!("{gateway} and peerIP, {}, are of different IP versions", peer.addr);
                check.require(gateway.is_ipv4() == peer.addr.is_ipv4(), "spec.reachableBy", message);
            }
        }
    }
}

pub(super) fn filter(check: &mut Check, spec: &BgpFilterSpec) {
    rules(check, &spec.export_v4, "exportV4", false);
    rules(check, &spec.import_v4, "importV4", true);
    rules(check, &spec.export_v6, "exportV6", false);
    rules(check, &spec.import_v6, "importV6", true);
}

fn rules<const MAX: i64>(
    check: &mut Check,
    rules: &Option<Vec<BgpFilterRule<MAX>>>,
    field: &str,
    import: bool,
) {
    for (i, rule) in rules.iter().flatten().enumerate() {
        self::rule(check, rule, &format!("spec.{field}[{i}]"));
        check.require(
            !import || rule.source.is_none(),
            format_args!("spec.{field}[{i}].source"),
            "is for export only: what is imported comes from peers; remove it",
        );
    }
}

fn rule<const MAX: i64>(check: &mut Check, rule: &BgpFilterRule<MAX>, at: &str) {
    match rule.cidr {
        Some(cidr) => {
            let (v4, family) = if MAX == 32 { (true, "IPv4") } else { (false, "IPv6") };
            let message = format_args!("{cidr} is not {family}; use the rules of its own family");
            check.require(cidr.is_v4() == v4, format_args!("{at}.cidr"), message);
            check.require(
                rule.match_operator.is_some(),
                format_args!("{at}.matchOperator"),
                "missing; say how cidr is compared: Equal, NotEqual, In or NotIn",
            );
        }
        None => {
            let missing = "needs a cidr to compare with; add it";
            check.require(rule.match_operator.is_none(), format_args!("{at}.matchOperator"), missing);
            check.require(rule.prefix_length.is_none(), format_args!("{at}.prefixLength"), missing);
        }
    }
    if let Some(communities) = &rule.communities {
        let n = communities.values.len();
        check.require(
            n == 1,
            format_args!("{at}.communities.values"),
            format_args!("{n} communities; give exactly one"),
        );
    }
    check.require(
        rule.operations.is_empty() || rule.action == BgpFilterAction::Accept,
        format_args!("{at}.operations"),
        "change routes that are accepted only; set action to Accept or remove them",
    );
    check.at_most(&rule.operations, MAX_CHANGES, format_args!("{at}.operations"));
    for (i, operation) in rule.operations.iter().enumerate() {
        self::operation(check, operation, &format!("{at}.operations[{i}]"));
    }
}

fn operation(check: &mut Check, operation: &BgpFilterOperation, at: &str) {
    let BgpFilterOperation { add_community, prepend_as_path, set_priority } = operation;
    let given = [add_community.is_some(), prepend_as_path.is_some(), set_priority.is_some()];
    let n = given.into_iter().filter(|given| *given).count();
    let message =
        format_args!("{n} operations; give exactly one of addCommunity, prependASPath and setPriority");
    check.require(n == 1, at, message);
    if let Some(path) = prepend_as_path {
        let field = format!("{at}.prependASPath.prefix");
        check.require(!path.prefix.is_empty(), &field, "empty; give one AS at least");
        check.at_most(&path.prefix, MAX_CHANGES, field);
    }
}
