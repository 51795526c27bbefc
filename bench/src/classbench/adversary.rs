//! Packets that cost a tree most: what somebody would send who knows it.

use super::files::{Filter, Packet, Set};
use crate::random::Random;
use margay_dataplane::policy::{CompiledPolicy, SetTable};

/// Packets tried.
const CANDIDATES: usize = 1 << 18;
/// Different ones that are kept.
const KEPT: usize = 1 << 12;

/// The costliest by the walk's own count of nodes and blocks, of the trace's packets and of such
/// as take their source from one filter, their destination from another, and ports from a third.
pub fn packets(set: &Set, policy: &CompiledPolicy) -> Vec<Packet> {
    let mut random = Random::new(0x0061_6476);
    let sets = SetTable::default();
    let mut tried: Vec<(u32, Packet)> = (0..CANDIDATES)
        .map(|number| {
            let packet = match set.packets.get(number) {
                Some(packet) if number % 2 == 0 => *packet,
                _ => crossed(&set.filters, &mut random),
            };
            let work = policy.work(&sets, &packet.query(false));
            (2 * work.nodes + work.blocks, packet)
        })
        .collect();
    tried.sort_by_key(|(cost, packet)| (std::cmp::Reverse(*cost), packet.src, packet.dst));
    tried.truncate(KEPT);
    tried.into_iter().map(|(_, packet)| packet).collect()
}

fn crossed(filters: &[Filter], random: &mut Random) -> Packet {
    let [a, b, c] = [0; 3].map(|_: u8| *random.pick(filters));
    let mut within = |(addr, len): (u32, u8)| {
        let host = if len == 32 { 0 } else { u32::MAX >> len };
        addr & !host | random.bits() as u32 & host
    };
    let (src, dst) = (within(a.src), within(b.dst));
    Packet {
        src,
        dst,
        sport: if random.chance(50) { c.sport.first } else { c.sport.last },
        dport: if random.chance(50) { c.dport.first } else { c.dport.last },
        proto: c.proto.or(a.proto).or(b.proto).unwrap_or(6),
    }
}
