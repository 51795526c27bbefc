//! The profiles that the node's endpoints name.

use super::{Resources, endpoints::Local, ip_sets::Wanted, rules};
use crate::model::Profile;
use margay_api::dataplane::v1 as api;
use std::collections::{BTreeMap, BTreeSet};

/// The profiles that endpoints of `local` name. One that does not exist denies.
pub(super) fn profiles(
    resources: &Resources,
    local: &Local<'_>,
    wanted: &mut Wanted,
    problems: &mut Vec<String>,
) -> BTreeMap<String, api::Profile> {
    let names: BTreeSet<&String> = local.profiles().collect();
    names.into_iter().map(|name| (name.clone(), profile(resources, name, wanted, problems))).collect()
}

/// One that an endpoint names.
pub(super) fn profile(
    resources: &Resources,
    name: &str,
    wanted: &mut Wanted,
    problems: &mut Vec<String>,
) -> api::Profile {
    let Some(profile) = resources.get::<Profile>("", name) else {
        problems.push(format!(
            "profile {name:?} does not exist: endpoints that name it are denied what reaches it"
        ));
        return closed(name);
    };
    let mut direction = |rules| rules::convert(rules, None, wanted);
    match (direction(&profile.spec.ingress), direction(&profile.spec.egress)) {
        (Ok(inbound_rules), Ok(outbound_rules)) => {
            api::Profile { name: name.to_owned(), inbound_rules, outbound_rules }
        }
        (Err(error), _) | (_, Err(error)) => {
            problems.push(format!("profile {name:?} denies everything, as it cannot be converted: {error}"));
            closed(name)
        }
    }
}

fn closed(name: &str) -> api::Profile {
    api::Profile {
        name: name.to_owned(),
        inbound_rules: rules::deny_all(),
        outbound_rules: rules::deny_all(),
    }
}
