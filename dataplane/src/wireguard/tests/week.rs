//! A week between two nodes, over a network that loses, delays, reorders and repeats, and at times carries nothing.

use super::*;
use crate::wireguard::timers::WIPE_AFTER;
use std::collections::BTreeMap;

const WEEK: u64 = 7 * 24 * 3_600;

/// What the network is like for a while.
#[derive(Clone, Copy, Debug)]
struct Weather {
    /// Datagrams of a hundred that are lost.
    loss: u64,
    /// Milliseconds that they take at most; those that take longer are overtaken.
    delay: u64,
    /// Seconds between packets that a node wants to send, on average; zero for none.
    pause: u64,
    /// How long it lasts, in seconds.
    until: u64,
}

#[test]
fn no_session_is_stuck_no_nonce_comes_twice_and_keys_go_in_time() {
    let mut chance = Seeded(20);
    let mut nodes = Node::pair();
    let publics = [nodes[1].interface.public(), nodes[0].interface.public()];
    let mut air: BTreeMap<(u64, u64), (usize, Vec<u8>)> = BTreeMap::new();
    let mut sequence = 0;
    let mut weather = Weather { loss: 0, delay: 50, pause: 3, until: 0 };
    let (mut delivered, mut dark, mut wiped, mut handshakes) = (0, 0, 0, 0);
    // For each direction, since when packets were sent in vain.
    let mut vain: [Option<u64>; 2] = [None; 2];
    let mut quiet_since = 0;
    let mut millis = 0u64;
    while millis < WEEK * 1_000 {
        let now = Nanos::from_millis(millis);
        if millis >= weather.until * 1_000 {
            weather = match chance.below(10) {
                0 => Weather { loss: 100, delay: 50, pause: 2, until: 0 },
                1 | 2 => Weather { loss: 0, delay: 30, pause: 0, until: 0 },
                3 | 4 => Weather { loss: 30, delay: 3_000, pause: 4, until: 0 },
                5 => Weather { loss: 45, delay: 200, pause: 10, until: 0 },
                _ => Weather { loss: 2, delay: 100, pause: 30, until: 0 },
            };
            weather.until = millis / 1_000 + 60 + chance.below(2_400);
            dark += u64::from(weather.loss == 100);
            vain = [None; 2];
        }
        for from in 0..2 {
            // Either end is polled when it asks for it; senders think twice a second.
            if nodes[from].interface.next().is_some_and(|next| next <= now) {
                nodes[from].poll(now);
            }
            if millis.is_multiple_of(500) && weather.pause > 0 && chance.below(2 * weather.pause) == 0 {
                let known = nodes[from].interface.endpoint(publics[from]).is_some();
                if known {
                    nodes[from].waiting.clear();
                    nodes[from].send(publics[from], &millis.to_le_bytes(), now);
                    vain[from].get_or_insert(millis);
                }
            }
            for (_, datagram) in std::mem::take(&mut nodes[from].out) {
                handshakes += u64::from(datagram[0] == 2);
                let copies = if chance.below(50) == 0 { 2 } else { 1 };
                for _ in 0..copies {
                    if chance.below(100) >= weather.loss {
                        sequence += 1;
                        air.insert(
                            (millis + 1 + chance.below(weather.delay), sequence),
                            (1 - from, datagram.clone()),
                        );
                    }
                }
            }
        }
        while let Some(entry) = air.first_entry().filter(|entry| entry.key().0 <= millis) {
            let (to, datagram) = entry.remove();
            let (before, from) = (nodes[to].received.len(), nodes[1 - to].address);
            nodes[to].deliver(&datagram, from, now);
            if nodes[to].received.len() > before {
                delivered += 1;
                vain[1 - to] = None;
                nodes[to].received.clear();
            }
        }
        // However bad, a packet gets through as soon as some do.
        for since in vain.into_iter().flatten() {
            let stuck = weather.loss < 100 && millis - since > 300_000;
            assert!(
                !stuck,
                "second {}: nothing came since second {}, {weather:?}",
                millis / 1_000,
                since / 1_000
            );
        }
        if weather.pause > 0 || !air.is_empty() {
            quiet_since = millis;
        } else if millis - quiet_since > WIPE_AFTER.0 / 1_000_000 + 120_000 {
            wiped += 1;
            assert_eq!([nodes[0].alive(), nodes[1].alive()], [0, 0], "second {}", millis / 1_000);
        }
        for node in &mut nodes {
            assert!(node.alive() <= 3, "previous, current and next");
            node.sessions.retain(|session| session.strong_count() > 0);
        }
        millis = next(&nodes, &air, &weather, millis);
    }
    assert!(
        delivered > 30_000 && dark > 5 && wiped > 5 && handshakes > 1_000,
        "{delivered} {dark} {wiped} {handshakes}"
    );
}

/// When something happens next.
fn next(
    nodes: &[Node; 2],
    air: &BTreeMap<(u64, u64), (usize, Vec<u8>)>,
    weather: &Weather,
    millis: u64,
) -> u64 {
    let timers = nodes.iter().filter_map(|node| node.interface.next()).map(|next| next.0.div_ceil(1_000_000));
    let arrival = air.first_key_value().map(|((at, _), _)| *at);
    let senders = (weather.pause > 0).then_some((millis / 500 + 1) * 500);
    let soonest = timers.chain(arrival).chain(senders).chain([weather.until * 1_000]).min();
    soonest.unwrap_or(WEEK * 1_000).max(millis + 1)
}
