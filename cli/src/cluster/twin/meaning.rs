//! What the world means, packet by packet.

use super::objects::addresses;
use super::world::{
    Endpoint, Entity, NAMED, PROTOCOLS, Policy, Port, Rule, Side, TIER_ORDER, TIERS, World, version,
};
use margay_dataplane::net::{Addr, Icmp};
use margay_dataplane::policy::Query;
use std::net::IpAddr;

impl World {
    pub fn entities(&self) -> Vec<Entity> {
        let endpoint = |(at, endpoint): (usize, &Endpoint)| Entity {
            space: Some(endpoint.space),
            labels: endpoint.labels.clone(),
            nets: addresses(at).into(),
            account: endpoint.account,
            ports: endpoint.ports.clone(),
        };
        self.endpoints.iter().enumerate().map(endpoint).chain(self.sets.iter().cloned()).collect()
    }

    /// Who decides about a packet to or from the endpoint, in words, and whether it may pass.
    pub fn judge(&self, at: usize, ingress: bool, packet: &Seen<'_>) -> (bool, String) {
        let endpoint = &self.endpoints[at];
        let own = &packet.entities[at];
        for tier in TIER_ORDER {
            let mut policies: Vec<&Policy> = self
                .policies
                .iter()
                .filter(|policy| policy.tier == tier && policy.covers(ingress) && self.applies(policy, own))
                .collect();
            if policies.is_empty() {
                continue;
            }
            policies.sort_by_key(|policy| policy.rank());
            let rules = policies.iter().flat_map(|policy| {
                let rules = if ingress { &policy.ingress } else { &policy.egress };
                rules.iter().enumerate().map(move |(number, rule)| (*policy, number, rule))
            });
            let mut matched = rules
                .filter(|(policy, _, rule)| rule.action != "Log" && packet.meets(self, rule, policy.space));
            match matched.next() {
                Some((_, _, rule)) if rule.action == "Pass" => continue,
                Some((policy, number, rule)) => {
                    let who = format!("{} {}/{} {number}", policy.kind(), policy.namespace(), policy.name());
                    return (rule.action == "Allow", who);
                }
                None if TIERS[tier].2 => continue,
                None => return (false, format!("end of {}", TIERS[tier].0)),
            }
        }
        for profile in &endpoint.profiles {
            let Some(both) = self.profiles.get(*profile) else { return (false, "a missing profile".into()) };
            let rules = both[usize::from(!ingress)].iter().enumerate();
            let mut matched =
                rules.filter(|(_, rule)| rule.action != "Log" && packet.meets(self, rule, None));
            if let Some((number, rule)) = matched.next() {
                return (rule.action == "Allow", format!("profile{profile} {number}"));
            }
        }
        (false, "the end".into())
    }

    fn applies(&self, policy: &Policy, to: &Entity) -> bool {
        let own = policy.space.is_none_or(|space| to.space == Some(space));
        let none = vec![];
        let account = to.account.map_or(&none, |at| &self.accounts[at]);
        own && policy.selector.as_ref().is_none_or(|sel| sel.selects(&to.labels))
            && policy.spaces.as_ref().is_none_or(|spaces| spaces.hold(self, to))
            && policy.accounts.as_ref().is_none_or(|sel| sel.selects(account))
    }
}

/// A packet, and all it may meet.
pub(super) struct Seen<'a> {
    pub query: Query,
    pub entities: &'a [Entity],
}

impl Seen<'_> {
    fn meets(&self, world: &World, rule: &Rule, space: Option<usize>) -> bool {
        let key = &self.query.key;
        let of = if key.src.is_v4() { 4 } else { 6 };
        let sides = [&rule.source, &rule.destination];
        // A list that has nothing of the packet's version is of another.
        let other = |nets: &[&str]| !nets.is_empty() && nets.iter().all(|net| version(net) != of);
        if rule.version.is_some_and(|version| version != of)
            || sides.iter().any(|side| other(&side.nets) || other(&side.not_nets))
        {
            return false;
        }
        let number = |at: usize| PROTOCOLS[at].1;
        let icmp = |(kind, code): (u8, Option<u8>)| {
            let Icmp { kind: own, code: own_code } = self.query.icmp;
            key.proto.is_icmp() && own == kind && code.is_none_or(|code| code == own_code)
        };
        rule.protocol.is_none_or(|at| number(at) == key.proto.0)
            && rule.not_protocol.is_none_or(|at| number(at) != key.proto.0)
            && rule.icmp.is_none_or(icmp)
            && !rule.not_icmp.is_some_and(icmp)
            && self.side(world, rule, &rule.source, space, (key.src, key.sport), false)
            && self.side(world, rule, &rule.destination, space, (key.dst, key.dport), true)
    }

    fn side(
        &self,
        world: &World,
        rule: &Rule,
        side: &Side,
        space: Option<usize>,
        (addr, port): (Addr, u16),
        destination: bool,
    ) -> bool {
        let proto = self.query.key.proto;
        if side.service {
            return world.backends.iter().any(|(endpoint, named)| {
                let own = addresses(endpoint.index(world.endpoints.len()));
                let (_, protocol, number) = NAMED[*named];
                let there = own.iter().any(|own| own.parse() == Ok(addr));
                there && (!destination || (number_of(protocol) == proto.0 && number == port))
            });
        }
        let none = vec![];
        let positive = |one: &Entity| {
            let names =
                |names: &[usize]| names.is_empty() || one.account.is_some_and(|own| names.contains(&own));
            let account = one.account.map_or(&none, |at| &world.accounts[at]);
            // A lone notSelector or account keeps to the policy's own namespace, too.
            let asks = side.selector.is_some() || side.not_selector.is_some() || side.asks_account();
            let here = match (&side.spaces, space) {
                (Some(spaces), _) => spaces.hold(world, one),
                (None, Some(space)) if asks => one.space == Some(space),
                (None, _) => true,
            };
            here && side.selector.as_ref().is_none_or(|sel| sel.selects(&one.labels))
                && side
                    .accounts
                    .as_ref()
                    .is_none_or(|(of, sel)| names(of) && sel.as_ref().is_none_or(|sel| sel.selects(account)))
        };
        let has = |one: &Entity| one.nets.iter().any(|net| within(addr, net));
        let known = |is: &dyn Fn(&Entity) -> bool| self.entities.iter().any(|one| has(one) && is(one));
        let restricted = side.selector.is_some()
            || side.spaces.is_some()
            || side.asks_account()
            || (side.not_selector.is_some() && space.is_some());
        let numbered = |of: &Port| match of {
            Port::Range(first, last) => proto.has_ports() && (*first..=*last).contains(&port),
            Port::Named(name) => {
                let wanted = rule.protocol.map_or(6, |at| PROTOCOLS[at].1);
                let calls = |at: &usize| {
                    let (own, protocol, number) = NAMED[*at];
                    own == *name && number_of(protocol) == wanted && number == port
                };
                proto.0 == wanted && known(&|one| positive(one) && one.ports.iter().any(calls))
            }
        };
        (side.nets.is_empty() || side.nets.iter().any(|net| within(addr, net)))
            && !side.not_nets.iter().any(|net| within(addr, net))
            && (!restricted || known(&positive))
            && !side.not_selector.as_ref().is_some_and(|sel| known(&|one| sel.selects(&one.labels)))
            && (side.ports.is_empty() || side.ports.iter().any(numbered))
            && !side.not_ports.iter().any(numbered)
    }
}

impl Side {
    fn asks_account(&self) -> bool {
        self.accounts.as_ref().is_some_and(|(names, sel)| !names.is_empty() || sel.is_some())
    }
}

pub(super) fn number_of(protocol: &str) -> u8 {
    PROTOCOLS.iter().find(|(name, _)| *name == protocol).unwrap().1
}

/// Bit by bit; an address alone is all of its bits.
pub(super) fn within(addr: Addr, net: &str) -> bool {
    let (base, len) = net.split_once('/').unwrap_or((net, "128"));
    let bits = |addr: IpAddr| match addr {
        IpAddr::V4(addr) => format!("{:032b}", u32::from(addr)),
        IpAddr::V6(addr) => format!("{:0128b}", u128::from(addr)),
    };
    let (own, base) = (bits(addr.into()), bits(base.parse().unwrap()));
    let len = len.parse::<usize>().unwrap().min(own.len());
    own.len() == base.len() && own[..len] == base[..len]
}
