//! Random objects of one small world.

use super::selectors::{Sel, Spaces, sel, sel_without_all, spaces};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use std::collections::BTreeSet;

pub(super) const NAMESPACES: [&str; 2] = ["blue", "red"];
pub(super) const LABELS: [&str; 2] = ["app", "env"];
pub(super) const VALUES: [&str; 3] = ["x", "xy", "z"];
pub(super) const ACCOUNTS: [&str; 2] = ["builder", "runner"];
/// Networks that sets and rules name, IPv4 ones first.
pub(super) const NETS: [&str; 8] = [
    "10.0.0.0/29",
    "10.0.0.0/24",
    "10.1.0.0/16",
    "0.0.0.0/0",
    "fd00::/125",
    "fd00::/64",
    "fd01::/32",
    "::/0",
];
/// Ports that endpoints have names for.
pub(super) const NAMED: [(&str, &str, u16); 4] =
    [("web", "TCP", 80), ("web", "TCP", 8080), ("web", "UDP", 80), ("dns", "UDP", 53)];
pub(super) const PROTOCOLS: [(&str, u8); 6] =
    [("TCP", 6), ("UDP", 17), ("SCTP", 132), ("ICMP", 1), ("ICMPv6", 58), ("UDPLite", 136)];

pub(super) type Labels = Vec<(String, String)>;

/// Of an address or network.
pub(super) fn version(net: &str) -> u8 {
    if net.contains(':') { 6 } else { 4 }
}

/// Something with labels and addresses: an endpoint, or a network set.
#[derive(Clone, Debug)]
pub(super) struct Entity {
    pub space: Option<usize>,
    pub labels: Labels,
    pub nets: Vec<String>,
    pub account: Option<usize>,
    /// Of [`NAMED`].
    pub ports: Vec<usize>,
}

pub(super) fn labels() -> impl Strategy<Value = Labels> {
    let value = prop::option::of(select(&VALUES[..]));
    [value.clone(), value].prop_map(|values| {
        let given = LABELS.iter().zip(values).filter_map(|(l, v)| Some(((*l).to_owned(), v?.to_owned())));
        given.collect()
    })
}

pub(super) fn set() -> impl Strategy<Value = Entity> {
    // One that holds every address is no set worth having.
    let some: Vec<String> =
        NETS.iter().filter(|net| !net.ends_with("/0")).map(|net| (*net).to_owned()).collect();
    let nets = prop::collection::vec(select(some), 0..3);
    (prop::option::of(0..2_usize), labels(), nets).prop_map(|(space, labels, nets)| Entity {
        space,
        labels,
        nets,
        account: None,
        ports: vec![],
    })
}

#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    pub space: usize,
    pub labels: Labels,
    pub account: Option<usize>,
    pub ports: Vec<usize>,
    /// Of [`World::profiles`]; one number more than there are names one that is not there.
    pub profiles: Vec<usize>,
}

pub(super) fn endpoint() -> impl Strategy<Value = Endpoint> {
    let ports = prop::collection::btree_set(0..NAMED.len(), 0..3)
        .prop_map(|ports| ports.into_iter().collect::<Vec<_>>());
    let profiles =
        prop::collection::btree_set(0..3_usize, 0..3).prop_map(|some| some.into_iter().collect::<Vec<_>>());
    let account = prop::option::of(0..ACCOUNTS.len());
    (0..2_usize, labels(), account, ports, profiles).prop_map(|(space, labels, account, ports, profiles)| {
        Endpoint { space, labels, account, ports, profiles }
    })
}

#[derive(Clone, Debug)]
pub(super) enum Port {
    Range(u16, u16),
    Named(&'static str),
}

/// One side of a rule.
#[derive(Clone, Debug, Default)]
pub(super) struct Side {
    pub nets: Vec<&'static str>,
    pub not_nets: Vec<&'static str>,
    pub selector: Option<Sel>,
    pub not_selector: Option<Sel>,
    pub spaces: Option<Spaces>,
    pub accounts: Option<(Vec<usize>, Option<Sel>)>,
    pub ports: Vec<Port>,
    pub not_ports: Vec<Port>,
    /// The backends of the service, instead of all others.
    pub service: bool,
}

pub(super) fn side() -> impl Strategy<Value = Side> {
    let some = |of: BoxedStrategy<Sel>| prop_oneof![3 => Just(None), 1 => of.prop_map(Some)];
    let spaces = prop_oneof![3 => Just(None), 1 => spaces().prop_map(Some)];
    let names = prop::collection::btree_set(0..ACCOUNTS.len(), 0..2)
        .prop_map(|some| some.into_iter().collect::<Vec<_>>());
    let accounts = (names, some(sel_without_all().boxed()));
    let accounts = prop_oneof![6 => Just(None), 1 => accounts.prop_map(Some)];
    let port = || {
        let range =
            (select(vec![53_u16, 79, 80, 8080]), 0..3_u16).prop_map(|(at, more)| Port::Range(at, at + more));
        prop::collection::vec(
            prop_oneof![2 => range, 1 => select(vec!["web", "dns"]).prop_map(Port::Named)],
            0..3,
        )
    };
    let few = || prop_oneof![3 => Just(vec![]), 1 => prop::collection::vec(select(&NETS[..]), 1..3)];
    let ports = || prop_oneof![2 => Just(vec![]), 1 => port()];
    let service = prop::bool::weighted(0.06);
    let who = (some(sel().boxed()), some(sel().boxed()), spaces, accounts);
    (few(), few(), who, ports(), ports(), service).prop_map(
        |(nets, not_nets, who, ports, not_ports, service)| {
            let (selector, not_selector, spaces, accounts) = who;
            match service {
                true => Side { service, ..Side::default() },
                false => Side {
                    nets,
                    not_nets,
                    selector,
                    not_selector,
                    spaces,
                    accounts,
                    ports,
                    not_ports,
                    service,
                },
            }
        },
    )
}

#[derive(Clone, Debug)]
pub(super) struct Rule {
    pub action: &'static str,
    pub version: Option<u8>,
    /// Of [`PROTOCOLS`].
    pub protocol: Option<usize>,
    pub not_protocol: Option<usize>,
    pub icmp: Option<(u8, Option<u8>)>,
    pub not_icmp: Option<(u8, Option<u8>)>,
    pub source: Side,
    pub destination: Side,
}

pub(super) fn rule() -> impl Strategy<Value = Rule> {
    let action = prop_oneof![
        4 => Just("Allow"), 3 => Just("Deny"), 2 => Just("Pass"), 1 => Just("Log"),
    ];
    let protocol = || prop_oneof![1 => Just(None), 2 => (0..PROTOCOLS.len()).prop_map(Some)];
    let not_protocol = prop_oneof![5 => Just(None), 1 => (0..PROTOCOLS.len()).prop_map(Some)];
    let icmp = || {
        let of = (select(vec![0_u8, 3, 8, 128]), prop::option::of(0..2_u8));
        prop_oneof![2 => Just(None), 1 => of.prop_map(Some)]
    };
    let version = prop_oneof![5 => Just(None), 1 => Just(Some(4)), 1 => Just(Some(6))];
    (action, version, protocol(), not_protocol, icmp(), icmp(), side(), side()).prop_map(
        |(action, version, protocol, not_protocol, icmp, not_icmp, source, destination)| {
            let mut rule =
                Rule { action, version, protocol, not_protocol, icmp, not_icmp, source, destination };
            rule.make_valid();
            rule
        },
    )
}

impl Rule {
    /// Leaves out what no API server would take.
    fn make_valid(&mut self) {
        let name = self.protocol.map(|at| PROTOCOLS[at].0);
        let is_icmp = name.is_some_and(|name| name.starts_with("ICMP"));
        if !is_icmp {
            (self.icmp, self.not_icmp) = (None, None);
        }
        for (at, version) in [("ICMP", 4), ("ICMPv6", 6)] {
            let named = [self.protocol, self.not_protocol].iter().flatten().any(|of| PROTOCOLS[*of].0 == at);
            if named && self.version.is_some_and(|own| own != version) {
                self.version = None;
            }
        }
        let mut family = self.version;
        for side in [&mut self.source, &mut self.destination] {
            side.not_nets.retain(|net| !net.ends_with("/0"));
            for nets in [&mut side.nets, &mut side.not_nets] {
                nets.retain(|net| *family.get_or_insert(version(net)) == version(net));
            }
            for ports in [&mut side.ports, &mut side.not_ports] {
                match name {
                    Some("TCP" | "UDP" | "SCTP") => {}
                    // A name alone is one of TCP.
                    None => ports.retain(|port| matches!(port, Port::Named(_))),
                    Some(_) => ports.clear(),
                }
            }
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Policy {
    /// `None`: a global policy.
    pub space: Option<usize>,
    pub tier: usize,
    pub order: Option<u16>,
    pub selector: Option<Sel>,
    pub spaces: Option<Spaces>,
    pub accounts: Option<Sel>,
    /// Whether types are written, and which then.
    pub types: Option<(bool, bool)>,
    pub ingress: Vec<Rule>,
    pub egress: Vec<Rule>,
    /// Two of one name in different namespaces tell ties apart.
    pub name: usize,
}

pub(super) fn policy() -> impl Strategy<Value = Policy> {
    let rules = || prop::collection::vec(rule(), 0..4);
    let order = prop_oneof![1 => Just(None), 3 => (1..4_u16).prop_map(Some)];
    let types = prop_oneof![1 => Just(None), 2 => (any::<bool>(), any::<bool>()).prop_map(Some)];
    let maybe = |of: BoxedStrategy<Sel>| prop_oneof![2 => Just(None), 1 => of.prop_map(Some)];
    let whom =
        (maybe(sel().boxed()), prop::option::weighted(0.3, spaces()), maybe(sel_without_all().boxed()));
    let place = (prop::option::of(0..2_usize), 0..3_usize, order, 0..3_usize);
    (place, whom, types, rules(), rules()).prop_map(|(place, whom, types, ingress, egress)| {
        let ((space, tier, order, name), (selector, spaces, accounts)) = (place, whom);
        let types = types.filter(|types| types.0 || types.1);
        let mut policy =
            Policy { space, tier, order, selector, spaces, accounts, types, ingress, egress, name };
        policy.make_valid();
        policy
    })
}

impl Policy {
    fn make_valid(&mut self) {
        if self.space.is_some() {
            self.spaces = None;
        }
        // It selects endpoints, and a workload has a namespace.
        if matches!(self.spaces, Some(Spaces::Global)) {
            self.spaces = Some(Spaces::All);
        }
        // A service is where traffic goes to, or comes from, but never this end of it.
        self.ingress.iter_mut().for_each(|rule| rule.destination.leave_service());
        self.egress.iter_mut().for_each(|rule| rule.source.leave_service());
    }

    pub fn kind(&self) -> &'static str {
        if self.space.is_some() { "NetworkPolicy" } else { "GlobalNetworkPolicy" }
    }

    pub fn namespace(&self) -> &'static str {
        self.space.map_or("", |space| NAMESPACES[space])
    }

    pub fn name(&self) -> String {
        let tier = TIERS[self.tier].0;
        if tier == "default" { format!("p{}", self.name) } else { format!("{tier}.p{}", self.name) }
    }

    /// As its tier has them in order.
    pub fn rank(&self) -> (u16, String) {
        (self.order.unwrap_or(u16::MAX), format!("{}/{}/{}", self.name(), self.namespace(), self.kind()))
    }

    pub fn covers(&self, ingress: bool) -> bool {
        let (to, from) = self
            .types
            .unwrap_or((!self.ingress.is_empty() || self.egress.is_empty(), !self.egress.is_empty()));
        if ingress { to } else { from }
    }
}

impl Side {
    fn leave_service(&mut self) {
        self.service = false;
    }
}

/// Name, order, and whether its end passes.
pub(super) const TIERS: [(&str, Option<u32>, bool); 3] =
    [("first", Some(5), true), ("last", None, false), ("default", Some(1_000_000), false)];
/// As packets meet them: of no order is last.
pub(super) const TIER_ORDER: [usize; 3] = [0, 2, 1];

#[derive(Clone, Debug)]
pub(super) struct World {
    /// Labels of each namespace, and of each account.
    pub spaces: [Labels; 2],
    pub accounts: [Labels; 2],
    pub endpoints: Vec<Endpoint>,
    pub sets: Vec<Entity>,
    pub policies: Vec<Policy>,
    /// Ingress and egress of each.
    pub profiles: [[Vec<Rule>; 2]; 2],
    /// Backends of the service, by endpoint and [`NAMED`].
    pub backends: Vec<(Index, usize)>,
}

pub(super) fn world() -> impl Strategy<Value = World> {
    let profile_rules = || {
        prop::collection::vec(rule(), 0..3).prop_map(|mut rules| {
            rules.iter_mut().for_each(|rule| {
                rule.source.leave_service();
                rule.destination.leave_service();
            });
            rules
        })
    };
    let profiles = [[profile_rules(), profile_rules()], [profile_rules(), profile_rules()]];
    (
        [labels(), labels()],
        [labels(), labels()],
        prop::collection::vec(endpoint(), 1..6),
        prop::collection::vec(set(), 0..3),
        prop::collection::vec(policy(), 0..7),
        profiles,
        prop::collection::vec((any::<Index>(), 0..NAMED.len()), 0..3),
    )
        .prop_map(|(spaces, accounts, endpoints, sets, policies, profiles, backends)| {
            let mut world = World { spaces, accounts, endpoints, sets, policies, profiles, backends };
            let mut seen = BTreeSet::new();
            world.policies.retain(|policy| seen.insert((policy.kind(), policy.namespace(), policy.name())));
            world
        })
}
