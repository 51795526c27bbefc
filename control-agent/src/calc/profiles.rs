//! The profiles that the node's endpoints name.

use super::{Resources, endpoints::Local, ip_sets::IpSets, rules};
use crate::model::Profile;
use margay_api::dataplane::v1 as api;
use std::collections::{BTreeMap, BTreeSet};

/// The profiles that endpoints of `local` name. One that does not exist denies.
pub(super) fn profiles(
    resources: &Resources,
    local: &Local<'_>,
    ip_sets: &mut IpSets<'_>,
    problems: &mut Vec<String>,
) -> BTreeMap<String, api::Profile> {
    let names: BTreeSet<&String> = local.profiles().collect();
    let mut profiles = BTreeMap::new();
    for name in names {
        let Some(profile) = resources.get::<Profile>("", name) else {
            problems.push(format!(
                "profile {name:?} does not exist: endpoints that name it are denied what reaches it"
            ));
            profiles.insert(name.clone(), closed(name));
            continue;
        };
        let mut direction = |rules| rules::convert(rules, None, ip_sets);
        let message = match (direction(&profile.spec.ingress), direction(&profile.spec.egress)) {
            (Ok(inbound_rules), Ok(outbound_rules)) => {
                api::Profile { name: name.clone(), inbound_rules, outbound_rules }
            }
            (Err(error), _) | (_, Err(error)) => {
                problems
                    .push(format!("profile {name:?} denies everything, as it cannot be converted: {error}"));
                closed(name)
            }
        };
        profiles.insert(name.clone(), message);
    }
    profiles
}

fn closed(name: &str) -> api::Profile {
    api::Profile {
        name: name.to_owned(),
        inbound_rules: rules::deny_all(),
        outbound_rules: rules::deny_all(),
    }
}
