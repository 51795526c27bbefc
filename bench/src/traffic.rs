//! Flows for a policy: half the art of a policy benchmark is that rules deep in the list decide.

use crate::random::Random;
use crate::rig::Rig;
use crate::rules::{HOST_BITS, Rules, host};
use anyhow::{Result, ensure};
use margay_dataplane::net::{Addr, FlowKey, Icmp, Proto};
use margay_dataplane::policy::{Direction, PolicyTable, Query, reference};
use std::collections::HashSet;
use std::hash::{BuildHasherDefault, DefaultHasher};

/// Of a hundred packets, how many are made for a rule; the others come from and go to anywhere.
const AIMED: u64 = 80;
/// Packets that the linear reference judges too, to be sure of the tree.
const CHECKED: usize = 200;

/// Seeded alike in every run.
type Seen = HashSet<FlowKey, BuildHasherDefault<DefaultHasher>>;

/// Packets drawn for a policy, by its verdict.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Those it allows.
    Allowed,
    /// Those it denies.
    Denied,
    /// Both, as they come.
    Any,
}

/// `count` different flows to the workload with the verdict that is wanted, in random order.
pub fn flows(
    rules: &Rules,
    table: &PolicyTable,
    count: usize,
    wanted: Wanted,
    v6: bool,
) -> Result<Vec<FlowKey>> {
    let mut random = Random::new(0x666c_6f77);
    let (mut keys, mut seen) = (Vec::with_capacity(count), Seen::default());
    for tried in 0u64.. {
        ensure!(
            tried < 1000 + 200 * count as u64,
            "the policy allows, or denies, too little to draw {count} flows"
        );
        let key = draw(rules, &mut random, v6);
        let fits = wanted == Wanted::Any || allows(table, &key) == (wanted == Wanted::Allowed);
        if fits && seen.insert(key) {
            keys.push(key);
            if keys.len() == count {
                break;
            }
        }
    }
    verify(table, &keys)?;
    Ok(keys)
}

/// As policy is asked of it.
pub fn query(key: &FlowKey) -> Query {
    Query { key: *key, icmp: Icmp::default() }
}

fn draw(rules: &Rules, random: &mut Random, v6: bool) -> FlowKey {
    let anywhere = (random.below(1 << HOST_BITS) as u32, 1 + random.below(65_535) as u16);
    let (number, dport) = if random.chance(AIMED) { *random.pick(&rules.aims) } else { anywhere };
    let any_source = rules.aims.len() == 1;
    FlowKey {
        src: host(if any_source { anywhere.0 } else { number }, v6),
        dst: Rig::destination(v6),
        sport: 1024 + random.below(64_000) as u16,
        dport,
        proto: Proto::UDP,
    }
}

fn allows(table: &PolicyTable, key: &FlowKey) -> bool {
    table.judge(Rig::ENDPOINT, Direction::Ingress, &query(key)).allow
}

/// The tree and the reference agree, on a sample.
fn verify(table: &PolicyTable, keys: &[FlowKey]) -> Result<()> {
    let list = Rig::tree(table)?.compiled().list();
    for key in keys.iter().step_by(keys.len().div_ceil(CHECKED)) {
        let right = reference::judge(list, table.sets(), &query(key)).allow;
        ensure!(allows(table, key) == right, "the tree and the reference disagree about {key}");
    }
    Ok(())
}

/// `count` flows to anywhere, for tables that know no policy.
pub fn any(count: usize, v6: bool) -> Vec<FlowKey> {
    let mut random = Random::new(0x0061_6e79);
    let (mut keys, mut seen) = (Vec::with_capacity(count), Seen::default());
    while keys.len() < count {
        let number = random.below(1 << HOST_BITS) as u32;
        let dst: Addr = Rig::destination(v6);
        let [sport, dport] = [0; 2].map(|_: u8| 1 + random.below(65_535) as u16);
        let key = FlowKey { src: host(number, v6), dst, sport, dport, proto: Proto::UDP };
        if seen.insert(key) {
            keys.push(key);
        }
    }
    keys
}
