//! What an object leaves unsaid, said. Idempotent; never changes what was written.

use super::kinds::{AllowedUse, AssignmentMode, EncapMode, IpPoolSpec, StagedAction, Tier, TierAction};
use super::resource::Resource;
use super::rule::{PolicyType, Rule};

/// The namespace of a namespaced object that names none.
const NAMESPACE: &str = "default";

/// Makes explicit what is implied.
pub(super) fn set(resource: &mut Resource) {
    if resource.kind().is_namespaced() {
        default_text(&mut resource.metadata_mut().namespace, NAMESPACE);
    }
    match resource {
        Resource::NetworkPolicy(policy) => {
            let spec = &mut policy.spec;
            default_text(&mut spec.tier, Tier::DEFAULT);
            default_types(&mut spec.types, &spec.ingress, &spec.egress);
        }
        Resource::GlobalNetworkPolicy(policy) => {
            let spec = &mut policy.spec;
            default_text(&mut spec.tier, Tier::DEFAULT);
            default_types(&mut spec.types, &spec.ingress, &spec.egress);
        }
        Resource::StagedNetworkPolicy(staged) => {
            let action = *staged.spec.action.get_or_insert_default();
            let spec = &mut staged.spec.policy;
            default_text(&mut spec.tier, Tier::DEFAULT);
            if action != StagedAction::Delete {
                default_types(&mut spec.types, &spec.ingress, &spec.egress);
            }
        }
        Resource::StagedGlobalNetworkPolicy(staged) => {
            let action = *staged.spec.action.get_or_insert_default();
            let spec = &mut staged.spec.policy;
            default_text(&mut spec.tier, Tier::DEFAULT);
            if action != StagedAction::Delete {
                default_types(&mut spec.types, &spec.ingress, &spec.egress);
            }
        }
        Resource::Tier(tier) => default_tier(tier),
        Resource::IPPool(pool) => default_pool(&mut pool.spec),
        Resource::FelixConfiguration(_)
        | Resource::Node(_)
        | Resource::Profile(_)
        | Resource::NetworkSet(_)
        | Resource::GlobalNetworkSet(_)
        | Resource::WorkloadEndpoint(_)
        | Resource::HostEndpoint(_)
        | Resource::ClusterInformation(_)
        | Resource::BGPConfiguration(_)
        | Resource::KubeControllersConfiguration(_)
        | Resource::IPAMConfiguration(_)
        | Resource::BGPFilter(_)
        | Resource::BGPPeer(_)
        | Resource::IPReservation(_)
        | Resource::BlockAffinity(_)
        | Resource::IPAMBlock(_)
        | Resource::IPAMHandle(_)
        | Resource::CalicoNodeStatus(_)
        | Resource::Kubernetes(_) => {}
    }
}

fn default_text(field: &mut String, text: &str) {
    if field.is_empty() {
        text.clone_into(field);
    }
}

/// No egress rules: ingress, even if there are no rules at all. Only egress rules: egress.
fn default_types(types: &mut Vec<PolicyType>, ingress: &[Rule], egress: &[Rule]) {
    if types.is_empty() {
        if !ingress.is_empty() || egress.is_empty() {
            types.push(PolicyType::Ingress);
        }
        if !egress.is_empty() {
            types.push(PolicyType::Egress);
        }
    }
}

fn default_tier(tier: &mut Tier) {
    let (order, action) = match Tier::fixed(&tier.metadata.name) {
        Some((order, action)) => (Some(order), action),
        None => (None, TierAction::Deny),
    };
    tier.spec.order = tier.spec.order.or(order);
    tier.spec.default_action.get_or_insert(action);
}

fn default_pool(pool: &mut IpPoolSpec) {
    pool.block_size = Some(pool.block_size());
    pool.ipip_mode.get_or_insert(EncapMode::Never);
    pool.vxlan_mode.get_or_insert(EncapMode::Never);
    pool.assignment_mode.get_or_insert(AssignmentMode::Automatic);
    default_text(&mut pool.node_selector, "all()");
    if pool.allowed_uses.is_empty() {
        pool.allowed_uses.push(AllowedUse::Workload);
        // Tunnels belong to nodes, which are in no namespace.
        if pool.namespace_selector.is_empty() {
            pool.allowed_uses.push(AllowedUse::Tunnel);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::load;

    fn defaulted(yaml: &str) -> Resource {
        let mut resource = load(yaml).unwrap().remove(0);
        resource.set_defaults();
        let once = resource.clone();
        resource.set_defaults();
        assert_eq!(resource, once, "defaulting twice changes nothing");
        resource
    }

    #[test]
    fn types_follow_from_the_rules() {
        use PolicyType::{Egress, Ingress};
        let cases: [(&str, &[PolicyType]); 5] = [
            ("{}", &[Ingress]),
            ("{ingress: [{action: Allow}]}", &[Ingress]),
            ("{egress: [{action: Allow}]}", &[Egress]),
            ("{ingress: [{action: Allow}], egress: [{action: Allow}]}", &[Ingress, Egress]),
            ("{types: [Egress], ingress: [{action: Allow}]}", &[Egress]),
        ];
        for (spec, types) in cases {
            let header = "apiVersion: projectcalico.org/v3\nmetadata: {name: p}";
            let Resource::NetworkPolicy(p) =
                defaulted(&format!("{header}\nkind: NetworkPolicy\nspec: {spec}"))
            else {
                panic!("another kind")
            };
            assert_eq!(p.spec.types, types, "{spec}");
            assert_eq!((p.metadata.namespace.as_str(), p.spec.tier.as_str()), ("default", "default"));
            let Resource::GlobalNetworkPolicy(p) =
                defaulted(&format!("{header}\nkind: GlobalNetworkPolicy\nspec: {spec}"))
            else {
                panic!("another kind")
            };
            assert_eq!(p.spec.types, types, "{spec}");
            assert_eq!((p.metadata.namespace.as_str(), p.spec.tier.as_str()), ("", "default"));
        }
    }

    #[test]
    fn built_in_tiers_are_filled_in_as_they_must_be() {
        for tier in Tier::built_in() {
            let name = &tier.metadata.name;
            let written =
                format!("{{apiVersion: projectcalico.org/v3, kind: Tier, metadata: {{name: {name}}}}}");
            assert_eq!(defaulted(&written), Resource::Tier(tier.clone()));
            assert!(Tier::is_built_in(name));
        }
        assert!(!Tier::is_built_in("security"));
    }

    #[test]
    fn a_pool_says_what_it_is() {
        let Resource::IPPool(p) = defaulted(
            "{apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: p}, spec: {cidr: 'fd00::/64'}}",
        ) else {
            panic!("another kind")
        };
        assert_eq!(p.spec.block_size, Some(122));
        assert_eq!(p.spec.ipip_mode, Some(EncapMode::Never));
        assert_eq!(p.spec.allowed_uses, [AllowedUse::Workload, AllowedUse::Tunnel]);
    }

    #[test]
    fn a_block_size_of_0_is_none() {
        let pool = |size: &str| {
            load(&format!(
                "{{apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {{name: p}}, spec: {{cidr: 10.0.0.0/16{size}}}}}"
            ))
        };
        assert_eq!(pool(", blockSize: 0").unwrap(), pool("").unwrap());
    }
}
