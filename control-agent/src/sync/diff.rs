//! From one desired state to the next, as changes in an order that the dataplane accepts:
//! referents before references, removals in reverse.

use super::members;
use crate::calc::{Desired, packed};
use margay_api::dataplane::v1::{self as api, SyncRequest, change::Change};
use prost::Message as _;
use std::{collections::BTreeMap, mem};

/// Bound of one message, in encoded bytes. IP sets are split to fit; any other object that is
/// larger by itself goes alone.
const MESSAGE_BYTES: usize = 1 << 20;

/// What leads from `old` to `new`. Against an empty `old`: everything.
pub(super) fn changes(old: &Desired, new: &Desired) -> Vec<Change> {
    let mut changes = Vec::new();
    if old.config != new.config {
        changes.push(Change::Config(new.config.clone()));
    }
    upsert(&mut changes, &old.hosts, &new.hosts, Change::Host);
    upsert(&mut changes, &old.pools, &new.pools, Change::IpPool);
    for (id, set) in &new.ip_sets {
        match old.ip_sets.get(id) {
            Some(old) if old == set => {}
            Some(old) => changes.extend(members::update(old, set, MESSAGE_BYTES / 2)),
            None => changes.extend(members::whole(set, MESSAGE_BYTES / 2)),
        }
    }
    upsert(&mut changes, &old.policies, &new.policies, Change::Policy);
    upsert(&mut changes, &old.profiles, &new.profiles, Change::Profile);
    upsert(&mut changes, &old.endpoints, &new.endpoints, Change::WorkloadEndpoint);
    upsert(&mut changes, &old.host_endpoints, &new.host_endpoints, Change::HostEndpoint);
    upsert(&mut changes, &old.tunnels, &new.tunnels, Change::TunnelEndpoint);
    upsert(&mut changes, &old.wireguard_peers, &new.wireguard_peers, Change::WireguardPeer);
    upsert(&mut changes, &old.routes, &new.routes, Change::Route);
    // Gone before new ones come: an address may be another's now.
    remove(&mut changes, &old.services, &new.services, |key| Change::ServiceRemove(key.into()));
    upsert(&mut changes, &old.services, &new.services, |service| Change::Service((*service).clone()));

    remove(&mut changes, &old.routes, &new.routes, |cidr| Change::RouteRemove(packed(*cidr)));
    remove(&mut changes, &old.wireguard_peers, &new.wireguard_peers, |node| {
        Change::WireguardPeerRemove(node.clone())
    });
    remove(&mut changes, &old.tunnels, &new.tunnels, |node| Change::TunnelEndpointRemove(node.clone()));
    remove(&mut changes, &old.host_endpoints, &new.host_endpoints, |name| {
        Change::HostEndpointRemove(name.clone())
    });
    remove(&mut changes, &old.endpoints, &new.endpoints, |key| Change::WorkloadEndpointRemove(key.into()));
    remove(&mut changes, &old.profiles, &new.profiles, |name| Change::ProfileRemove(name.clone()));
    remove(&mut changes, &old.policies, &new.policies, |key| Change::PolicyRemove(key.into()));
    remove(&mut changes, &old.ip_sets, &new.ip_sets, |id| Change::IpSetRemove(id.clone()));
    remove(&mut changes, &old.pools, &new.pools, |cidr| Change::IpPoolRemove(packed(*cidr)));
    remove(&mut changes, &old.hosts, &new.hosts, |name| Change::HostRemove(name.clone()));
    changes
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

fn upsert<K: Ord, V: PartialEq + Clone>(
    changes: &mut Vec<Change>,
    old: &BTreeMap<K, V>,
    new: &BTreeMap<K, V>,
    change: impl Fn(V) -> Change,
) {
    changes.extend(
        new.iter().filter(|(key, value)| old.get(key) != Some(value)).map(|(_, value)| change(value.clone())),
    );
}

fn remove<K: Ord, V>(
    changes: &mut Vec<Change>,
    old: &BTreeMap<K, V>,
    new: &BTreeMap<K, V>,
    change: impl Fn(&K) -> Change,
) {
    changes.extend(old.keys().rev().filter(|key| !new.contains_key(key)).map(change));
}
