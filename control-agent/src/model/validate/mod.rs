//! What Calico accepts: the same objects valid, the same invalid, and every error at once.
//!
//! Formats (an address, a port, an action) are checked where the text is read, by the types; here
//! are the rules between fields, between an object and its name, and the limits of sizes.

mod bgp;
mod endpoint;
mod felix;
mod names;
mod policy;
mod pool;
mod rule;
mod settings;
mod text;

use std::collections::BTreeMap;
use std::fmt;

pub(in crate::model) use text::{bad_label_key, bad_label_value, is_label};

use super::resource::Resource;
use super::selector::{self, Selector};

/// What is wrong with one field, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct FieldError {
    /// As in `spec.ingress[0].source.ports[2]`.
    pub field: String,
    /// One sentence with the value and the remedy.
    pub message: String,
}

impl FieldError {
    pub(super) fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}

/// Everything that is wrong, in the order of the fields.
pub(super) fn resource(resource: &Resource) -> Vec<FieldError> {
    let mut check = Check { errors: Vec::new() };
    names::metadata(&mut check, resource.kind(), resource.metadata());
    match resource {
        Resource::FelixConfiguration(f) => felix::felix(&mut check, &f.spec),
        Resource::NetworkPolicy(p) => policy::namespaced(&mut check, &p.spec),
        Resource::GlobalNetworkPolicy(p) => policy::global(&mut check, &p.spec),
        Resource::StagedNetworkPolicy(p) => policy::staged(&mut check, &p.spec),
        Resource::StagedGlobalNetworkPolicy(p) => policy::staged_global(&mut check, &p.spec),
        Resource::Tier(t) => policy::tier(&mut check, t),
        Resource::Profile(p) => policy::profile(&mut check, &p.spec),
        Resource::NetworkSet(s) => endpoint::network_set(&mut check, &s.metadata),
        Resource::GlobalNetworkSet(s) => endpoint::network_set(&mut check, &s.metadata),
        Resource::WorkloadEndpoint(w) => endpoint::workload(&mut check, &w.spec),
        Resource::HostEndpoint(h) => endpoint::host(&mut check, &h.spec),
        Resource::BGPConfiguration(b) => bgp::configuration(&mut check, &b.spec),
        Resource::BGPPeer(b) => bgp::peer(&mut check, &b.spec),
        Resource::BGPFilter(b) => bgp::filter(&mut check, &b.spec),
        Resource::IPAMConfiguration(i) => settings::ipam(&mut check, &i.spec),
        Resource::IPReservation(i) => settings::reservation(&mut check, &i.spec),
        Resource::BlockAffinity(b) => settings::affinity(&mut check, &b.spec),
        Resource::CalicoNodeStatus(n) => settings::node_status(&mut check, &n.spec),
        Resource::KubeControllersConfiguration(k) => settings::controllers(&mut check, &k.spec),
        Resource::ClusterInformation(_) | Resource::IPAMBlock(_) | Resource::IPAMHandle(_) => {}
        Resource::Node(n) => endpoint::node(&mut check, n),
        Resource::Kubernetes(object) => check.errors.extend(object.validate()),
        Resource::IPPool(p) => pool::pool(&mut check, &p.spec),
    }
    check.errors
}

/// Gathers errors.
struct Check {
    errors: Vec<FieldError>,
}

impl Check {
    fn error(&mut self, field: impl fmt::Display, message: impl fmt::Display) {
        self.errors.push(FieldError { field: field.to_string(), message: message.to_string() });
    }

    fn require(&mut self, ok: bool, field: impl fmt::Display, message: impl fmt::Display) {
        if !ok {
            self.error(field, message);
        }
    }

    fn at_most<T>(&mut self, list: &[T], max: usize, field: impl fmt::Display) {
        let n = list.len();
        self.require(n <= max, field, format_args!("{n} entries; at most {max} are allowed, split it"));
    }

    fn unique<T: PartialEq + fmt::Debug>(&mut self, list: &[T], field: impl fmt::Display) {
        for (i, entry) in list.iter().enumerate() {
            if list[..i].contains(entry) {
                self.error(&field, format_args!("{entry:?} is listed more than once; list it once"));
            }
        }
    }

    /// An object's or a node's name, where one is given.
    fn optional_name(&mut self, name: &str, field: impl fmt::Display) {
        if !name.is_empty() {
            self.require(text::is_subdomain(name), field, text::bad_name(name));
        }
    }

    /// A selector, where one is given.
    fn selector(&mut self, text: &str, field: impl fmt::Display) -> Option<Selector> {
        if text.len() > selector::MAX_LENGTH {
            let message = format!("{} bytes; a selector has at most {}", text.len(), selector::MAX_LENGTH);
            self.error(field, message);
            return None;
        }
        match Selector::parse(text) {
            Ok(selector) => Some(selector),
            Err(e) => {
                self.error(field, format_args!("{text:?} is not a selector: {e}"));
                None
            }
        }
    }

    /// A selector that may not ask for what has no namespace.
    fn selector_without_global(&mut self, text: &str, field: impl fmt::Display) {
        if self.selector(text, &field).is_some_and(|s| s.mentions_global()) {
            self.error(
                field,
                "global() may only stand, alone, in the namespaceSelector of a rule's source or destination",
            );
        }
    }

    fn labels(&mut self, labels: &BTreeMap<String, String>, field: impl fmt::Display) {
        for (key, value) in labels {
            if let Some(why) = text::bad_label_key(key) {
                self.error(&field, why);
            }
            if let Some(why) = text::bad_label_value(value) {
                self.error(format_args!("{field}[{key:?}]"), why);
            }
        }
    }

    fn annotations(&mut self, annotations: &BTreeMap<String, String>, field: impl fmt::Display) {
        /// Of keys and values together, as in Kubernetes.
        const MAX_BYTES: usize = 256 * 1024;
        for key in annotations.keys() {
            // Upper case is allowed in the prefix too, unlike in labels.
            if let Some(why) = text::bad_label_key(&key.to_ascii_lowercase()) {
                self.error(&field, why);
            }
        }
        let size: usize = annotations.iter().map(|(k, v)| k.len() + v.len()).sum();
        self.require(size <= MAX_BYTES, field, format_args!("{size} bytes; at most {MAX_BYTES} are allowed"));
    }
}

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod tests;
