//! Objects of Kubernetes: stored as they were written, understood as Calico understands them.
//!
//! They are read as strictly as Calico's kinds, and [`convert`] turns each into those, as Calico
//! does. Evaluation offline and the running agent share that conversion.

mod admin;
mod convert;
mod limits;
mod objects;
mod policy;
mod selector;
mod service;
#[cfg(test)]
mod tests;

use serde_json::{Map, Value};

pub use admin::{AdminNetworkPolicy, ClusterNetworkPolicy};
pub use convert::{Converted, INTERFACE, convert};
pub use objects::{KubernetesNode, Namespace, Pod, ServiceAccount};
pub use policy::{NetworkPolicy, NetworkPolicySpec, StagedNetworkPolicy};
pub use service::{
    Conditions, EndpointSlice, Hints, LoadBalancerIngress, Service, ServicePort, ServiceSpec, SliceEndpoint,
    SlicePort,
};

use super::load::{Decoding, decode};
use super::{FieldError, Kind, Metadata};

/// An object of Kubernetes.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    typed: Typed,
    /// As it was written, without its metadata.
    body: Map<String, Value>,
}

/// What an [`Object`] means.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "each holds the object of its name")]
pub enum Typed {
    Node(KubernetesNode),
    Namespace(Namespace),
    ServiceAccount(ServiceAccount),
    Pod(Pod),
    Service(Service),
    EndpointSlice(EndpointSlice),
    NetworkPolicy(NetworkPolicy),
    ClusterNetworkPolicy(ClusterNetworkPolicy),
    AdminNetworkPolicy(AdminNetworkPolicy),
    BaselineAdminNetworkPolicy(AdminNetworkPolicy),
    /// Calico's: the same, and not enforced.
    StagedNetworkPolicy(StagedNetworkPolicy),
}

impl Object {
    /// An object without `apiVersion` and `kind`; `None`: the kind is not one of Kubernetes' objects.
    pub(super) fn decode(kind: Kind, body: Value) -> Option<Result<Self, Decoding>> {
        let faults = limits::faults(kind, &body);
        let mut written = match &body {
            Value::Object(fields) => fields.clone(),
            _ => Map::new(),
        };
        written.remove("metadata");
        let typed = match kind {
            Kind::KubernetesNode => decode(body).map(Typed::Node),
            Kind::Namespace => decode(body).map(Typed::Namespace),
            Kind::ServiceAccount => decode(body).map(Typed::ServiceAccount),
            Kind::Pod => decode(body).map(Typed::Pod),
            Kind::Service => decode(body).map(Typed::Service),
            Kind::EndpointSlice => decode(body).map(Typed::EndpointSlice),
            Kind::KubernetesNetworkPolicy => decode(body).map(Typed::NetworkPolicy),
            Kind::ClusterNetworkPolicy => decode(body).map(Typed::ClusterNetworkPolicy),
            Kind::AdminNetworkPolicy => decode(body).map(Typed::AdminNetworkPolicy),
            Kind::BaselineAdminNetworkPolicy => decode(body).map(Typed::BaselineAdminNetworkPolicy),
            Kind::StagedKubernetesNetworkPolicy => decode(body).map(Typed::StagedNetworkPolicy),
            _ => return None,
        };
        Some(match typed {
            Ok(typed) if faults.is_empty() => Ok(Self { typed, body: written }),
            Ok(_) => Err(Decoding(faults)),
            Err(Decoding(problems)) => Err(Decoding(problems.into_iter().chain(faults).collect())),
        })
    }

    /// A namespace that has but a name.
    pub fn namespace(name: &str) -> Self {
        let metadata = Metadata { name: name.to_owned(), ..Metadata::default() };
        Self { typed: Typed::Namespace(Namespace { metadata, ..Namespace::default() }), body: Map::new() }
    }

    /// What it means.
    pub const fn typed(&self) -> &Typed {
        &self.typed
    }

    /// Its kind.
    pub const fn kind(&self) -> Kind {
        match &self.typed {
            Typed::Node(_) => Kind::KubernetesNode,
            Typed::Namespace(_) => Kind::Namespace,
            Typed::ServiceAccount(_) => Kind::ServiceAccount,
            Typed::Pod(_) => Kind::Pod,
            Typed::Service(_) => Kind::Service,
            Typed::EndpointSlice(_) => Kind::EndpointSlice,
            Typed::NetworkPolicy(_) => Kind::KubernetesNetworkPolicy,
            Typed::ClusterNetworkPolicy(_) => Kind::ClusterNetworkPolicy,
            Typed::AdminNetworkPolicy(_) => Kind::AdminNetworkPolicy,
            Typed::BaselineAdminNetworkPolicy(_) => Kind::BaselineAdminNetworkPolicy,
            Typed::StagedNetworkPolicy(_) => Kind::StagedKubernetesNetworkPolicy,
        }
    }

    /// Name, namespace, labels.
    pub const fn metadata(&self) -> &Metadata {
        match &self.typed {
            Typed::Node(o) => &o.metadata,
            Typed::Namespace(o) => &o.metadata,
            Typed::ServiceAccount(o) => &o.metadata,
            Typed::Pod(o) => &o.metadata,
            Typed::Service(o) => &o.metadata,
            Typed::EndpointSlice(o) => &o.metadata,
            Typed::NetworkPolicy(o) => &o.metadata,
            Typed::ClusterNetworkPolicy(o) => &o.metadata,
            Typed::AdminNetworkPolicy(o) | Typed::BaselineAdminNetworkPolicy(o) => &o.metadata,
            Typed::StagedNetworkPolicy(o) => &o.metadata,
        }
    }

    /// Name, namespace, labels.
    pub const fn metadata_mut(&mut self) -> &mut Metadata {
        match &mut self.typed {
            Typed::Node(o) => &mut o.metadata,
            Typed::Namespace(o) => &mut o.metadata,
            Typed::ServiceAccount(o) => &mut o.metadata,
            Typed::Pod(o) => &mut o.metadata,
            Typed::Service(o) => &mut o.metadata,
            Typed::EndpointSlice(o) => &mut o.metadata,
            Typed::NetworkPolicy(o) => &mut o.metadata,
            Typed::ClusterNetworkPolicy(o) => &mut o.metadata,
            Typed::AdminNetworkPolicy(o) | Typed::BaselineAdminNetworkPolicy(o) => &mut o.metadata,
            Typed::StagedNetworkPolicy(o) => &mut o.metadata,
        }
    }

    /// Puts a pod that has no node on `node`.
    pub fn schedule(&mut self, node: &str) {
        let Typed::Pod(pod) = &mut self.typed else { return };
        if pod.spec.node_name.is_empty() {
            node.clone_into(&mut pod.spec.node_name);
            let spec = self.body.entry("spec").or_insert_with(|| Map::new().into());
            spec["nodeName"] = node.into();
        }
    }

    /// As it was written, without `apiVersion` and `kind`.
    pub(super) fn body(&self) -> Result<Value, serde_json::Error> {
        let mut body = Map::from_iter([("metadata".to_owned(), serde_json::to_value(self.metadata())?)]);
        body.extend(self.body.clone());
        Ok(Value::Object(body))
    }

    /// What is wrong with it besides its metadata.
    pub(super) fn validate(&self) -> Vec<FieldError> {
        let unknown =
            |(field, nearest)| FieldError::new(field, format!("unknown field; did you mean {nearest}?"));
        let own = match &self.typed {
            Typed::Pod(pod) => pod.unknown_fields().into_iter().map(unknown).collect(),
            Typed::Service(service) => service.faults(),
            Typed::Node(node) => node.faults(),
            _ => Vec::new(),
        };
        own.into_iter().chain(convert::faults(self)).collect()
    }
}
