//! Objects of Kubernetes, and Calico's staged policies: what files may hold besides the kinds that
//! the store takes.
//!
//! They are read as strictly as those, and [`convert`] turns them into Calico's own kinds, as
//! Calico does: for evaluation offline. The store refuses them: nothing live honours them yet.

mod admin;
mod convert;
mod objects;
mod policy;
mod selector;
#[cfg(test)]
mod tests;

use serde_json::Value;

pub use admin::{AdminNetworkPolicy, ClusterNetworkPolicy};
pub use convert::{Converted, UNSCHEDULED, convert};
pub use objects::{EndpointSlice, Namespace, Pod, Service, ServiceAccount};
pub use policy::NetworkPolicy;

use super::load::{Decoding, decode};
use super::resource::{API_VERSION, Resource};
use super::{FieldError, Kind, Metadata};

/// An object that only evaluation offline takes.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "each holds the object of its name")]
pub enum Offline {
    Namespace(Namespace),
    ServiceAccount(ServiceAccount),
    Pod(Box<Pod>),
    Service(Service),
    EndpointSlice(EndpointSlice),
    NetworkPolicy(NetworkPolicy),
    ClusterNetworkPolicy(ClusterNetworkPolicy),
    AdminNetworkPolicy(AdminNetworkPolicy),
    BaselineAdminNetworkPolicy(AdminNetworkPolicy),
    /// Never enforced: kept only as what was checked.
    Staged(&'static str, Staged),
}

/// What would be, were it not staged.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "each holds the policy of its name")]
pub enum Staged {
    Calico(Box<Resource>),
    Kubernetes(Box<NetworkPolicy>),
}

/// `apiVersion`, `kind`, and whether objects are in a namespace.
const KINDS: [(&str, &str, bool); 12] = [
    ("v1", "Namespace", false),
    ("v1", "ServiceAccount", true),
    ("v1", "Pod", true),
    ("v1", "Service", true),
    ("discovery.k8s.io/v1", "EndpointSlice", true),
    ("networking.k8s.io/v1", "NetworkPolicy", true),
    ("policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy", false),
    ("policy.networking.k8s.io/v1alpha1", "AdminNetworkPolicy", false),
    ("policy.networking.k8s.io/v1alpha1", "BaselineAdminNetworkPolicy", false),
    (API_VERSION, "StagedNetworkPolicy", true),
    (API_VERSION, "StagedGlobalNetworkPolicy", false),
    (API_VERSION, "StagedKubernetesNetworkPolicy", true),
];

/// A kind of [`Offline`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OfflineKind {
    name: &'static str,
    namespaced: bool,
}

impl OfflineKind {
    /// The kind of that version and name.
    pub(super) fn find(version: &str, kind: &str) -> Option<Self> {
        let found = KINDS.into_iter().find(|(v, k, _)| *v == version && *k == kind);
        found.map(|(_, name, namespaced)| Self { name, namespaced })
    }

    /// As manifests spell it.
    pub(super) const fn name(self) -> &'static str {
        self.name
    }

    /// Whether its objects are in a namespace.
    pub(super) const fn is_namespaced(self) -> bool {
        self.namespaced
    }

    /// Whether its status says what evaluation needs.
    pub(super) fn keeps_status(self) -> bool {
        self.name == "Pod"
    }

    /// An object without `apiVersion` and `kind`.
    pub(super) fn decode(self, mut body: Value) -> Result<Offline, Decoding> {
        Ok(match self.name {
            "Namespace" => Offline::Namespace(decode(body)?),
            "ServiceAccount" => Offline::ServiceAccount(decode(body)?),
            "Pod" => Offline::Pod(Box::new(decode(body)?)),
            "Service" => Offline::Service(decode(body)?),
            "EndpointSlice" => Offline::EndpointSlice(decode(body)?),
            "NetworkPolicy" => Offline::NetworkPolicy(decode(body)?),
            "ClusterNetworkPolicy" => Offline::ClusterNetworkPolicy(decode(body)?),
            "AdminNetworkPolicy" => Offline::AdminNetworkPolicy(decode(body)?),
            "BaselineAdminNetworkPolicy" => Offline::BaselineAdminNetworkPolicy(decode(body)?),
            _ => {
                staged_action(&mut body)?;
                let inner = match self.name {
                    "StagedNetworkPolicy" => {
                        Staged::Calico(Box::new(Resource::decode(Kind::NetworkPolicy, body)?))
                    }
                    "StagedGlobalNetworkPolicy" => {
                        Staged::Calico(Box::new(Resource::decode(Kind::GlobalNetworkPolicy, body)?))
                    }
                    _ => Staged::Kubernetes(Box::new(decode(body)?)),
                };
                Offline::Staged(self.name, inner)
            }
        })
    }
}

impl Offline {
    /// As manifests spell it.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Namespace(_) => "Namespace",
            Self::ServiceAccount(_) => "ServiceAccount",
            Self::Pod(_) => "Pod",
            Self::Service(_) => "Service",
            Self::EndpointSlice(_) => "EndpointSlice",
            Self::NetworkPolicy(_) => "NetworkPolicy",
            Self::ClusterNetworkPolicy(_) => "ClusterNetworkPolicy",
            Self::AdminNetworkPolicy(_) => "AdminNetworkPolicy",
            Self::BaselineAdminNetworkPolicy(_) => "BaselineAdminNetworkPolicy",
            Self::Staged(kind, _) => kind,
        }
    }

    /// Name, namespace, labels.
    pub fn metadata(&self) -> &Metadata {
        match self {
            Self::Namespace(o) => &o.metadata,
            Self::ServiceAccount(o) => &o.metadata,
            Self::Pod(o) => &o.metadata,
            Self::Service(o) => &o.metadata,
            Self::EndpointSlice(o) => &o.metadata,
            Self::NetworkPolicy(o) => &o.metadata,
            Self::ClusterNetworkPolicy(o) => &o.metadata,
            Self::AdminNetworkPolicy(o) | Self::BaselineAdminNetworkPolicy(o) => &o.metadata,
            Self::Staged(_, o) => match o {
                Staged::Calico(o) => o.metadata(),
                Staged::Kubernetes(o) => &o.metadata,
            },
        }
    }

    fn metadata_mut(&mut self) -> &mut Metadata {
        match self {
            Self::Namespace(o) => &mut o.metadata,
            Self::ServiceAccount(o) => &mut o.metadata,
            Self::Pod(o) => &mut o.metadata,
            Self::Service(o) => &mut o.metadata,
            Self::EndpointSlice(o) => &mut o.metadata,
            Self::NetworkPolicy(o) => &mut o.metadata,
            Self::ClusterNetworkPolicy(o) => &mut o.metadata,
            Self::AdminNetworkPolicy(o) | Self::BaselineAdminNetworkPolicy(o) => &mut o.metadata,
            Self::Staged(_, o) => match o {
                Staged::Calico(o) => o.metadata_mut(),
                Staged::Kubernetes(o) => &mut o.metadata,
            },
        }
    }

    /// Its namespace, where its kind has one.
    pub fn is_namespaced(&self) -> bool {
        KINDS.into_iter().any(|(_, kind, namespaced)| kind == self.kind() && namespaced)
    }

    /// Puts it into a namespace.
    pub fn set_namespace(&mut self, namespace: &str) {
        namespace.clone_into(&mut self.metadata_mut().namespace);
    }

    /// `Pod default/web`
    pub fn title(&self) -> String {
        let Metadata { namespace, name, .. } = self.metadata();
        let slash = if namespace.is_empty() { "" } else { "/" };
        format!("{} {namespace}{slash}{name}", self.kind())
    }

    /// Everything that is wrong with it.
    pub fn validate(&self) -> Vec<FieldError> {
        let unknown = match self {
            Self::Pod(pod) => pod.unknown_fields(),
            Self::Service(service) => service.unknown_fields(),
            _ => Vec::new(),
        };
        let unknown = unknown.into_iter().map(|(field, nearest)| {
            FieldError::new(field, format!("unknown field; did you mean {nearest}?"))
        });
        let mut errors: Vec<_> = unknown.collect();
        let metadata = self.metadata();
        if metadata.name.is_empty() {
            errors
                .push(FieldError::new("metadata.name", format!("missing; give the {} a name", self.kind())));
        }
        if !self.is_namespaced() && !metadata.namespace.is_empty() {
            let message =
                format!("{:?} given, but a {} has none; remove it", metadata.namespace, self.kind());
            errors.push(FieldError::new("metadata.namespace", message));
        }
        errors.extend(convert::faults(self));
        errors
    }
}

/// Takes out what makes a policy a staged one.
fn staged_action(body: &mut Value) -> Result<(), Decoding> {
    let spec = body.get_mut("spec").and_then(Value::as_object_mut);
    match spec.and_then(|spec| spec.remove("stagedAction")) {
        None => Ok(()),
        Some(Value::String(action)) if action == "Delete" => only_deletes(body),
        Some(Value::String(action)) if matches!(action.as_str(), "Set" | "Learn" | "Ignore") => Ok(()),
        Some(other) => {
            let message = format!("{other} is not a valid value; write Set, Delete, Learn or Ignore");
            Err(Decoding(vec![("spec.stagedAction".to_owned(), message)]))
        }
    }
}

/// What is to be deleted is known by its name and tier; what else is said would mean nothing.
fn only_deletes(body: &Value) -> Result<(), Decoding> {
    let said = |value: &Value| match value {
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        Value::Bool(yes) => *yes,
        Value::Null => false,
        Value::Number(_) => true,
    };
    let fields = body.get("spec").and_then(Value::as_object).into_iter().flatten();
    let problem = |(field, _): (&String, &Value)| {
        (format!("spec.{field}"), "says nothing where stagedAction is Delete; remove it".to_owned())
    };
    let problems: Vec<_> =
        fields.filter(|(field, value)| *field != "tier" && said(value)).map(problem).collect();
    if problems.is_empty() { Ok(()) } else { Err(Decoding(problems)) }
}
