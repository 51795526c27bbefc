//! Fragments of several packets, fair and foul, in any order over any number of workers. What is
//! allowed and fair arrives whole; what is denied, or overlaps, never arrives.
#![no_main]

#[path = "../../../dataplane/tests/build/mod.rs"]
mod build;

use arbitrary::Arbitrary;
use build::frames::{cut, fragment};
use build::*;
use libfuzzer_sys::fuzz_target;
use margay_dataplane::net::Nanos;
use margay_dataplane::packet::DropReason;
use margay_dataplane::simulation::{Setup, Simulation};
use std::collections::BTreeMap;

/// TCP, to workload 3, which takes port 80 only: the fourth packet is denied.
const PACKETS: [(&str, u16); 4] = [("10.65.0.3", 80), ("fd65::3", 80), ("10.65.0.2", 81), ("fd65::3", 81)];
const LEN: usize = 640;
/// Steps taken: fewer than fragments may wait at a time.
const MOST: usize = 100;

#[derive(Arbitrary, Debug)]
struct Input {
    workers: u8,
    steps: Vec<Step>,
}

#[derive(Arbitrary, Debug)]
enum Step {
    /// One of the pieces that a packet is cut into.
    Piece {
        packet: u8,
        piece: u8,
    },
    /// Whatever an attacker likes.
    Foul {
        packet: u8,
        start: u16,
        len: u8,
        last: bool,
    },
    Run {
        seconds: u8,
    },
}

fuzz_target!(|input: Input| {
    let workers = 1 + input.workers % 4;
    let mut node = standard(Setup { workers, frames: 4096, large: 4, flows: 64, ticks: || 0 });
    let wholes: Vec<_> = PACKETS.iter().map(|(to, port)| whole(to, *port)).collect();
    let pieces: Vec<_> = wholes.iter().zip(0u16..).map(|(whole, id)| cut(whole, id, 128)).collect();
    let mut sent = [0u64; 4];
    let (mut fouled, mut elapsed) = ([false; 4], 0);
    for step in input.steps.iter().take(MOST) {
        match *step {
            Step::Piece { packet, piece } => {
                let packet = usize::from(packet) % 4;
                let piece = usize::from(piece) % pieces[packet].len();
                sent[packet] |= 1 << piece;
                node.push("cali1", &pieces[packet][piece]);
            }
            Step::Foul { packet, start, len, last } => {
                let packet = usize::from(packet) % 4;
                fouled[packet] = true;
                let bytes = vec![0x50; usize::from(len)];
                node.push(
                    "cali1",
                    &fragment(&wholes[packet], packet as u16, usize::from(start & 0xfff8), &bytes, last),
                );
            }
            Step::Run { seconds } => {
                elapsed += u64::from(seconds);
                node.step(Nanos::from_secs(seconds.into()));
                node.check();
            }
        }
    }
    node.step(Nanos(1));
    node.check();
    let arrived = arrivals(&node);
    let any = |to: &str| arrived.get(to).copied().unwrap_or(0);
    // Its first fragment alone is let through or not: nothing of a denied packet is ever seen.
    if !fouled[1] && sent[1] == 0 {
        assert_eq!(any("cali3 v6"), 0, "{input:?}");
    }
    let whole = (1u64 << pieces[0].len()) - 1;
    if sent[0] == whole && !fouled[0] && elapsed < 30 {
        assert!(any("cali3 v4") >= pieces[0].len(), "{input:?}");
    }
    node.step(Nanos::from_secs(60));
    node.check();
    assert_eq!(node.account().in_flight, 0);
    let unexplained = |worker: &margay_dataplane::worker::Worker| {
        worker.world().counters.dropped(DropReason::Unspecified).get()
    };
    assert_eq!(node.workers.iter().map(unexplained).sum::<u64>(), 0, "every drop has a reason");
});

fn whole(to: &str, port: u16) -> Vec<u8> {
    let from = if addr(to).is_v4() { "10.65.0.1" } else { "fd65::1" };
    let step = ip(workload_mac(1), gateway_mac(), from, to, 64);
    let mut out = vec![];
    step.tcp(4000, port, 1000, 1024).syn().write(&mut out, &[1; LEN]).unwrap();
    out
}

/// How many frames came out, by interface and version.
fn arrivals(node: &Simulation) -> BTreeMap<String, usize> {
    let mut seen = BTreeMap::new();
    for interface in ["cali2", "cali3"] {
        while let Some(frame) = node.pop(interface) {
            let version = frame[14] >> 4;
            *seen.entry(format!("{interface} v{version}")).or_default() += 1;
        }
    }
    seen
}
