//! Encrypted tunnels on real interfaces: to wireguard-go, and between two nodes of ours. Needs root.
#![allow(missing_docs)]

mod build;
mod clocked;
mod namespace;
mod process;
mod traffic;

use build::*;
use clocked::{Clocked, bogus_initiation};
use margay_api::dataplane::v1::{
    self as pb, Encapsulation, change::Change, dataplane_client::DataplaneClient, sync_response::Response,
};
use margay_dataplane::net::Nanos;
use margay_dataplane::wireguard::PublicKey;
use namespace::{PATIENCE, Station, in_namespace, ip};
use process::{Agent, Process};
use std::io::Write as _;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;
use tokio::runtime::Runtime;
use tonic::transport::Channel;
use traffic::{all_passes, answers, ping, reaches, streams};

/// The nodes, by number.
const NODES: [[&str; 2]; 2] = [["10.9.0.1", "fd09::1"], ["10.9.0.2", "fd09::2"]];
const MTUS: [usize; 2] = [1440, 1420];
/// What is behind wireguard-go.
const FAR: [&str; 2] = ["10.67.1.9", "fd67:1::9"];

/// What node `own` is told: its workload, the other's keys over IPv4 and IPv6, and what is routed to it.
fn told(own: usize, workload: u8, keys: [&[u8]; 2], there: [&str; 2]) -> Vec<pb::Change> {
    let far = 1 - own;
    let [v4, v6] = NODES[own].map(|address| bytes(addr(address)));
    let wireguard =
        pb::Wireguard { ipv4: true, ipv6: true, ipv4_address: v4, ipv6_address: v6, ..Default::default() };
    let [near_v4, near_v6] = NODES[far].map(|address| bytes(addr(address)));
    let peer = pb::WireguardPeer {
        node: "far".into(),
        public_key: keys[0].to_vec(),
        endpoint: near_v4,
        public_key_v6: keys[1].to_vec(),
        endpoint_v6: near_v6,
        ..Default::default()
    };
    let config = pb::NodeConfig { wireguard: Some(wireguard), ..Default::default() };
    let mut changes = vec![
        change(Change::Config(config)),
        change(Change::WireguardPeer(peer)),
        change(Change::Profile(open_profile())),
        change(Change::WorkloadEndpoint(endpoint(workload, &[]))),
    ];
    changes.extend(to_workload(workload));
    changes.extend(there.into_iter().zip(NODES[far]).map(|(destination, gateway)| {
        let next_hop = pb::NextHop { gateway: bytes(addr(gateway)), ..Default::default() };
        change(Change::Route(pb::Route {
            destination: Some(prefix(destination)),
            target: Some(pb::route::Target::NextHop(next_hop)),
            encapsulation: Encapsulation::Wireguard.into(),
            ..Default::default()
        }))
    }));
    changes
}

/// What a program prints, given something to read.
fn output(program: &str, arguments: &[&str], input: &str) -> String {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{program}: {error}"));
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A key that `wg` prints, in bytes.
fn unprinted(key: &str) -> Vec<u8> {
    const DIGITS: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = key.trim_end_matches('=').chars().map(|digit| DIGITS.find(digit).unwrap());
    let bits: Vec<usize> = digits.flat_map(|digit| (0..6).rev().map(move |bit| digit >> bit & 1)).collect();
    bits.chunks_exact(8).map(|bits| bits.iter().fold(0, |byte, bit| byte << 1 | *bit as u8)).collect()
}

/// And the other way round.
fn printed(key: &[u8]) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bits: Vec<u8> = key.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1)).collect();
    let digits =
        bits.chunks(6).map(|bits| bits.iter().fold(0, |digit, bit| digit << 1 | bit) << (6 - bits.len()));
    digits.map(|digit| DIGITS[usize::from(digit)] as char).chain(['=']).collect()
}

/// A wireguard-go of the station, over IPv4 or IPv6.
struct Go {
    name: String,
    child: Child,
}

impl Go {
    /// `ours` is the public key that it knows us by; `calls`: it knows where we are, too.
    fn start(at: &Station, family: usize, key: &Path, ours: &str, calls: bool) -> Self {
        // Their sockets all stand in one folder, whatever the namespace.
        let name = format!("wg{}x{family}", std::process::id());
        let (device, private, ours) = (name.clone(), key.to_owned(), ours.to_owned());
        let child = at.there(move || {
            let child = Self::run(&device);
            let near = [format!("{}:51820", NODES[0][0]), format!("[{}]:51821", NODES[0][1])];
            let allowed = ["10.65.0.1/32", "fd65::1/128"][family];
            let port = ["51820", "51821"][family];
            let mut wg = Command::new("wg");
            wg.args(["set", &device, "listen-port", port, "private-key"]).arg(&private);
            wg.args(["peer", &ours, "allowed-ips", allowed]);
            if calls {
                wg.args(["endpoint", &near[family]]);
            }
            assert!(wg.status().expect("wg (package wireguard-tools)").success());
            let nodad = ["", " nodad"][family];
            ip(&format!("addr add {}/{} dev {device}{nodad}", FAR[family], [32, 128][family]));
            ip(&format!("link set {device} mtu {} up", MTUS[family]));
            let version = ["-4", "-6"][family];
            ip(&format!("{version} route add {allowed} dev {device} src {}", FAR[family]));
            child
        });
        Self { name, child }
    }

    /// A device that nobody has told anything yet.
    fn run(device: &str) -> Child {
        let mut command = Command::new("wireguard-go");
        command.args(["-f", device]).env("LOG_LEVEL", "error").stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("wireguard-go (package wireguard-go)");
        let deadline = Instant::now() + PATIENCE;
        while !Path::new(&format!("/var/run/wireguard/{device}.sock")).exists() {
            assert!(Instant::now() < deadline, "wireguard-go is ready");
            std::thread::yield_now();
        }
        child
    }

    fn shown(&self, at: &Station, what: &'static str) -> String {
        let name = self.name.clone();
        at.there(move || output("wg", &["show", &name, what], ""))
    }
}

impl Drop for Go {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(format!("/var/run/wireguard/{}.sock", self.name));
    }
}

/// Our node, and what is outside of it.
struct Lab {
    runtime: Runtime,
    client: DataplaneClient<Channel>,
    agent: Agent,
    _process: Process,
    inside: Station,
    outside: Station,
    folder: tempfile::TempDir,
    /// What our peers know us by.
    ours: String,
    generation: u64,
}

impl Lab {
    fn new(keys: [&[u8]; 2]) -> Self {
        ip("link set lo up");
        let outside = Station::at("up0", "out0", &["10.9.0.2/24", "fd09::2/64"]);
        ip("addr add 10.9.0.1/24 dev up0");
        ip("addr add fd09::1/64 dev up0 nodad");
        let inside = Station::workload(1, workload_mac(1));
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("ours.key");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let process = Process::start(&[
            "--uplink",
            "up0",
            "--frames",
            "8192",
            "--wireguard-key",
            key.to_str().unwrap(),
        ]);
        let mut client = runtime.block_on(process.client());
        let agent = runtime.block_on(Agent::adopted(&mut client, told(0, 1, keys, FAR)));
        let ours = printed(&runtime.block_on(public(&mut client)));
        assert_eq!(output("wg", &["pubkey"], &std::fs::read_to_string(&key).unwrap()), ours, "as wg has it");
        Self { runtime, client, agent, _process: process, inside, outside, folder, ours, generation: 1 }
    }

    fn commit(&mut self, changes: Vec<pb::Change>) {
        self.generation += 1;
        let generation = self.generation;
        self.runtime.block_on(async {
            self.agent.commit(generation, changes).await;
            let adopted = Response::Adopted(pb::Adopted { generation });
            assert_eq!(self.agent.next().await.unwrap(), adopted);
        });
    }

    fn peers(&mut self, family: usize) -> Vec<pb::WireguardPeerStatus> {
        let listed = self.runtime.block_on(self.client.list_wireguard(pb::ListWireguardRequest {})).unwrap();
        listed.into_inner().interfaces[family].peers.clone()
    }

    fn drops(&mut self, reason: &str) -> u64 {
        let drops = self.runtime.block_on(self.client.list_drops(pb::ListDropsRequest {})).unwrap();
        drops.into_inner().drops.iter().find(|drop| drop.reason == reason).map_or(0, |drop| drop.packets)
    }

    /// A key of wireguard-go's: its file, and the public one.
    fn key(&self, family: usize) -> (PathBuf, String) {
        let path = self.folder.path().join(format!("theirs{family}.key"));
        if !path.exists() {
            std::fs::write(&path, output("wg", &["genkey"], "")).unwrap();
        }
        let public = output("wg", &["pubkey"], &std::fs::read_to_string(&path).unwrap());
        (path, public)
    }
}

/// The key by which peers know a node, as soon as it has one.
async fn public(client: &mut DataplaneClient<Channel>) -> Vec<u8> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status = client.get_status(pb::GetStatusRequest {}).await.unwrap().into_inner();
        if !status.wireguard_public_key.is_empty() {
            return status.wireguard_public_key;
        }
        assert!(Instant::now() < deadline, "a key: {}", status.wireguard_problem);
        tokio::task::yield_now().await;
    }
}

fn is_there() -> bool {
    let there = |program: &str| {
        Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
    };
    let there = there("wireguard-go") && there("wg") && Path::new("/dev/net/tun").exists();
    if !there {
        let _ =
            writeln!(std::io::stderr(), "SKIPPED: needs wireguard-go and wireguard-tools, and /dev/net/tun");
    }
    there
}

#[test]
fn wireguard_go_is_at_the_other_end() {
    if !is_there() {
        return;
    }
    in_namespace(|| {
        let wrong = [9; 32];
        let mut lab = Lab::new([&wrong, &wrong]);
        let keys = [0, 1].map(|family| lab.key(family));

        // A key that is not theirs: asked, and not answered.
        let go = [0, 1].map(|family| Go::start(&lab.outside, family, &keys[family].0, &lab.ours, false));
        let (passed, text) = ping(&lab.inside, &format!("-W 1 {}", FAR[0]));
        assert!(!passed, "{text}");
        assert_eq!(lab.peers(0)[0].latest_handshake, 0);

        // We call, and everything passes.
        let public = [0, 1].map(|family| unprinted(&keys[family].1));
        let ours = lab.ours.clone();
        lab.commit(told(0, 1, [&public[0], &public[1]], FAR));
        all_passes(&lab.inside, &lab.outside, FAR, MTUS);
        for (family, go) in go.iter().enumerate() {
            let endpoint = go.shown(&lab.outside, "endpoints");
            let near = [format!("{}:51820", NODES[0][0]), format!("[{}]:51821", NODES[0][1])];
            assert_eq!(endpoint, format!("{ours}\t{}", near[family]));
            let peer = lab.peers(family).remove(0);
            assert!(peer.received_bytes > 1_000_000 && peer.sent_bytes > 1_000_000, "{peer:?}");
            assert!(peer.latest_handshake > 1_700_000_000_000_000_000 && peer.allowed_ips.len() == 1);
        }
        assert_eq!(["wireguard-forged", "wireguard-replayed"].map(|reason| lab.drops(reason)), [0, 0]);

        // They are started anew, and call.
        drop(go);
        let go = [0, 1].map(|family| Go::start(&lab.outside, family, &keys[family].0, &ours, true));
        for (family, far) in FAR.into_iter().enumerate() {
            let at = SocketAddr::new(["10.65.0.1", "fd65::1"][family].parse().unwrap(), 5302);
            answers(&lab.inside, at);
            reaches(&lab.outside, at);
            streams(&lab.outside, &lab.inside, SocketAddr::new(at.ip(), 8002));
            let (passed, text) = ping(&lab.inside, far);
            assert!(passed, "{text}");
        }

        // They move: heard where they are, they are found there.
        let name = go[0].name.clone();
        lab.outside.there(move || {
            ip("addr del 10.9.0.2/24 dev out0");
            ip("addr add 10.9.0.77/24 dev out0");
            // It goes on sending from where it was until its socket is another.
            output("wg", &["set", &name, "listen-port", "51999"], "");
        });
        let (passed, text) = ping(&lab.outside, "10.65.0.1");
        assert!(passed, "{text}");
        let (passed, text) = ping(&lab.inside, FAR[0]);
        assert!(passed, "{text}");
        let peer = lab.peers(0).remove(0);
        assert_eq!((&peer.endpoint[..], peer.endpoint_port), (&[10, 9, 0, 77][..], 51_999));

        // A flood of initiations by strangers who know our key: they are asked to prove their address, and nobody is in
        // the way of the session.
        let initiation = bogus_initiation(PublicKey(*unprinted(&ours).first_chunk().unwrap()));
        let cookies = lab.outside.there(move || {
            let socket = UdpSocket::bind("10.9.0.77:0").unwrap();
            socket.set_read_timeout(Some(std::time::Duration::from_millis(1))).unwrap();
            let (mut cookies, mut room) = (0, [0; 256]);
            let deadline = Instant::now() + PATIENCE;
            while cookies < 20 && Instant::now() < deadline {
                (0..64).for_each(|_| drop(socket.send_to(&initiation, "10.9.0.1:51820")));
                while let Ok(len) = socket.recv(&mut room) {
                    cookies += u32::from((len, room[0]) == (64, 3));
                }
            }
            cookies
        });
        assert!(cookies >= 20, "{cookies} cookies");
        let (passed, text) = ping(&lab.inside, FAR[0]);
        assert!(passed, "{text}");

        // From an address that is not theirs.
        let before = lab.drops("wireguard-source");
        let name = go[0].name.clone();
        lab.outside.there(move || ip(&format!("addr add 10.99.0.1/32 dev {name}")));
        let (passed, _) = ping(&lab.outside, "-W 1 -I 10.99.0.1 10.65.0.1");
        assert!(!passed && lab.drops("wireguard-source") >= before + 3);
    });
}

#[test]
fn two_nodes_turn_encryption_on_and_off_under_traffic() {
    in_namespace(|| {
        ip("link set lo up");
        let node_b = Station::at("up0", "out0", &["10.9.0.2/24", "fd09::2/64"]);
        ip("addr add 10.9.0.1/24 dev up0");
        ip("addr add fd09::1/64 dev up0 nodad");
        let first = Station::workload(1, workload_mac(1));
        let second = node_b.there(|| Station::workload(2, workload_mac(2)));
        let folder = tempfile::tempdir().unwrap();
        let keys = ["a", "b"].map(|name| folder.path().join(name).to_str().unwrap().to_owned());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let [key_a, key_b] = keys;
        let start = |uplink: &'static str, key: String| {
            move || Process::start(&["--uplink", uplink, "--frames", "8192", "--wireguard-key", &key])
        };
        let a = start("up0", key_a)();
        let b = node_b.there(start("out0", key_b));
        let (mut to_a, mut to_b) = (runtime.block_on(a.client()), runtime.block_on(b.client()));
        let there = [["10.65.0.2/32", "fd65::2/128"], ["10.65.0.1/32", "fd65::1/128"]];
        let wrong = [9; 32];
        let mut agent_a = runtime.block_on(Agent::adopted(&mut to_a, told(0, 1, [&wrong, &wrong], there[0])));
        let mut agent_b = runtime.block_on(Agent::adopted(&mut to_b, told(1, 2, [&wrong, &wrong], there[1])));
        let public = [runtime.block_on(public(&mut to_a)), runtime.block_on(public(&mut to_b))];
        let plain = |own: usize| {
            let routes = there[own].into_iter().zip(NODES[1 - own]).map(|(to, gateway)| via(to, gateway));
            let off = [
                change(Change::Config(pb::NodeConfig::default())),
                change(Change::WireguardPeerRemove("far".into())),
            ];
            routes.chain(off).collect::<Vec<_>>()
        };
        let mut generation = 1;
        let mut both = |of: &dyn Fn(usize) -> Vec<pb::Change>| {
            generation += 1;
            runtime.block_on(async {
                agent_a.commit(generation, of(0)).await;
                agent_b.commit(generation, of(1)).await;
                for agent in [&mut agent_a, &mut agent_b] {
                    let adopted = Response::Adopted(pb::Adopted { generation });
                    assert_eq!(agent.next().await.unwrap(), adopted);
                }
            });
        };
        let sealed =
            |own: usize| told(own, [1, 2][own], [&public[1 - own]; 2].map(|key| &key[..]), there[own]);
        both(&sealed);
        all_passes(&first, &second, ["10.65.0.2", "fd65::2"], MTUS);
        // A stream that lives through it all.
        let at = SocketAddr::new("10.65.0.2".parse().unwrap(), 8001);
        let talk = std::thread::scope(|scope| {
            let talk = scope.spawn(|| (0..4).for_each(|_| streams(&first, &second, at)));
            for on in [false, true, false, true] {
                both(&|own| if on { sealed(own) } else { plain(own) });
            }
            talk.join()
        });
        talk.expect("every byte arrives");
        let listed = runtime.block_on(to_b.list_wireguard(pb::ListWireguardRequest {})).unwrap().into_inner();
        assert_eq!(listed.interfaces.len(), 2);
        assert!(listed.interfaces[0].peers[0].received_bytes > 0);
    });
}

/// An ICMP echo request to wireguard-go's host, which answers it.
fn echo(sequence: u16) -> Vec<u8> {
    let mut packet = vec![];
    let builder = etherparse::PacketBuilder::ipv4([10, 77, 0, 1], [10, 77, 0, 2], 64);
    builder.icmpv4_echo_request(7, sequence).write(&mut packet, b"payload").unwrap();
    packet
}

/// The sequence numbers of the answers that came, in order.
fn echoes(end: &mut Clocked) -> Vec<u16> {
    let answers = std::mem::take(&mut end.received);
    let number = |packet: Vec<u8>| {
        assert_eq!((packet[9], packet[20]), (1, 0), "an answer");
        u16::from_be_bytes([packet[26], packet[27]])
    };
    answers.into_iter().map(number).collect()
}

/// A packet there and back.
fn there_and_back(end: &mut Clocked, sequence: u16) {
    let message = end.seal(&echo(sequence));
    end.send(&message);
    end.until("an answer", |end| !end.received.is_empty());
    assert_eq!(echoes(end), [sequence]);
}

/// What takes minutes or 2^55 packets, on a clock of our own; and what only an attacker sends.
#[test]
fn wireguard_go_goes_along_with_our_protocol() {
    if !is_there() {
        return;
    }
    in_namespace(|| {
        ip("link set lo up");
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: String| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let private = output("wg", &["genkey"], "");
        let theirs = file("theirs", private.clone());
        let far = PublicKey(*unprinted(&output("wg", &["pubkey"], &private)).first_chunk().unwrap());
        let ours = printed(&margay_dataplane::wireguard::KeyPair::new(&[3; 32]).public().0);
        let name = format!("wg{}clocked", std::process::id());
        let go = Go { child: Go::run(&name), name };
        let wg = |arguments: &[&str]| output("wg", &[&["set", &go.name], arguments].concat(), "");
        wg(&["listen-port", "51999", "private-key", &theirs]);
        wg(&["peer", &ours, "allowed-ips", "10.77.0.1/32"]);
        ip(&format!("addr add 10.77.0.2/24 dev {}", go.name));
        ip(&format!("link set {} mtu 1420 up", go.name));
        let (here, there) = (([127, 0, 0, 1], 51_998).into(), ([127, 0, 0, 1], 51_999).into());
        let mut end = Clocked::new(here, [3; 32], far, there);
        let later = |end: &mut Clocked, seconds| end.now = end.now.plus(Nanos::from_secs(seconds));

        // Another pre-shared key than theirs: their response says nothing to us.
        let preshared = file("preshared", output("wg", &["genpsk"], ""));
        wg(&["peer", &ours, "preshared-key", &preshared]);
        end.ask();
        end.until("a response that is refused", |end| !end.refused.is_empty());
        assert!(end.session().is_none() && end.kinds.contains(&2));
        wg(&["peer", &ours, "preshared-key", "/dev/null"]);
        later(&mut end, 6);

        // A session; the next when the time for it has come, and the next when counters run short.
        let first = end.shake_hands(None);
        there_and_back(&mut end, 1);
        later(&mut end, 121);
        there_and_back(&mut end, 2);
        let second = end.shake_hands(Some(first.local()));
        there_and_back(&mut end, 3);
        second.reserve(0, 1 << 55).unwrap();
        later(&mut end, 6);
        there_and_back(&mut end, 4);
        let third = end.shake_hands(Some(second.local()));
        assert!(third.sent() < 10);

        // From last to first, each twice: each is answered once.
        let messages: Vec<_> = (100..130).map(|sequence| end.seal(&echo(sequence))).collect();
        for message in messages.iter().rev().chain(&messages) {
            end.send(message);
        }
        end.until("all answers", |end| end.received.len() >= 30);
        let mut answered = echoes(&mut end);
        answered.sort_unstable();
        assert_eq!(answered, (100..130).collect::<Vec<_>>());
        there_and_back(&mut end, 5);
        let mut forged = end.seal(&echo(6));
        *forged.last_mut().unwrap() ^= 1;
        end.send(&forged);
        there_and_back(&mut end, 7);

        // A flood: it asks for a proof of address, and takes ours.
        let bogus = bogus_initiation(far);
        end.kinds.clear();
        let flood = UdpSocket::bind("127.0.0.1:0").unwrap();
        let deadline = Instant::now() + PATIENCE;
        later(&mut end, 6);
        while !end.kinds.contains(&3) {
            assert!(Instant::now() < deadline, "it is never under load");
            (0..2_000).for_each(|_| drop(flood.send_to(&bogus, there)));
            end.restart();
            later(&mut end, 6);
            end.ask();
            end.tell();
            end.hear();
        }
        later(&mut end, 6);
        end.ask();
        end.until("a session by the cookie", |end| end.session().is_some());
        there_and_back(&mut end, 8);
    });
}
