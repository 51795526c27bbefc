//! Clusters judged once more, by a reading of the objects that knows no IP set, no message and no tree: what a selector
//! means is looked up in labels, packet by packet.

mod meaning;
mod objects;
mod selectors;
mod world;

use meaning::Seen;
use world::world;

use margay_agent::model::load;
use margay_dataplane::net::{Addr, FlowKey, Icmp, Proto};
use margay_dataplane::policy::{Place, Query};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::RngSeed;
use serde_json::{Value, json};

use super::{Cluster, Judgement, Packet};

/// Worlds that are tried.
const CASES: u32 = 500;

/// Ends of packets: endpoints, and what is near them.
fn packet() -> impl Strategy<Value = (u8, u8, Query)> {
    let port = || select(vec![53_u16, 79, 80, 81, 8080, 9000]);
    let icmp = (select(vec![0_u8, 3, 8, 128]), 0..2_u8);
    let proto = select(vec![6, 6, 6, 6, 17, 17, 17, 132, 1, 58, 136, 47]);
    (0..9_u8, 0..9_u8, any::<bool>(), proto, port(), port(), icmp).prop_map(
        |(from, to, v6, proto, sport, dport, (kind, code))| {
            let proto = Proto(proto);
            let (sport, dport) = if proto.has_ports() { (sport, dport) } else { (0, 0) };
            let icmp = if proto.is_icmp() { Icmp { kind, code } } else { Icmp::default() };
            let at = |end: u8| -> Addr {
                let near = match (end, v6) {
                    (0..=6, false) => format!("10.0.0.{}", end + 1),
                    (7, false) => "10.1.2.3".into(),
                    (_, false) => "192.0.2.1".into(),
                    (0..=6, true) => format!("fd00::{}", end + 1),
                    (7, true) => "fd01::1".into(),
                    (_, true) => "2001:db8::1".into(),
                };
                near.parse().unwrap()
            };
            (from, to, Query { key: FlowKey { src: at(from), dst: at(to), sport, dport, proto }, icmp })
        },
    )
}

fn cluster(objects: Vec<Value>) -> Cluster {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string();
    let objects = load(&list).unwrap_or_else(|errors| panic!("{errors:?}"));
    let admitted = objects.into_iter().map(|one| one.admit().unwrap_or_else(|errors| panic!("{errors:?}")));
    Cluster::new(admitted.collect()).unwrap_or_else(|failure| panic!("{failure}"))
}

fn told(judgement: &Judgement) -> (bool, String) {
    let decider = &judgement.explained.decider;
    let who = match &decider.place {
        Place::Policy { policy, .. } => {
            format!("{} {}/{} {}", policy.kind, policy.namespace, policy.name, decider.rule)
        }
        Place::TierEnd { tier } => format!("end of {tier}"),
        Place::Profile { name } if ["profile0", "profile1"].contains(&&**name) => {
            format!("{name} {}", decider.rule)
        }
        Place::Profile { .. } => "a missing profile".into(),
        Place::End => "the end".into(),
    };
    (judgement.allows(), who)
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(7),
        ..ProptestConfig::with_cases(CASES)
    })]

    #[test]
    fn what_objects_say_is_what_packets_meet(world in world(), packets in prop::collection::vec(packet(), 48)) {
        let cluster = cluster(world.objects());
        let entities = world.entities();
        for (from, to, query) in packets {
            let seen = Seen { query, entities: &entities };
            let answer = cluster.judge(&Packet::of(query, &cluster)).unwrap_or_else(|failure| panic!("{failure}"));
            for (end, ingress, said) in [(from, false, &answer.egress), (to, true, &answer.ingress)] {
                let at = usize::from(end);
                let right = (at < world.endpoints.len()).then(|| world.judge(at, ingress, &seen));
                prop_assert_eq!(said.as_ref().map(told), right, "ingress {}: {:?}", ingress, query);
            }
        }
    }
}
