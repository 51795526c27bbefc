//! Names, namespaces, labels and annotations.

use super::Check;
use super::text::{MAX_LABEL, MAX_SUBDOMAIN, bad_name, is_label, is_subdomain};
use crate::model::{Kind, Metadata};

pub(super) fn metadata(check: &mut Check, kind: Kind, metadata: &Metadata) {
    name(check, kind, &metadata.name);
    let namespace = &metadata.namespace;
    if !namespace.is_empty() && !kind.is_namespaced() {
        let message = format!("{namespace:?} given, but objects of kind {kind} have no namespace; remove it");
        check.error("metadata.namespace", message);
    } else if !namespace.is_empty() && (namespace.len() > MAX_LABEL || !is_label(namespace)) {
        let message = format!(
            "{namespace:?} is not a namespace; use up to {MAX_LABEL} lower case letters, digits and '-', with a \
             letter or digit at both ends"
        );
        check.error("metadata.namespace", message);
    }
    check.labels(&metadata.labels, "metadata.labels");
    check.annotations(&metadata.annotations, "metadata.annotations");
}

fn name(check: &mut Check, kind: Kind, name: &str) {
    let field = "metadata.name";
    let (max, shape_ok, shape) = match kind {
        // Tiers are parts of other names.
        Kind::Tier => (MAX_LABEL, !name.contains('.'), "the name of a tier has none"),
        Kind::GlobalNetworkPolicy | Kind::StagedGlobalNetworkPolicy => {
            (MAX_SUBDOMAIN, has_policy_shape(name), POLICY_SHAPE)
        }
        Kind::NetworkPolicy | Kind::StagedNetworkPolicy => {
            (MAX_SUBDOMAIN, has_policy_shape(name) || is_converted(name), POLICY_SHAPE)
        }
        _ => (MAX_SUBDOMAIN, true, ""),
    };
    if name.is_empty() {
        check.error(field, format_args!("missing; give the {kind} a name"));
    } else if name.len() > max {
        check.error(field, format_args!("{} bytes; names of kind {kind} have at most {max}", name.len()));
    } else if !is_subdomain(name) {
        check.error(field, bad_name(name));
    } else if !shape_ok {
        check.error(field, format_args!("{name:?} has too many dots; {shape}"));
    }
}

const POLICY_SHAPE: &str = "a policy's name is \"name\" or \"tier.name\"";

/// At most one dot, after the tier.
fn has_policy_shape(name: &str) -> bool {
    name.bytes().filter(|b| *b == b'.').count() <= 1
}

/// What conversion from Kubernetes or OpenStack makes.
fn is_converted(name: &str) -> bool {
    ["knp.default.", "ossg.default."].iter().any(|p| name.starts_with(p))
}
