//! Any object of any kind.

use serde::Serialize;
use serde_json::{Value, json};

use super::kind::{Key, Kind};
use super::load::{self, LoadError};
use super::metadata::Metadata;
use super::validate::FieldError;
use super::{
    BgpConfiguration, BgpFilter, BgpPeer, BlockAffinity, CalicoNodeStatus, ClusterInformation,
    FelixConfiguration, GlobalNetworkPolicy, GlobalNetworkSet, HostEndpoint, IpPool, IpReservation,
    IpamBlock, IpamConfiguration, IpamHandle, KubeControllersConfiguration, NetworkPolicy, NetworkSet, Node,
    Profile, StagedGlobalNetworkPolicy, StagedNetworkPolicy, Tier, WorkloadEndpoint, defaults, kubernetes,
    supported, validate,
};

/// The one version of Calico's API.
pub(super) const API_VERSION: &str = "projectcalico.org/v3";

/// A type that is one kind.
pub trait Object: Serialize + Clone + PartialEq + std::fmt::Debug {
    /// Its kind.
    const KIND: Kind;

    /// Name, namespace, labels.
    fn metadata(&self) -> &Metadata;

    /// Name, namespace, labels.
    fn metadata_mut(&mut self) -> &mut Metadata;

    /// What it is known by.
    fn key(&self) -> Key {
        let metadata = self.metadata();
        Key { kind: Self::KIND, namespace: metadata.namespace.clone(), name: metadata.name.clone() }
    }

    /// From any resource, if it is of this kind.
    fn from_resource(resource: &Resource) -> Option<&Self>;
}

macro_rules! resources {
    ($($variant:ident($object:ident)),* $(,)?) => {
        /// An object of any kind.
        #[derive(Clone, Debug, PartialEq)]
        #[allow(missing_docs, reason = "each holds the object of its name")]
        pub enum Resource {
            $($variant($object),)*
            /// One of Kubernetes'.
            Kubernetes(Box<kubernetes::Object>),
        }

        impl Resource {
            /// Its kind.
            pub const fn kind(&self) -> Kind {
                match self {
                    $(Self::$variant(_) => Kind::$variant,)*
                    Self::Kubernetes(object) => object.kind(),
                }
            }

            /// Name, namespace, labels.
            pub const fn metadata(&self) -> &Metadata {
                match self {
                    $(Self::$variant(object) => &object.metadata,)*
                    Self::Kubernetes(object) => object.metadata(),
                }
            }

            /// Name, namespace, labels.
            pub const fn metadata_mut(&mut self) -> &mut Metadata {
                match self {
                    $(Self::$variant(object) => &mut object.metadata,)*
                    Self::Kubernetes(object) => object.metadata_mut(),
                }
            }

            /// Of a kind, from an object without `apiVersion` and `kind`.
            pub(super) fn decode(kind: Kind, body: Value) -> Result<Self, load::Decoding> {
                match kind {
                    $(Kind::$variant => load::decode::<$object>(body).map(Self::$variant),)*
                    other => {
                        let object = kubernetes::Object::decode(other, body);
                        object.expect("a kind is in the list of this macro or is one of Kubernetes'").map(Self::from)
                    }
                }
            }

            fn body(&self) -> Result<Value, serde_json::Error> {
                match self {
                    $(Self::$variant(object) => serde_json::to_value(object),)*
                    Self::Kubernetes(object) => object.body(),
                }
            }
        }

        $(
            impl Object for $object {
                const KIND: Kind = Kind::$variant;

                fn metadata(&self) -> &Metadata {
                    &self.metadata
                }

                fn metadata_mut(&mut self) -> &mut Metadata {
                    &mut self.metadata
                }

                fn from_resource(resource: &Resource) -> Option<&Self> {
                    match resource {
                        Resource::$variant(object) => Some(object),
                        _ => None,
                    }
                }
            }

            impl From<$object> for Resource {
                fn from(object: $object) -> Self {
                    Self::$variant(object)
                }
            }
        )*
    };
}

impl From<kubernetes::Object> for Resource {
    fn from(object: kubernetes::Object) -> Self {
        Self::Kubernetes(Box::new(object))
    }
}

resources! {
    FelixConfiguration(FelixConfiguration),
    Tier(Tier),
    Node(Node),
    IPPool(IpPool),
    Profile(Profile),
    GlobalNetworkSet(GlobalNetworkSet),
    NetworkSet(NetworkSet),
    GlobalNetworkPolicy(GlobalNetworkPolicy),
    NetworkPolicy(NetworkPolicy),
    StagedGlobalNetworkPolicy(StagedGlobalNetworkPolicy),
    StagedNetworkPolicy(StagedNetworkPolicy),
    WorkloadEndpoint(WorkloadEndpoint),
    HostEndpoint(HostEndpoint),
    ClusterInformation(ClusterInformation),
    BGPConfiguration(BgpConfiguration),
    KubeControllersConfiguration(KubeControllersConfiguration),
    IPAMConfiguration(IpamConfiguration),
    BGPFilter(BgpFilter),
    BGPPeer(BgpPeer),
    IPReservation(IpReservation),
    BlockAffinity(BlockAffinity),
    IPAMBlock(IpamBlock),
    IPAMHandle(IpamHandle),
    CalicoNodeStatus(CalicoNodeStatus),
}

impl Resource {
    /// Empty for kinds without namespaces.
    pub fn namespace(&self) -> &str {
        &self.metadata().namespace
    }

    /// Unique in the namespace, or in the kind where there are none.
    pub fn name(&self) -> &str {
        &self.metadata().name
    }

    /// What it is known by.
    pub fn key(&self) -> Key {
        Key { kind: self.kind(), namespace: self.namespace().to_owned(), name: self.name().to_owned() }
    }

    /// The object as a value: `apiVersion`, `kind`, `metadata`, `spec`.
    pub fn to_value(&self) -> Value {
        let kind = self.kind();
        let mut value = json!({ "apiVersion": kind.api_version(), "kind": kind.manifest_name() });
        let body = self.body().expect("a typed resource has string keys and finite numbers only");
        if let (Value::Object(to), Value::Object(from)) = (&mut value, body) {
            to.extend(from);
        }
        value
    }

    /// One line of JSON that [`Self::from_json`] and [`load`](super::load) read.
    pub fn to_json(&self) -> String {
        self.to_value().to_string()
    }

    /// Reads one stored object, strictly, without defaulting or validating it.
    pub fn from_json(text: &str) -> Result<Self, Vec<LoadError>> {
        load::one(text)
    }

    /// Makes explicit what is implied: namespace, tier, types.
    pub fn set_defaults(&mut self) {
        defaults::set(self);
    }

    /// Everything that is wrong with it by Calico's rules, in the order of its fields.
    pub fn validate(&self) -> Vec<FieldError> {
        validate::resource(self)
    }

    /// Every field it uses that Calico has and this release does not honour yet.
    pub fn unsupported(&self) -> Vec<FieldError> {
        supported::refusals(self)
    }

    /// What a store must do before it takes the object: defaults, then every reason to refuse it.
    pub fn admit(mut self) -> Result<Self, Vec<FieldError>> {
        self.set_defaults();
        let mut errors = self.validate();
        errors.extend(self.unsupported());
        if errors.is_empty() { Ok(self) } else { Err(errors) }
    }

    /// The same of an object that agents alone write, from one of them.
    pub fn admit_internal(mut self) -> Result<Self, Vec<FieldError>> {
        self.set_defaults();
        let errors = self.validate();
        if errors.is_empty() { Ok(self) } else { Err(errors) }
    }
}
