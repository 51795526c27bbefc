//! Whatever happens to the objects on the way, the dataplane ends where they end.

use super::diff;
use crate::{
    calc::{Desired, Graph, Resources, desired},
    model::{Key, Resource, load},
};
use margay_api::dataplane::v1::{IpSet, Members, PolicyId, Rule, TierBinding, change::Change, ip_set::Type};
use proptest::{collection::vec, prelude::*};
use prost::Message;
use std::collections::{BTreeMap, BTreeSet};

/// Some of every kind that anything follows from, twice: as they once were, and as they end.
const BEFORE: &str = include_str!("convergence/before.yaml");
const AFTER: &str = include_str!("convergence/after.yaml");

fn objects(text: &str) -> BTreeMap<Key, Resource> {
    let objects = load(text).unwrap_or_else(|errors| panic!("{errors:?}"));
    let admitted = objects.into_iter().map(|object| match object {
        // Only agents write it.
        Resource::IPAMBlock(_) => object,
        _ => object.admit().unwrap_or_else(|errors| panic!("{errors:?}")),
    });
    admitted.map(|object| (object.key(), object)).collect()
}

/// What a dataplane holds: by sort of object and key. Sets are kept member by member.
#[derive(Debug, Default, PartialEq)]
struct Held {
    objects: BTreeMap<(&'static str, Vec<u8>), Vec<u8>>,
    sets: BTreeMap<String, (Type, BTreeSet<Vec<u8>>)>,
}

impl Held {
    fn take(&mut self, change: Change) {
        let put = |key: Vec<u8>, message: Vec<u8>| (key, Some(message));
        let (sort, (key, message)) = match change {
            Change::IpSet(set) => return self.set(&set),
            Change::IpSetDelta(delta) => {
                let (kind, members) =
                    self.sets.get_mut(&delta.id).expect("a delta is of a set that was sent");
                for gone in records(*kind, &delta.removed.unwrap_or_default()) {
                    assert!(members.remove(&gone), "only a member can be removed");
                }
                for new in records(*kind, &delta.added.unwrap_or_default()) {
                    assert!(members.insert(new), "only what is no member can be added");
                }
                return;
            }
            Change::IpSetRemove(id) => {
                assert!(self.sets.remove(&id).is_some(), "only what was sent can be removed");
                return;
            }
            Change::Policy(policy) => {
                let rules = policy.inbound_rules.iter().chain(&policy.outbound_rules);
                self.know_sets(rules);
                ("policy", put(key(policy.id.as_ref().unwrap()), policy.encode_to_vec()))
            }
            Change::PolicyRemove(id) => ("policy", (key(&id), None)),
            Change::Profile(profile) => {
                self.know_sets(profile.inbound_rules.iter().chain(&profile.outbound_rules));
                ("profile", put(profile.name.clone().into_bytes(), profile.encode_to_vec()))
            }
            Change::ProfileRemove(name) => ("profile", (name.into_bytes(), None)),
            Change::WorkloadEndpoint(endpoint) => {
                self.know(&endpoint.tiers, &endpoint.profile_ids);
                self.know(&endpoint.staged_tiers, &[]);
                ("workload", put(endpoint.id.as_ref().unwrap().encode_to_vec(), canonical(endpoint)))
            }
            Change::WorkloadEndpointRemove(id) => ("workload", (id.encode_to_vec(), None)),
            Change::HostEndpoint(endpoint) => {
                for tiers in [&endpoint.tiers, &endpoint.untracked_tiers, &endpoint.pre_dnat_tiers] {
                    self.know(tiers, &endpoint.profile_ids);
                }
                self.know(&endpoint.forward_tiers, &[]);
                self.know(&endpoint.staged_tiers, &[]);
                ("host endpoint", put(endpoint.id.clone().into_bytes(), endpoint.encode_to_vec()))
            }
            Change::HostEndpointRemove(id) => ("host endpoint", (id.into_bytes(), None)),
            Change::Route(route) => {
                ("route", put(route.destination.as_ref().unwrap().encode_to_vec(), route.encode_to_vec()))
            }
            Change::RouteRemove(prefix) => ("route", (prefix.encode_to_vec(), None)),
            Change::IpPool(pool) => {
                ("pool", put(pool.cidr.as_ref().unwrap().encode_to_vec(), pool.encode_to_vec()))
            }
            Change::IpPoolRemove(prefix) => ("pool", (prefix.encode_to_vec(), None)),
            Change::Host(host) => {
                ("host", put(host.hostname.clone().into_bytes(), host.hostname.into_bytes()))
            }
            Change::HostRemove(name) => ("host", (name.into_bytes(), None)),
            Change::TunnelEndpoint(end) => {
                ("tunnel", put(end.node.clone().into_bytes(), end.encode_to_vec()))
            }
            Change::TunnelEndpointRemove(node) => ("tunnel", (node.into_bytes(), None)),
            Change::Service(service) => {
                ("service", put(service.id.as_ref().unwrap().encode_to_vec(), service.encode_to_vec()))
            }
            Change::ServiceRemove(id) => ("service", (id.encode_to_vec(), None)),
            Change::Config(config) => ("config", put(Vec::new(), config.encode_to_vec())),
            other => panic!("the agent does not send {other:?}"),
        };
        match message {
            Some(message) => {
                self.objects.insert((sort, key), message);
            }
            None => assert!(self.objects.remove(&(sort, key)).is_some(), "only what was sent can be removed"),
        }
    }

    fn set(&mut self, set: &IpSet) {
        let members = records(set.r#type(), &set.members.clone().unwrap_or_default());
        self.sets.insert(set.id.clone(), (set.r#type(), members.into_iter().collect()));
    }

    /// Every set that a rule names is there before it.
    fn know_sets<'a>(&self, rules: impl Iterator<Item = &'a Rule>) {
        for rule in rules {
            let lists = [
                &rule.src_ip_set_ids,
                &rule.dst_ip_set_ids,
                &rule.not_src_ip_set_ids,
                &rule.not_dst_ip_set_ids,
                &rule.dst_ip_port_set_ids,
                &rule.src_named_port_ip_set_ids,
                &rule.dst_named_port_ip_set_ids,
            ];
            for id in lists.into_iter().flatten() {
                assert!(self.sets.contains_key(id), "set {id} comes after the rule that names it");
            }
        }
    }

    /// Every policy and profile that an endpoint names is there before it.
    fn know(&self, tiers: &[TierBinding], profiles: &[String]) {
        for id in tiers.iter().flat_map(|tier| tier.ingress_policies.iter().chain(&tier.egress_policies)) {
            assert!(self.objects.contains_key(&("policy", key(id))), "{id:?} comes after its endpoint");
        }
        for name in profiles {
            assert!(self.objects.contains_key(&("profile", name.clone().into_bytes())), "{name}");
        }
    }
}

fn key(id: &PolicyId) -> Vec<u8> {
    id.encode_to_vec()
}

/// Annotations are a map without an order.
fn canonical(mut endpoint: margay_api::dataplane::v1::WorkloadEndpoint) -> Vec<u8> {
    let annotations: BTreeMap<_, _> = endpoint.annotations.drain().collect();
    let mut bytes = endpoint.encode_to_vec();
    bytes.extend(format!("{annotations:?}").into_bytes());
    bytes
}

fn records(kind: Type, members: &Members) -> Vec<Vec<u8>> {
    let (v4, v6) = match kind {
        Type::IpAndPort => (7, 19),
        Type::Net => (5, 17),
        Type::Ip | Type::Unspecified => (4, 16),
    };
    let split = |bytes: &[u8], size: usize| bytes.chunks(size).map(<[u8]>::to_vec).collect::<Vec<_>>();
    [split(&members.ipv4, v4), split(&members.ipv6, v6)].concat()
}

fn sent(from: &Desired, to: &Desired, held: &mut Held) {
    diff::changes(from, to).into_iter().for_each(|change| held.take(change));
}

fn after(objects: impl Iterator<Item = Resource>, node: &str) -> Held {
    let mut held = Held::default();
    sent(&Desired::default(), &desired(&objects.collect(), node), &mut held);
    held
}

#[test]
fn the_objects_are_worth_the_trouble() {
    let (before, end) = (objects(BEFORE), objects(AFTER));
    let (then, now) = (after(before.into_values(), "a"), after(end.into_values(), "a"));
    assert_ne!(then, now);
    for sort in ["policy", "profile", "workload", "host endpoint", "route", "pool", "host", "service"] {
        assert!(now.objects.keys().any(|(held, _)| *held == sort), "no {sort} follows from the objects");
        let of = |held: &Held| held.objects.iter().filter(|((s, _), _)| *s == sort).count();
        assert!(sort == "host" || of(&then) > 0, "{sort}");
    }
    assert!(now.sets.values().filter(|(_, members)| members.len() > 1).count() >= 3);
    let problems = desired(&objects(AFTER).into_values().collect(), "a").problems;
    assert_eq!(problems, [""; 0]);
}

#[test]
fn a_change_of_a_services_backends_is_a_change_of_it_and_of_a_set_alone() {
    let mut known: Resources = objects(AFTER).into_values().collect();
    let old = desired(&known, "a");
    let slices = "{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: back-1, namespace: shop, \
                  labels: {kubernetes.io/service-name: back}}, addressType: IPv4, \
                  endpoints: [{addresses: [10.0.1.7]}, {addresses: [10.0.1.8]}, {addresses: [10.0.1.9]}], ports: [{port: 80}]}";
    objects(slices).into_values().for_each(|slice| known.insert(slice));
    let changes = diff::changes(&old, &desired(&known, "a"));
    let [Change::IpSetDelta(delta), Change::Service(service)] = changes.as_slice() else {
        panic!("{changes:?}")
    };
    assert!(delta.id.starts_with("svc:"), "{}", delta.id);
    let added = delta.added.clone().unwrap();
    assert_eq!(added.ipv4, [10, 0, 1, 9, 6, 0, 80]);
    assert_eq!(delta.removed.clone().unwrap(), Members::default());
    assert_eq!(service.backends.len(), 3);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_history_ends_where_its_objects_end(
        history in vec((any::<prop::sample::Index>(), 0..3_u8, any::<bool>()), 0..60),
        ending in Just(objects(AFTER).into_values().collect::<Vec<_>>()).prop_shuffle(),
        pauses in vec(any::<bool>(), 64),
    ) {
        let (before, end) = (objects(BEFORE), objects(AFTER));
        let keys: Vec<&Key> = before.keys().chain(end.keys()).collect::<BTreeSet<_>>().into_iter().collect();
        let (mut known, mut shown, mut held) = (Graph::new("a"), Desired::default(), Held::default());
        for (which, act, pause) in history {
            let key = keys[which.index(keys.len())];
            match (act, before.get(key), end.get(key)) {
                (0, Some(object), _) | (1, _, Some(object)) => known.insert(object.clone()),
                _ => known.remove(key),
            }
            if pause {
                let next = known.update().clone();
                sent(&shown, &next, &mut held);
                shown = next;
            }
        }
        for key in keys.into_iter().filter(|key| !end.contains_key(key)) {
            known.remove(key);
        }
        for (at, object) in ending.into_iter().enumerate() {
            known.insert(object.clone());
            known.insert(object);
            if pauses[at % pauses.len()] {
                let next = known.update().clone();
                sent(&shown, &next, &mut held);
                shown = next;
            }
        }
        sent(&shown, known.update(), &mut held);
        prop_assert_eq!(held, after(end.into_values(), "a"));
    }
}
