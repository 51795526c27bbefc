//! A recorded session is replayed into the dataplane; what it sends, drops and counts is a text
//! that people can read and reviews can compare.
//!
//! `tests/data/session.pcap` is what [`session`] makes, and `UPDATE=1` writes both anew.
#![allow(missing_docs)]

mod build;
mod golden;
mod summary;

use build::frames::*;
use build::*;
use margay_api::dataplane::v1 as pb;
use margay_dataplane::io::pcap::{Directions, Pace, Record, Replay};
use margay_dataplane::net::{Mac, Nanos, Proto};
use margay_dataplane::packet::DropReason;
use margay_dataplane::simulation::{Setup, Simulation};
use margay_dataplane::wire::arp::Operation;
use margay_dataplane::wire::{ethernet, nd};
use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use summary::summary;

const STATIONS: [(&str, Mac); 4] =
    [("cali1", workload_mac(1)), ("cali2", workload_mac(2)), ("cali3", workload_mac(3)), ("eth0", PEER_MAC)];
/// Between two packets of the session: each drop of it is shown.
const BEAT: Nanos = Nanos::from_millis(20);

#[test]
fn the_session_comes_out_as_agreed() {
    let capture = committed_capture();
    let (node, records) = replay(&capture);
    node.check();
    golden::compare("session.txt", &story(&node, &records));
}

#[test]
fn replays_are_alike() {
    let capture = committed_capture();
    let [(a, first), (b, second)] = [replay(&capture), replay(&capture)];
    assert_eq!(story(&a, &first), story(&b, &second));
}

#[test]
fn others_find_nothing_wrong_with_what_is_sent() {
    let (_, records) = replay(&committed_capture());
    let sent: Vec<Packet> = records.into_iter().filter(|packet| packet.sent).collect();
    let wrong = |packets: &[Packet]| {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().write_all(&pcap(packets.iter().map(|p| (p.at, &p.frame[..])))).unwrap();
        dissect(file.path())
    };
    let Some(found) = wrong(&sent) else { return };
    assert_eq!(found, "", "packets that tshark finds malformed, or with a wrong checksum");
    let mut broken = sent;
    let last = broken.iter_mut().rfind(|p| p.frame[12..14] == [8, 0]).unwrap();
    last.frame[24] ^= 1;
    assert_ne!(wrong(&broken).unwrap(), "", "a wrong checksum is found");
}

/// What tshark says of the packets it finds wrong; `None` where there is no tshark.
fn dissect(file: &Path) -> Option<String> {
    let mut tshark = Command::new("tshark");
    for protocol in ["ip", "tcp", "udp"] {
        tshark.args(["-o", &format!("{protocol}.check_checksum:TRUE")]);
    }
    let bad = ["ip", "tcp", "udp", "icmp", "icmpv6"].map(|of| format!("{of}.checksum.status == 0"));
    let filter = format!("_ws.malformed || {}", bad.join(" || "));
    match tshark.args(["-n", "-Y", &filter, "-r"]).arg(file).output() {
        Ok(output) => {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            Some(String::from_utf8_lossy(&output.stdout).into_owned())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            eprintln!("SKIPPED: tshark is not installed (apt-get install tshark)");
            None
        }
        Err(error) => panic!("tshark: {error}"),
    }
}

/// The file in the repository, which is what `session` makes.
fn committed_capture() -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/session.pcap");
    let frames = session();
    let made = pcap(frames.iter().map(|(at, frame)| (*at, &frame[..])));
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    let committed = std::fs::read(&path).expect("the capture is in the repository");
    assert!(committed == made, "{} is not what the test makes: run it with UPDATE=1", path.display());
    committed
}

struct Packet {
    at: Nanos,
    interface: &'static str,
    /// Else received.
    sent: bool,
    frame: Vec<u8>,
}

/// Replays the capture, each station's packets on its own interface: the node, and all that passed.
fn replay(capture: &[u8]) -> (Simulation, Vec<Packet>) {
    let packets = read_pcap(capture);
    let mut node = Simulation::new(Setup::default());
    let mut tapes = vec![];
    for (interface, mac) in STATIONS {
        let own = packets.iter().filter(|(_, frame)| frame[6..12] == mac.0);
        let own: Vec<(Nanos, &[u8])> = own.map(|(at, frame)| (*at, &frame[..])).collect();
        assert_eq!(own[0].0, Nanos(0), "every station speaks at the start, so that all clocks agree");
        let file = pcap(own.into_iter());
        let (received, sent) = (Tape::default(), Tape::default());
        tapes.push((interface, received.clone(), sent.clone()));
        node.wrap(interface, move |_| {
            let replay = Replay::new(&file[..], Pace::AsRecorded).expect("just written");
            let record = Record::new(replay, received, Directions::Received).expect("into memory");
            Box::new(Record::new(record, sent, Directions::Transmitted).expect("into memory"))
        });
    }
    let mut node = furnished(node);
    node.vlan("eth0", 100, UPLINK_MAC, &[(addr("172.16.0.1"), 24)]);
    node.commit(desired()).unwrap();
    let end = packets.last().expect("there are packets").0.plus(Nanos::from_secs(5));
    let start = node.now();
    while node.now().since(start) < end {
        node.step(Nanos::from_millis(5));
        node.check();
    }
    let mut records = vec![];
    for (interface, received, sent) in &tapes {
        for (tape, sent) in [(received, false), (sent, true)] {
            let bytes = tape.0.lock().unwrap();
            let of = |(at, frame): (Nanos, Vec<u8>)| Packet { at: at.since(start), interface, sent, frame };
            records.extend(read_pcap(&bytes).into_iter().map(of));
        }
    }
    // What came before what it caused; the sort is stable.
    records.sort_by_key(|packet| (packet.at, packet.sent));
    assert_eq!(records.iter().filter(|packet| !packet.sent).count(), packets.len(), "all were received");
    (node, records)
}

fn desired() -> Vec<pb::Change> {
    let mut changes = standard_changes();
    changes.push(via("10.66.0.0/16", "172.16.0.2"));
    changes.push(via("10.68.0.0/16", "192.168.0.77"));
    changes
}

/// Everything that happened, one line each, then the counts.
fn story(node: &Simulation, records: &[Packet]) -> String {
    let mut out = String::new();
    for Packet { at, interface, sent, frame } in records {
        let (arrow, ms) = (if *sent { "  <-" } else { "->" }, at.0 / 1_000_000);
        writeln!(out, "{:2}.{:03} {arrow} {interface}: {}", ms / 1000, ms % 1000, summary(frame)).unwrap();
    }
    writeln!(out, "\ndropped, in order:").unwrap();
    for event in &node.drops {
        let margay_dataplane::nodes::Event::Dropped { reason, interface, key, deciding, .. } = event else {
            continue;
        };
        let name = STATIONS.iter().find(|(name, _)| node.state.id(name) == Some(*interface));
        let name = name.map_or("eth0.100", |(name, _)| name);
        let side = deciding.map_or("", |d| if d.ingress { ", ingress" } else { ", egress" });
        writeln!(out, "{name}: {}: {key}{side}", reason.name()).unwrap();
    }
    writeln!(out, "\ndrops by reason:").unwrap();
    let counters = &node.workers[0].world().counters;
    for reason in DropReason::ALL {
        let count = counters.dropped(*reason).get();
        if count > 0 {
            writeln!(out, "{count:3} {}", reason.name()).unwrap();
        }
    }
    let flows = node.workers[0].world().flows.len();
    writeln!(out, "\n{:?}\nflows: {flows}", node.account()).unwrap();
    out
}

/// What the stations send, and when.
fn session() -> Vec<(Nanos, Vec<u8>)> {
    let (w1, w2, w3, gw) = (workload_mac(1), workload_mac(2), workload_mac(3), gateway_mac());
    let (a4, b4, c4) = ("10.65.0.1", "10.65.0.2", "10.65.0.3");
    let (a6, b6, c6) = ("fd65::1", "fd65::2", "fd65::3");
    let (far4, far6) = ("10.65.1.9", "fd65:1::9");

    // Every station announces itself.
    let announced: Vec<_> = [(w1, a4), (w2, b4), (w3, c4), (PEER_MAC, "192.168.0.2")]
        .map(|(mac, own)| (Nanos(0), arp(mac, Operation::Request, own, own)))
        .into();

    // Neighbours.
    let mut frames = vec![
        arp(w1, Operation::Request, a4, "169.254.1.1"),
        arp(w1, Operation::Request, a4, b4),
        arp(w1, Operation::Request, "0.0.0.0", a4),
        solicit(w1, a6, "fe80::ecee:eeff:feee:eeee"),
        arp(PEER_MAC, Operation::Request, "192.168.0.2", "192.168.0.1"),
        arp(PEER_MAC, Operation::Request, "192.168.0.2", "192.168.0.9"),
        solicit(PEER_MAC, "fd00::2", "fd00::1"),
    ];
    // Echoes.
    for (a, b) in [(a4, b4), (a6, b6)] {
        frames.extend([echo(w1, gw, a, b, false), echo(w2, gw, b, a, true)]);
    }
    // Web requests, which policy allows.
    for (a, c) in [(a4, c4), (a6, c6)] {
        let up = |flags: &str, seq, ack, data: &[u8]| segment((w1, a, 4000), (c, 80), flags, seq, ack, data);
        let down =
            |flags: &str, seq, ack, data: &[u8]| segment((w3, c, 80), (a, 4000), flags, seq, ack, data);
        frames.extend([
            up("S", 100, 0, b""),
            down("SA", 700, 101, b""),
            up("A", 101, 701, b"GET / HTTP/1.0\r\n\r\n"),
            down("A", 701, 119, b"HTTP/1.0 204 No Content\r\n\r\n"),
            up("FA", 119, 728, b""),
            down("FA", 728, 120, b""),
            up("A", 120, 729, b""),
        ]);
    }
    // To the other node and back.
    for (a, far) in [(a4, far4), (a6, far6)] {
        frames.push(udp(w1, gw, a, far, 4000, 9999));
        frames.push(udp(PEER_MAC, UPLINK_MAC, far, a, 9999, 4000));
    }
    // What policy denies.
    frames.extend([
        tcp_from(1, c4, 4001, 81, "S"),
        udp_from(1, c4, 80),
        udp_from(2, c6, 80),
        tcp(PEER_MAC, UPLINK_MAC, far4, c4, 4000, 22, "S"),
    ]);
    // What is malformed.
    let whole = udp_from(1, b4, 7);
    let damaged = |at: usize, byte: u8| {
        let mut frame = whole.clone();
        frame[at] = byte;
        frame
    };
    let udp_of = |len: u8| raw(w1, gw, a4, b4, Proto::UDP, 64, &[0x0f, 0xa0, 0, 7, 0, len, 0, 0]);
    frames.extend([
        whole[..13].to_vec(),
        whole[..30].to_vec(),
        damaged(14, 0x65),
        patched(whole.clone(), 0, &[0x44]),
        damaged(24, 0xaa),
        damaged(12, 0x88),
        patched(whole.clone(), 3, &[10]),
        udp_of(7),
        udp_of(200),
        raw(w1, gw, a4, c4, Proto::TCP, 64, &[0x10; 20]),
        raw(w1, gw, a4, b4, Proto::ICMP, 64, &[8, 0, 0]),
        raw(w1, gw, a6, b6, Proto(60), 64, &[[60, 0, 1, 4, 0, 0, 0, 0]; 9].concat()),
        raw(w1, gw, a6, b6, Proto(43), 64, &[17, 0, 0, 0, 0, 0, 0, 0, 15, 160, 0, 7, 0, 8, 0, 0]),
    ]);
    // VLANs.
    frames.extend([
        tagged(&arp(PEER_MAC, Operation::Request, "172.16.0.2", "172.16.0.1"), 100),
        tagged(&udp(PEER_MAC, UPLINK_MAC, "10.66.1.1", a4, 7, 4000), 100),
        udp_from(1, "10.66.1.1", 7),
        tagged(&udp(PEER_MAC, UPLINK_MAC, "10.66.1.1", a4, 7, 4000), 101),
    ]);
    // Fragments, and extension headers that are none.
    let udp_header = [0x0f, 0xa0, 0, 7, 0, 8, 0, 0];
    let behind = |proto: u8, extension: [u8; 8]| {
        raw(w1, gw, a6, b6, Proto(proto), 64, &[extension, udp_header].concat())
    };
    frames.extend([
        patched(whole.clone(), 6, &[0x20, 0]),
        patched(whole.clone(), 6, &[0, 100]),
        behind(44, [17, 0, 0, 1, 0, 0, 0, 1]),
        behind(44, [17, 0, 0, 0, 0, 0, 0, 1]),
        behind(0, [17, 0, 1, 4, 0, 0, 0, 0]),
    ]);
    // Who pretends.
    let mut advertisement = solicit(w1, "fe80::1", b6);
    advertisement[54] = nd::ROUTER_ADVERTISEMENT;
    frames.extend([
        udp(w1, gw, b4, c4, 7, 80),
        udp(w1, gw, b6, c6, 7, 80),
        arp(w1, Operation::Request, b4, "169.254.1.1"),
        arp(PEER_MAC, Operation::Reply, "192.168.0.1", "192.168.0.7"),
        advertise(w1, gw, b6, a6),
        advertisement,
        udp_from(1, b4, 4789),
        udp_from(1, "127.0.0.1", 7),
        udp_from(1, "224.0.0.5", 7),
        udp_from(1, "192.168.0.1", 7),
        udp(w1, w3, a4, b4, 53, 7),
        ether(w1, gw, None, ethernet::IPV4, &[0x45; 46]),
    ]);
    // What cannot go on, and whose sender is told.
    frames.extend([
        raw(w1, gw, a4, b4, Proto::UDP, 1, &udp_header),
        raw(w1, gw, a6, b6, Proto::UDP, 1, &udp_header),
        udp_from(1, "8.8.8.8", 7),
        udp_from(1, "2001:db8::1", 7),
        udp_from(1, "10.65.0.99", 7),
        patched(raw(w1, gw, a4, b4, Proto(253), 64, &[7; 1500]), 6, &[0x40, 0]),
        raw(w1, gw, a6, b6, Proto(253), 64, &[7; 1500]),
    ]);
    // Errors about a flow that there is, and about one that there is not.
    frames.push(udp_from(1, b4, 7));
    frames.push(port_unreachable(w2, gw, b4, a4, &udp_from(1, b4, 7)));
    frames.push(port_unreachable(w2, gw, b4, a4, &udp_from(1, b4, 8)));
    // A neighbour that never answers.
    frames.push(udp_from(1, "10.68.0.1", 7));

    let beats = (1..).map(|n| Nanos(n * BEAT.0));
    announced.into_iter().chain(beats.zip(frames)).collect()
}

fn segment(
    (mac, from, sport): (Mac, &str, u16),
    (to, dport): (&str, u16),
    flags: &str,
    seq: u32,
    ack: u32,
    data: &[u8],
) -> Vec<u8> {
    let mut step = ip(mac, gateway_mac(), from, to, 64).tcp(sport, dport, seq, 8192);
    for flag in flags.chars() {
        step = match flag {
            'S' => step.syn(),
            'A' => step.ack(ack),
            'F' => step.fin(),
            other => panic!("{other}"),
        };
    }
    let mut out = vec![];
    step.write(&mut out, data).unwrap();
    out
}

/// A file of these packets, in nanoseconds.
fn pcap<'a>(packets: impl Iterator<Item = (Nanos, &'a [u8])>) -> Vec<u8> {
    let mut out: Vec<u8> = [0xa1b2_3c4d, 2 | 4 << 16, 0, 0, 262_144, 1u32]
        .iter()
        .flat_map(|field| field.to_le_bytes())
        .collect();
    for (at, frame) in packets {
        let (seconds, nanos) = ((at.0 / 1_000_000_000) as u32, (at.0 % 1_000_000_000) as u32);
        let len = frame.len() as u32;
        out.extend([seconds, nanos, len, len].iter().flat_map(|field| field.to_le_bytes()));
        out.extend(frame);
    }
    out
}

/// What [`pcap`] and [`Record`] write.
fn read_pcap(mut bytes: &[u8]) -> Vec<(Nanos, Vec<u8>)> {
    let mut packets = vec![];
    bytes = &bytes[24..];
    while let Some((record, rest)) = bytes.split_first_chunk::<16>() {
        let field = |at: usize| u32::from_le_bytes(record[at..at + 4].try_into().unwrap());
        let (frame, rest) = rest.split_at(field(8) as usize);
        packets.push((Nanos::from_secs(field(0).into()).plus(Nanos(field(4).into())), frame.to_vec()));
        bytes = rest;
    }
    packets
}

/// A file in memory, that two hold.
#[derive(Clone, Default)]
struct Tape(Arc<Mutex<Vec<u8>>>);

impl Write for Tape {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
