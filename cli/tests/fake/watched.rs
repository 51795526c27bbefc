//! Two packets: one that passed, translated on its way, and one that policy denied.

use std::vec::IntoIter;

use margay_api::dataplane::v1::{
    WatchFact, WatchRequest, WatchResponse, WatchStep, WatchedFrame, WatchedPacket,
};
use tonic::Status;

/// 2026-01-01.
const BEGIN: u64 = 1_767_225_600_000_000_000;

/// As the request asks for it.
pub fn told(request: &WatchRequest) -> IntoIter<Result<WatchResponse, Status>> {
    let packets = [passed(request), denied(request)];
    let packets = packets.into_iter().filter(|packet| !request.dropped_only || packet.outcome == "drop");
    let packets = match request.count {
        0 => packets.collect(),
        count => packets.take(count as usize).collect(),
    };
    vec![Ok(WatchResponse { packets, lost: 0, passed_over: 3 })].into_iter()
}

fn passed(request: &WatchRequest) -> WatchedPacket {
    let steps = vec![
        step("parse", "conntrack", 0, &[("packet", "tcp 10.0.0.1:4000 > 10.96.0.1:80"), ("tcp", "S")]),
        step("conntrack", "miss", 400, &[]),
        step("service", "route", 900, &[("becomes", "tcp 10.0.0.1:4000 > 10.0.0.2:8080")]),
        step("tx", "", 2_500, &[("out", "cali-db")]),
    ];
    WatchedPacket {
        number: 1,
        interface: "cali-web".into(),
        flow: "tcp 10.0.0.1:4000 > 10.96.0.1:80".into(),
        length: 54,
        unix_nanos: BEGIN,
        outcome: "tx".into(),
        steps: if request.steps { steps } else { vec![] },
        frames: frames(&[(request.rx, "rx", "cali-web", 0), (request.tx, "tx", "cali-db", 2_500)]),
        verdict: facts(&[
            ("verdict", "pass"),
            ("generation", if request.program.is_empty() { "41" } else { "42" }),
        ]),
    }
}

fn denied(request: &WatchRequest) -> WatchedPacket {
    let why = [("reason", "policy-denied"), ("rule", "ingress of shop/db, tier default, by default")];
    WatchedPacket {
        number: 2,
        interface: "eth0".into(),
        flow: "tcp 10.0.0.9:4000 > 10.0.0.2:23".into(),
        length: 54,
        unix_nanos: BEGIN + 1_000_000_000,
        outcome: "drop".into(),
        steps: if request.steps { vec![step("drop", "", 1_000, &why)] } else { vec![] },
        frames: frames(&[
            (request.rx, "rx", "eth0", 1_000_000_000),
            (request.drop, "drop", "eth0", 1_000_001_000),
        ]),
        verdict: facts(&[("verdict", "drop"), why[0], why[1], ("generation", "41")]),
    }
}

fn step(node: &str, next: &str, nanoseconds: u64, facts: &[(&str, &str)]) -> WatchStep {
    WatchStep {
        node: node.into(),
        next: next.into(),
        worker: 0,
        nanoseconds,
        cycles: if next.is_empty() { 0 } else { 120 },
        vector: 1,
        facts: self::facts(facts),
    }
}

fn facts(facts: &[(&str, &str)]) -> Vec<WatchFact> {
    let fact = |(name, value): &(&str, &str)| WatchFact { name: (*name).into(), value: (*value).into() };
    facts.iter().map(fact).collect()
}

fn frames(frames: &[(bool, &str, &str, u64)]) -> Vec<WatchedFrame> {
    let wanted = frames.iter().filter(|(wanted, ..)| *wanted);
    let frame = |(_, direction, interface, after): &(bool, &str, &str, u64)| WatchedFrame {
        direction: (*direction).into(),
        interface: (*interface).into(),
        unix_nanos: BEGIN + after,
        length: 54,
        data: frame(),
    };
    wanted.map(frame).collect()
}

/// Ethernet, IPv4 and a TCP SYN.
fn frame() -> Vec<u8> {
    let ethernet = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
    let ip = [0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0x66, 0xcd, 10, 0, 0, 1, 10, 0, 0, 2];
    let tcp = [0x0f, 0xa0, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0x4c, 0x26, 0, 0];
    [&ethernet[..], &ip, &tcp].concat()
}
