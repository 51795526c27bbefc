//! Staged policies.

use super::*;

fn staged(kind: &str, name: &str, spec: &str) -> String {
    let namespace = if kind == "GlobalNetworkPolicy" { "" } else { ", namespace: shop" };
    format!(
        "apiVersion: projectcalico.org/v3\nkind: Staged{kind}\nmetadata: {{name: {name}{namespace}}}\nspec: {{{spec}}}\n"
    )
}

/// "tier: kind name, ..." of each tier, for ingress.
fn would_be(desired: &Desired, workload: &str) -> Vec<String> {
    let text = |tier: &TierBinding| {
        let names = tier.ingress_policies.iter().map(|id| format!("{} {}", id.kind, id.name));
        format!("{}: {}", tier.name, names.collect::<Vec<_>>().join(", "))
    };
    endpoint(desired, workload).staged_tiers.iter().map(text).collect()
}

const WEB: &str = "selector: app == 'web'";

#[test]
fn a_staged_policy_is_bound_beside_those_in_force() {
    let desired = on(
        "a",
        &[
            &policy("NetworkPolicy", "a", &format!("{WEB}, order: 1, ingress: [{{action: Allow}}]")),
            &policy("NetworkPolicy", "c", &format!("{WEB}, order: 3, ingress: [{{action: Allow}}]")),
            &staged("NetworkPolicy", "b", &format!("{WEB}, order: 2, ingress: [{{action: Deny}}]")),
        ],
    );
    assert_eq!(tiers(&desired, "shop/web")[0].1, ["a", "c"], "nothing staged is in force");
    let wanted = "default: NetworkPolicy a, StagedNetworkPolicy b, NetworkPolicy c";
    assert_eq!(would_be(&desired, "shop/web"), [wanted]);
    assert!(would_be(&desired, "shop/db").is_empty(), "nothing changes there");
    assert_eq!(["a", "b", "c"].map(|name| named(&desired, name).staged), [false, true, false]);
}

#[test]
fn only_staged_policies_leave_a_tier_without_a_say() {
    let desired = on("a", &[&staged("GlobalNetworkPolicy", "alone", "selector: app == 'web'")]);
    assert!(tiers(&desired, "shop/web").is_empty());
    assert_eq!(would_be(&desired, "shop/web"), ["default: StagedGlobalNetworkPolicy alone"]);
}

#[test]
fn a_staged_policy_stands_for_that_of_its_name() {
    let in_force = policy("NetworkPolicy", "p", &format!("{WEB}, order: 1, ingress: [{{action: Allow}}]"));
    let other = policy("NetworkPolicy", "q", &format!("{WEB}, order: 2, ingress: [{{action: Allow}}]"));
    let with = |action: &str, spec: &str| {
        let staged = staged("NetworkPolicy", "p", &format!("stagedAction: {action}{spec}"));
        on("a", &[&in_force, &other, &staged])
    };
    let same = ", selector: app == 'web', order: 9";
    for action in ["Set", "Learn"] {
        let desired = with(action, same);
        assert_eq!(tiers(&desired, "shop/web")[0].1, ["p", "q"]);
        assert_eq!(would_be(&desired, "shop/web"), ["default: NetworkPolicy q, StagedNetworkPolicy p"]);
    }
    let desired = with("Ignore", same);
    assert!(would_be(&desired, "shop/web").is_empty() && desired.policies.len() == 2);
    let desired = with("Delete", "");
    assert_eq!(would_be(&desired, "shop/web"), ["default: NetworkPolicy q"]);
    assert_eq!(desired.policies.len(), 2, "a deletion is no policy");
    let elsewhere = with("Set", ", selector: app == 'db'");
    assert_eq!(
        would_be(&elsewhere, "shop/web"),
        ["default: NetworkPolicy q"],
        "it would no longer select it"
    );
    assert_eq!(would_be(&elsewhere, "shop/db"), ["default: StagedNetworkPolicy p"]);
}

#[test]
fn what_would_be_left_without_policies_is_not_what_stays_as_it_is() {
    let desired = on(
        "a",
        &[
            &policy("NetworkPolicy", "p", &format!("{WEB}, ingress: [{{action: Allow}}]")),
            &staged("NetworkPolicy", "p", "stagedAction: Delete"),
        ],
    );
    assert_eq!(would_be(&desired, "shop/web"), ["default: "], "a tier without policies, not an empty list");
    assert_eq!(endpoint(&desired, "shop/web").staged_tiers[0].default_action(), Action::Deny);
}

#[test]
fn a_name_is_of_a_kind_and_a_namespace() {
    let desired = on(
        "a",
        &[
            &policy("GlobalNetworkPolicy", "p", &format!("{WEB}, ingress: [{{action: Allow}}]")),
            &staged("NetworkPolicy", "p", "stagedAction: Delete"),
        ],
    );
    assert!(would_be(&desired, "shop/web").is_empty());
}

#[test]
fn a_staged_network_policy_of_kubernetes_stands_for_one() {
    let pods = "podSelector: {matchLabels: {app: web}}";
    let in_force = format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: p, namespace: shop}}\nspec: {{{pods}}}\n"
    );
    let set = staged("KubernetesNetworkPolicy", "p", &format!("stagedAction: Set, {pods}, ingress: [{{}}]"));
    let desired = on("a", &[&in_force, &set]);
    assert_eq!(tiers(&desired, "shop/web")[0].1, ["knp.default.p"]);
    assert_eq!(would_be(&desired, "shop/web"), ["default: StagedNetworkPolicy knp.default.p"]);
    let desired = on("a", &[&in_force, &staged("KubernetesNetworkPolicy", "p", "stagedAction: Delete")]);
    assert_eq!(would_be(&desired, "shop/web"), ["default: "]);
}

#[test]
fn host_endpoints_have_what_would_be_for_their_own_traffic() {
    let host = "apiVersion: projectcalico.org/v3\nkind: HostEndpoint\nmetadata: {name: up, labels: {role: node}}\n\
                spec: {node: a, interfaceName: eth0}\n";
    let forward = "selector: role == 'node', applyOnForward: true, ingress: [{action: Allow}]";
    let desired = on(
        "a",
        &[
            host,
            &policy("GlobalNetworkPolicy", "f", forward),
            &staged("GlobalNetworkPolicy", "f", "stagedAction: Delete"),
        ],
    );
    let up = &desired.host_endpoints["up"];
    assert_eq!((up.tiers.len(), up.forward_tiers.len()), (1, 1));
    assert_eq!((up.staged_tiers.len(), up.staged_tiers[0].ingress_policies.len()), (1, 0));
}
