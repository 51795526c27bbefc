//! What comes by tunnels, from nodes and from strangers, in any shape: nothing panics, all is accounted for, and no workload
//! sees what an independent parser finds in a packet that is no node's, of another network, or in pieces.
#![no_main]

#[path = "../../../dataplane/tests/build/mod.rs"]
mod build;

use arbitrary::Arbitrary;
use build::frames::{advertise, arp, carried, every_kind_of_tunnel, mend};
use build::*;
use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use libfuzzer_sys::fuzz_target;
use margay_dataplane::net::Nanos;
use margay_dataplane::packet::DropReason;
use margay_dataplane::simulation::{Setup, Simulation};
use margay_dataplane::wire::arp::Operation;
use std::sync::LazyLock;

/// Where tunnels come from and end: nodes, their networks, and who is none.
const OUTER: [(&str, &str); 4] = [
    ("192.168.0.2", "192.168.0.1"),
    ("fd00::2", "fd00::1"),
    ("192.168.0.9", "192.168.0.1"),
    ("fd00::9", "fd00::1"),
];
const NODES: [&str; 2] = ["192.168.0.2", "fd00::2"];
const OWN: [&str; 2] = ["192.168.0.1", "fd00::1"];
/// Of VXLAN, where nothing else is said.
const NETWORK: u32 = 4096;
/// Ethernet, UDP and VXLAN.
const LINK: usize = 14;
const UDP: usize = 8;
const VXLAN: usize = 8;

static KINDS: LazyLock<Vec<(&str, Vec<u8>)>> = LazyLock::new(every_kind_of_tunnel);

#[derive(Arbitrary, Debug)]
struct Input {
    steps: Vec<Step>,
}

#[derive(Arbitrary, Debug)]
enum Step {
    /// A frame of a kind that is known, with these bytes changed and then, if so, its IPv4 checksum mended.
    Frame { kind: u8, edits: Vec<(u8, u8)>, mend: bool, cut: Option<u16> },
    /// Any bytes inside a tunnel's packet.
    Inside { outer: u8, network: Option<u8>, class: u8, inner: Vec<u8> },
    /// Time passes.
    Run { milliseconds: u16 },
}

fuzz_target!(|input: Input| {
    let mut node = standard(Setup { frames: 256, flows: 64, ..Setup::default() });
    node.commit([standard_changes(), tunnel_changes()].concat()).expect("the changes are valid");
    node.step(NOW);
    give(&mut node, "eth0", &arp(PEER_MAC, Operation::Reply, "192.168.0.2", "192.168.0.1"));
    give(&mut node, "eth0", &advertise(PEER_MAC, UPLINK_MAC, "fd00::2", "fd00::1"));
    gather(&mut node);
    for step in input.steps {
        let (interface, frame) = match step {
            Step::Frame { kind, edits, mend: mended, cut } => edited(kind, &edits, mended, cut),
            Step::Inside { outer, network, class, inner } => {
                let (from, to) = OUTER[usize::from(outer) % OUTER.len()];
                // IPIP is of IPv4 alone; next to the network's number there are others.
                let network = network.map(|off| NETWORK + u32::from(off / 200));
                let network = network.or((!addr(to).is_v4()).then_some(NETWORK));
                let inner = &inner[..inner.len().min(1400)];
                ("eth0", carried(network, from, to, inner, class))
            }
            Step::Run { milliseconds } => {
                node.step(Nanos::from_millis(milliseconds.into()));
                node.check();
                gather(&mut node);
                continue;
            }
        };
        give(&mut node, interface, &frame);
        let left = gather(&mut node);
        if interface == "eth0" {
            came_through(&frame, &left);
        }
    }
    for _ in 0..5 {
        node.step(Nanos::from_secs(1));
        node.check();
    }
    assert_eq!(dropped(&node, DropReason::Unspecified), 0, "every drop has a reason");
});

fn edited(kind: u8, edits: &[(u8, u8)], mended: bool, cut: Option<u16>) -> (&'static str, Vec<u8>) {
    let (interface, frame) = &KINDS[usize::from(kind) % KINDS.len()];
    let mut frame = frame.clone();
    for (at, value) in edits {
        if let Some(byte) = frame.get_mut(usize::from(*at)) {
            *byte = *value;
        }
    }
    if mended {
        mend(&mut frame);
    }
    frame.resize(cut.map_or(frame.len(), |len| usize::from(len) % 1600), 0);
    (interface, frame)
}

/// What has left for workloads; the rest is let go.
fn gather(node: &mut Simulation) -> Vec<Vec<u8>> {
    while node.pop("eth0").is_some() {}
    let mut left = vec![];
    for workload in ["cali1", "cali2", "cali3"] {
        while let Some(frame) = node.pop(workload) {
            left.push(frame);
        }
    }
    left
}

/// A tunnel's packet to this node, as an independent parser sees it.
struct Carried<'a> {
    inner: &'a [u8],
    /// A node sent it, whole, and of our network.
    fair: bool,
}

/// None of what left for workloads was in a packet that nobody may send, and what was in a fair one is as long as it was.
fn came_through(came: &[u8], left: &[Vec<u8>]) {
    let Some(Carried { inner, fair }) = tunnelled(came) else { return };
    let Some((from, to, payload)) = packet(inner) else { return };
    for out in left.iter().filter_map(|frame| packet(frame.get(LINK..)?)) {
        if (&out.0, &out.1) == (&from, &to) {
            assert!(fair, "nobody may send this, and it came through: {came:02x?}");
            assert_eq!(out.2, payload, "{came:02x?}");
        }
    }
}

/// Source, destination and the length of what is behind the header.
fn packet(bytes: &[u8]) -> Option<(Vec<u8>, Vec<u8>, usize)> {
    Some(match SlicedPacket::from_ip(bytes).ok()?.net? {
        NetSlice::Ipv4(ip) => {
            let header = ip.header();
            (header.source().into(), header.destination().into(), ip.payload().payload.len())
        }
        NetSlice::Ipv6(ip) => {
            let header = ip.header();
            (header.source().into(), header.destination().into(), header.payload_length().into())
        }
        _ => return None,
    })
}

fn tunnelled(frame: &[u8]) -> Option<Carried<'_>> {
    let sliced = SlicedPacket::from_ethernet(frame).ok()?;
    let (from, to, behind, proto, whole) = match sliced.net.as_ref()? {
        NetSlice::Ipv4(ip) => {
            let header = ip.header();
            let behind = frame.get(LINK + header.slice().len()..)?;
            (
                header.source().to_vec(),
                header.destination().to_vec(),
                behind,
                header.protocol().0,
                !header.is_fragmenting_payload(),
            )
        }
        NetSlice::Ipv6(ip) => {
            let header = ip.header();
            let behind = frame.get(LINK + 40 + ip.extensions().slice().len()..)?;
            let proto = ip.payload().ip_number.0;
            (
                header.source().to_vec(),
                header.destination().to_vec(),
                behind,
                proto,
                !ip.is_payload_fragmented(),
            )
        }
        _ => return None,
    };
    let is = |all: &[&str], octets: &[u8]| all.iter().any(|one| bytes(addr(one)) == octets);
    if !is(&OWN, &to) {
        return None;
    }
    let fair = whole && is(&NODES, &from);
    match (proto, sliced.transport) {
        (4, _) => Some(Carried { inner: behind, fair }),
        (17, Some(TransportSlice::Udp(udp))) if udp.destination_port() == 4789 => {
            let vxlan = behind.get(UDP..UDP + VXLAN)?;
            let network = u32::from_be_bytes([0, vxlan[4], vxlan[5], vxlan[6]]);
            let ours = vxlan[0] & 8 != 0 && network == NETWORK;
            Some(Carried { inner: behind.get(UDP + VXLAN + LINK..)?, fair: fair && ours })
        }
        _ => None,
    }
}
