//! Policies that are not enforced: what they would decide is reported.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{self, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::{GlobalNetworkPolicySpec, NetworkPolicySpec};
use crate::model::Metadata;

/// A NetworkPolicy to be.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct StagedNetworkPolicy {
    /// Name, namespace, labels. It stands for the NetworkPolicy of the same name.
    pub metadata: Metadata,
    /// What it says.
    pub spec: Staged<NetworkPolicySpec>,
}

/// A GlobalNetworkPolicy to be.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct StagedGlobalNetworkPolicy {
    /// Name and labels. It stands for the GlobalNetworkPolicy of the same name.
    pub metadata: Metadata,
    /// What it says.
    pub spec: Staged<GlobalNetworkPolicySpec>,
}

/// The spec of a policy, and what would become of the policy: `stagedAction` is one field of many.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Staged<S> {
    /// Absent: [`StagedAction::Set`].
    #[serde(rename = "stagedAction", skip_serializing_if = "Option::is_none")]
    pub action: Option<StagedAction>,
    /// The policy as it would be.
    #[serde(flatten)]
    pub policy: S,
}

/// What becomes of the policy of the same name once what is staged is in force.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum StagedAction {
    /// It is created, or replaced.
    #[default]
    Set,
    /// It is deleted.
    Delete,
    /// As `Set`; a recommendation that still changes.
    Learn,
    /// Nothing: a recommendation that was turned down.
    Ignore,
}

impl<S> Staged<S> {
    /// What becomes of the policy of the same name.
    pub fn action(&self) -> StagedAction {
        self.action.unwrap_or_default()
    }
}

impl<'de, S: Deserialize<'de>> Deserialize<'de> for Staged<S> {
    fn deserialize<D: Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
        struct Fields<S>(std::marker::PhantomData<S>);

        impl<'de, S: Deserialize<'de>> Visitor<'de> for Fields<S> {
            type Value = Staged<S>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the spec of a policy")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Staged<S>, A::Error> {
                let mut action = None;
                let rest = WithoutAction { map, action: &mut action };
                let policy = S::deserialize(MapAccessDeserializer::new(rest))?;
                Ok(Staged { action, policy })
            }
        }

        de.deserialize_map(Fields(std::marker::PhantomData))
    }
}

/// The fields of a policy, with the one taken out that only a staged policy has. `flatten` would do
/// the same, and would no longer refuse unknown fields.
struct WithoutAction<'a, A> {
    map: A,
    action: &'a mut Option<StagedAction>,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for WithoutAction<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        while let Some(key) = self.map.next_key::<String>()? {
            if key != "stagedAction" {
                let key: de::value::StringDeserializer<A::Error> = key.into_deserializer();
                return seed.deserialize(key).map(Some);
            }
            *self.action = Some(self.map.next_value()?);
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.map.next_value_seed(seed)
    }
}
