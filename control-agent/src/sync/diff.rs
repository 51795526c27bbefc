//! From one desired state to the next, as changes in an order that the dataplane accepts:
//! referents before references, removals in reverse.

use super::members;
use crate::calc::{Desired, Difference, IpSet, Tree, packed};
use margay_api::dataplane::v1::{self as api, SyncRequest, change::Change};
use prost::Message as _;
use std::{mem, sync::Arc};

/// Bound of one message, in encoded bytes. IP sets are split to fit; any other object that is
/// larger by itself goes alone.
const MESSAGE_BYTES: usize = 1 << 20;

/// What leads from `old` to `new`. Against an empty `old`: everything. Between states that follow from each other it costs
/// what is different.
pub(super) fn changes(old: &Desired, new: &Desired) -> Vec<Change> {
    let config = (old.config != new.config).then(|| Change::Config(new.config.clone()));
    let hosts = Part::of(&old.hosts, &new.hosts, Change::Host, |name| Change::HostRemove(name.clone()));
    let pools = Part::of(&old.pools, &new.pools, Change::IpPool, |cidr| Change::IpPoolRemove(packed(*cidr)));
    let sets = Part::of_sets(&old.ip_sets, &new.ip_sets);
    let policies =
        Part::of(&old.policies, &new.policies, Change::Policy, |key| Change::PolicyRemove(key.into()));
    let profiles =
        Part::of(&old.profiles, &new.profiles, Change::Profile, |name| Change::ProfileRemove(name.clone()));
    let endpoints = Part::of(&old.endpoints, &new.endpoints, Change::WorkloadEndpoint, |key| {
        Change::WorkloadEndpointRemove(key.into())
    });
    let host_endpoints = Part::of(&old.host_endpoints, &new.host_endpoints, Change::HostEndpoint, |name| {
        Change::HostEndpointRemove(name.clone())
    });
    let tunnels = Part::of(&old.tunnels, &new.tunnels, Change::TunnelEndpoint, |node| {
        Change::TunnelEndpointRemove(node.clone())
    });
    let peers = Part::of(&old.wireguard_peers, &new.wireguard_peers, Change::WireguardPeer, |node| {
        Change::WireguardPeerRemove(node.clone())
    });
    let routes = Part::of(&old.routes, &new.routes, Change::Route, |cidr| Change::RouteRemove(packed(*cidr)));
    let services =
        Part::of(&old.services, &new.services, Change::Service, |key| Change::ServiceRemove(key.into()));

    let parts = [hosts, pools, sets, policies, profiles, endpoints, host_endpoints, tunnels, peers, routes];
    let mut changes: Vec<Change> = config.into_iter().collect();
    let mut removals = Vec::new();
    for part in parts {
        changes.extend(part.come);
        removals.push(part.go);
    }
    // Gone before new ones come: an address may be another's now.
    changes.extend(services.go);
    changes.extend(services.come);
    changes.extend(removals.into_iter().rev().flatten());
    changes
}

/// What is different of one sort of objects.
struct Part {
    come: Vec<Change>,
    go: Vec<Change>,
}

impl Part {
    fn of<K: Ord, V: PartialEq + Clone>(
        old: &Tree<K, Arc<V>>,
        new: &Tree<K, Arc<V>>,
        come: impl Fn(V) -> Change,
        go: impl Fn(&K) -> Change,
    ) -> Self {
        let mut part = Self { come: Vec::new(), go: Vec::new() };
        for difference in old.differences(new) {
            match difference {
                Difference::Added(_, new) | Difference::Changed(_, _, new) => {
                    part.come.push(come(V::clone(new)));
                }
                Difference::Removed(key, _) => part.go.push(go(key)),
            }
        }
        part.go.reverse();
        part
    }

    fn of_sets(old: &Tree<String, IpSet>, new: &Tree<String, IpSet>) -> Self {
        let mut part = Self { come: Vec::new(), go: Vec::new() };
        for difference in old.differences(new) {
            match difference {
                Difference::Added(id, set) => part.come.extend(members::whole(id, set, MESSAGE_BYTES / 2)),
                Difference::Changed(id, old, new) => {
                    part.come.extend(members::update(id, old, new, MESSAGE_BYTES / 2));
                }
                Difference::Removed(id, _) => part.go.push(Change::IpSetRemove(id.clone())),
            }
        }
        part.go.reverse();
        part
    }
}

/// The changes as messages of at most [`MESSAGE_BYTES`] each; the last carries the commit.
pub(super) fn messages(changes: Vec<Change>, commit: api::Commit) -> Vec<SyncRequest> {
    let mut messages = Vec::new();
    let mut message = SyncRequest::default();
    let mut bytes = 0;
    for change in changes {
        let change = api::Change { change: Some(change) };
        // The change, its tag and its length.
        let size = change.encoded_len() + 8;
        if bytes + size > MESSAGE_BYTES && !message.changes.is_empty() {
            messages.push(mem::take(&mut message));
            bytes = 0;
        }
        bytes += size;
        message.changes.push(change);
    }
    message.commit = Some(commit);
    messages.push(message);
    messages
}
