//! Settings of address management and of controllers, and reports of nodes.

use super::Check;
use crate::model::{
    BlockAffinitySpec, CalicoNodeStatusSpec, HostEndpointTemplate, IpReservationSpec, IpamConfigurationSpec,
    KubeControllersConfigurationSpec,
};

pub(super) fn ipam(check: &mut Check, spec: &IpamConfigurationSpec) {
    let strict = spec.strict_affinity == Some(true);
    check.require(
        strict || spec.auto_allocate_blocks != Some(false),
        "spec.autoAllocateBlocks",
        "false, and strictAffinity is not true, so that nodes only borrow and none has a block; set one of them to true",
    );
    let limited = spec.max_blocks_per_host.is_some_and(|n| n.get() > 0);
    check.require(
        strict || !limited,
        "spec.maxBlocksPerHost",
        "limits nothing while nodes may borrow; set strictAffinity to true, or this to 0",
    );
}

pub(super) fn reservation(check: &mut Check, spec: &IpReservationSpec) {
    check.unique(spec.reserved_cidrs.as_deref().unwrap_or_default(), "spec.reservedCIDRs");
}

pub(super) fn affinity(check: &mut Check, spec: &BlockAffinitySpec) {
    check.require(
        !spec.deleted,
        "spec.deleted",
        "true, which only the system writes; delete the object instead",
    );
}

pub(super) fn node_status(check: &mut Check, spec: &CalicoNodeStatusSpec) {
    check.require(!spec.node.is_empty(), "spec.node", "empty; name a node");
    check.optional_name(&spec.node, "spec.node");
    check.require(
        !spec.classes.is_empty(),
        "spec.classes",
        "empty; give one of Agent, BGP and Routes at least",
    );
    check.unique(&spec.classes, "spec.classes");
}

pub(super) fn controllers(check: &mut Check, spec: &KubeControllersConfigurationSpec) {
    let node = spec.controllers.as_ref().and_then(|controllers| controllers.node.as_ref());
    let templates =
        node.and_then(|node| node.host_endpoint.as_ref()).and_then(|hosts| hosts.templates.as_ref());
    for (i, template) in templates.into_iter().flatten().enumerate() {
        self::template(check, template, &format!("spec.controllers.node.hostEndpoint.templates[{i}]"));
    }
}

fn template(check: &mut Check, template: &HostEndpointTemplate, at: &str) {
    check.optional_name(
        template.generate_name.as_deref().unwrap_or_default(),
        format_args!("{at}.generateName"),
    );
    if let Some(labels) = &template.labels {
        check.labels(labels, format_args!("{at}.labels"));
    }
    if let Some(annotations) = &template.annotations {
        check.annotations(annotations, format_args!("{at}.annotations"));
    }
    if let Some(selector) = &template.node_selector {
        check.selector(selector, format_args!("{at}.nodeSelector"));
    }
}
