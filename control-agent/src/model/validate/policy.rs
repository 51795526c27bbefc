//! Policies, tiers and profiles.

use super::{Check, rule};
use crate::model::{
    GlobalNetworkPolicySpec, NetworkPolicySpec, PolicyType, ProfileSpec, Rule, Staged, StagedAction, Tier,
};

/// Of each direction of a policy or profile.
const MAX_RULES: usize = 1024;

pub(super) fn namespaced(check: &mut Check, spec: &NetworkPolicySpec) {
    check.optional_name(&spec.tier, "spec.tier");
    check.selector_without_global(&spec.selector, "spec.selector");
    check.selector_without_global(&spec.service_account_selector, "spec.serviceAccountSelector");
    check.unique(&spec.types, "spec.types");
    check.unique(&spec.performance_hints, "spec.performanceHints");
    rules(check, &spec.ingress, &spec.egress);
}

pub(super) fn global(check: &mut Check, spec: &GlobalNetworkPolicySpec) {
    check.optional_name(&spec.tier, "spec.tier");
    check.selector_without_global(&spec.selector, "spec.selector");
    check.selector_without_global(&spec.service_account_selector, "spec.serviceAccountSelector");
    check.selector_without_global(&spec.namespace_selector, "spec.namespaceSelector");
    check.unique(&spec.types, "spec.types");
    check.unique(&spec.performance_hints, "spec.performanceHints");
    check.require(
        !(spec.do_not_track && spec.pre_dnat),
        "spec.preDNAT",
        "true, and so is spec.doNotTrack; a policy can be at most one of them",
    );
    check.require(
        spec.apply_on_forward || !(spec.do_not_track || spec.pre_dnat),
        "spec.applyOnForward",
        "false; doNotTrack and preDNAT judge forwarded traffic too, so set it to true",
    );
    if spec.pre_dnat {
        check.require(
            spec.egress.is_empty(),
            "spec.egress",
            "a preDNAT policy has no egress rules; remove them",
        );
        let egress = spec.types.contains(&PolicyType::Egress);
        check.require(!egress, "spec.types", "a preDNAT policy is for Ingress only; remove Egress");
    }
    rules(check, &spec.ingress, &spec.egress);
    let anywhere = "must name a namespace, since a global policy has none of its own";
    for (i, r) in spec.ingress.iter().enumerate() {
        let known = r.source.services.as_ref().is_none_or(|s| !s.namespace.is_empty());
        check.require(known, format_args!("spec.ingress[{i}].source.services.namespace"), anywhere);
    }
    for (i, r) in spec.egress.iter().enumerate() {
        let known = r.destination.services.as_ref().is_none_or(|s| !s.namespace.is_empty());
        check.require(known, format_args!("spec.egress[{i}].destination.services.namespace"), anywhere);
    }
}

pub(super) fn staged(check: &mut Check, spec: &Staged<NetworkPolicySpec>) {
    let policy = &spec.policy;
    let tier_alone = NetworkPolicySpec { tier: policy.tier.clone(), ..NetworkPolicySpec::default() };
    match spec.action() {
        StagedAction::Delete => only_a_tier(check, *policy == tier_alone, &policy.tier),
        _ => namespaced(check, policy),
    }
}

pub(super) fn staged_global(check: &mut Check, spec: &Staged<GlobalNetworkPolicySpec>) {
    let policy = &spec.policy;
    let tier_alone =
        GlobalNetworkPolicySpec { tier: policy.tier.clone(), ..GlobalNetworkPolicySpec::default() };
    match spec.action() {
        StagedAction::Delete => only_a_tier(check, *policy == tier_alone, &policy.tier),
        _ => global(check, policy),
    }
}

fn only_a_tier(check: &mut Check, so: bool, tier: &str) {
    check.require(so, "spec", "a policy that deletes has a stagedAction and a tier; remove the rest");
    check.optional_name(tier, "spec.tier");
}

pub(super) fn profile(check: &mut Check, spec: &ProfileSpec) {
    rules(check, &spec.ingress, &spec.egress);
    check.labels(&spec.labels_to_apply, "spec.labelsToApply");
}

pub(super) fn tier(check: &mut Check, tier: &Tier) {
    let name = &tier.metadata.name;
    let Some((order, action)) = Tier::fixed(name) else { return };
    let given = tier.spec.order.map_or("no order".to_owned(), |o| o.to_string());
    check.require(
        tier.spec.order == Some(order),
        "spec.order",
        format_args!("{given}; the built-in tier {name} must have order {order}"),
    );
    check.require(
        tier.default_action() == action,
        "spec.defaultAction",
        format_args!(
            "{:?}; the built-in tier {name} must have default action {action:?}",
            tier.default_action()
        ),
    );
}

fn rules(check: &mut Check, ingress: &[Rule], egress: &[Rule]) {
    check.at_most(ingress, MAX_RULES, "spec.ingress");
    check.at_most(egress, MAX_RULES, "spec.egress");
    for (i, r) in ingress.iter().enumerate() {
        let at = format!("spec.ingress[{i}]");
        rule::rule(check, r, &at);
        check.require(
            r.destination.services.is_none(),
            format_args!("{at}.destination.services"),
            "an ingress rule matches services at its source only; move it there",
        );
    }
    for (i, r) in egress.iter().enumerate() {
        let at = format!("spec.egress[{i}]");
        rule::rule(check, r, &at);
        check.require(
            r.source.services.is_none(),
            format_args!("{at}.source.services"),
            "an egress rule matches services at its destination only; move it there",
        );
        check.require(
            r.http.is_none(),
            format_args!("{at}.http"),
            "HTTP is matched where it arrives; use an ingress rule of the server",
        );
    }
}
