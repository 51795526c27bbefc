//! Which routes BGP takes and gives, and how it changes them.

use serde::{Deserialize, Serialize};

use super::RoutePriority;
use crate::model::net::empty_is_none;
use crate::model::scalar::{AsNumber, Community, InterfaceGlob, Whole, choices, settings};
use crate::model::{Cidr, Metadata};

/// Rules for routes; the first that matches decides, and without one Calico's own rules do.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct BgpFilter {
    /// Name and labels.
    pub metadata: Metadata,
    /// What it says.
    pub spec: BgpFilterSpec,
}

settings! {
    /// What a [`BgpFilter`] says.
    pub struct BgpFilterSpec {
        /// For IPv4 routes to a peer.
        export_v4: Vec<BgpFilterRuleV4>, "exportV4";
        /// For IPv4 routes from a peer.
        import_v4: Vec<BgpFilterRuleV4>, "importV4";
        /// For IPv6 routes to a peer.
        export_v6: Vec<BgpFilterRuleV6>, "exportV6";
        /// For IPv6 routes from a peer.
        import_v6: Vec<BgpFilterRuleV6>, "importV6";
    }
}

/// A rule of IPv4.
pub type BgpFilterRuleV4 = BgpFilterRule<32>;
/// A rule of IPv6.
pub type BgpFilterRuleV6 = BgpFilterRule<128>;

/// All fields that are present must match. `MAX`: the longest prefix of the family.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "BgpFilterRule{MAX}"))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BgpFilterRule<const MAX: i64> {
    /// Compared with the route's prefix by `matchOperator`.
    #[serde(default, deserialize_with = "empty_is_none", skip_serializing_if = "Option::is_none")]
    pub cidr: Option<Cidr>,
    /// Only prefixes so long; needs `cidr`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix_length: Option<PrefixLengths<MAX>>,
    /// Only routes that came from there; of export only.
    #[serde(default, deserialize_with = "empty_is_none", skip_serializing_if = "Option::is_none")]
    pub source: Option<RouteOrigin>,
    /// Only routes out of these interfaces.
    #[serde(default, deserialize_with = "empty_is_none", skip_serializing_if = "Option::is_none")]
    pub interface: Option<InterfaceGlob>,
    /// How `cidr` is compared.
    #[serde(default, deserialize_with = "empty_is_none", skip_serializing_if = "Option::is_none")]
    pub match_operator: Option<MatchOperator>,
    /// Only with such peers.
    #[serde(default, deserialize_with = "empty_is_none", skip_serializing_if = "Option::is_none")]
    pub peer_type: Option<PeerType>,
    /// Only routes that carry them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub communities: Option<CommunityMatch>,
    /// Only routes whose path of ASes begins so.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub as_path_prefix: Vec<AsNumber>,
    /// Only routes of this metric.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<RoutePriority>,
    /// What to do on a match.
    pub action: BgpFilterAction,
    /// How a route that is accepted is changed, in this order; at most 10.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub operations: Vec<BgpFilterOperation>,
}

/// Both ends included. Absent: the `cidr`'s own length, and the longest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "PrefixLengths{MAX}"))]
#[serde(deny_unknown_fields)]
pub struct PrefixLengths<const MAX: i64> {
    /// Shortest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<Whole<0, MAX>>,
    /// Longest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<Whole<0, MAX>>,
}

choices! {
    /// Where a route came from.
    RouteOrigin { /// A peer.
        RemotePeers }

    /// How a prefix is compared.
    MatchOperator { /// The same.
        Equal, /// Another.
        NotEqual, /// The same, or a part.
        In, /// Neither the same nor a part.
        NotIn }

    /// Peers by their AS.
    PeerType { /// Of another.
        External = "eBGP", /// Of the own.
        Internal = "iBGP" }

    /// What to do with a route.
    BgpFilterAction { /// Take or give it.
        Accept, /// Ignore or withhold it.
        Reject }
}

/// Communities to carry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct CommunityMatch {
    /// Exactly one.
    pub values: Vec<Community>,
}

settings! {
    /// One change of a route: exactly one of its fields.
    pub struct BgpFilterOperation {
        /// One more community.
        add_community: AddCommunity, "addCommunity";
        /// More of a path.
        prepend_as_path: PrependAsPath, "prependASPath";
        /// Another metric.
        set_priority: SetPriority, "setPriority";
    }
}

/// One more community.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct AddCommunity {
    /// The community.
    pub value: Community,
}

/// More of a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PrependAsPath {
    /// What the path begins with then; 1 to 10.
    pub prefix: Vec<AsNumber>,
}

/// Another metric.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SetPriority {
    /// The metric.
    pub value: RoutePriority,
}
