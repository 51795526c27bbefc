//! Encrypted tunnels on real interfaces: to wireguard-go and boringtun-cli, and between two nodes of ours. Needs root.
#![allow(missing_docs)]

mod build;
mod clocked;
mod encrypted;
mod namespace;
mod process;
mod traffic;

use build::wireguard::bogus_initiation;
use build::*;
use clocked::Clocked;
use encrypted::*;
use margay_api::dataplane::v1::{self as pb, change::Change, sync_response::Response};
use margay_dataplane::net::Nanos;
use margay_dataplane::wireguard::{PublicKey, Secret};
use namespace::{PATIENCE, Station, in_namespace, ip};
use process::{Agent, Process};
use std::net::{SocketAddr, UdpSocket};
use std::time::Instant;
use traffic::{all_passes, answers, ping, reaches, streams};

#[test]
fn wireguard_go_is_at_the_other_end() {
    is_at_the_other_end(Maker::WireguardGo);
}

#[test]
fn boringtun_cli_is_at_the_other_end() {
    is_at_the_other_end(Maker::Boringtun);
}

fn is_at_the_other_end(maker: Maker) {
    if !maker.is_there() {
        return;
    }
    in_namespace(|| {
        let wrong = [9; 32];
        let mut lab = Lab::new([&wrong, &wrong]);
        let keys = [0, 1].map(|family| lab.key(family));

        // A key that is not theirs: asked, and not answered.
        let go = [0, 1]
            .map(|family| Daemon::start(maker, &lab.outside, family, &keys[family].0, &lab.ours, false));
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
        let go =
            [0, 1].map(|family| Daemon::start(maker, &lab.outside, family, &keys[family].0, &ours, true));
        for (family, far) in FAR.into_iter().enumerate() {
            let at = SocketAddr::new(["10.65.0.1", "fd65::1"][family].parse().unwrap(), 5302);
            answers(&lab.inside, at);
            reaches(&lab.outside, at);
            streams(&lab.outside, &lab.inside, SocketAddr::new(at.ip(), 8002));
            let (passed, text) = ping(&lab.inside, far);
            assert!(passed, "{text}");
        }

        // Somebody else than whom we know calls, and is not answered; they call again, and are.
        let stranger = lab.folder.path().join("stranger.key");
        std::fs::write(&stranger, output("wg", &["genkey"], "")).unwrap();
        let known = lab.peers(0).remove(0).latest_handshake;
        for (key, passes) in [(&stranger, false), (&keys[0].0, true)] {
            let (name, key) = (go[0].name.clone(), key.to_str().unwrap().to_owned());
            lab.outside.there(move || drop(output("wg", &["set", &name, "private-key", &key], "")));
            if !passes {
                assert!(!ping(&lab.outside, "-W 1 10.65.0.1").0);
                assert_eq!(lab.peers(0).remove(0).latest_handshake, known);
                continue;
            }
            // Once the last try, under the other key, is five seconds ago.
            reaches(&lab.outside, "10.65.0.1:5302".parse().unwrap());
            let deadline = Instant::now() + PATIENCE;
            while lab.peers(0).remove(0).latest_handshake <= known {
                assert!(Instant::now() < deadline, "a session under the right key");
            }
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

/// An ICMP echo request to the daemon's host, which answers it.
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

// What takes minutes or 2^55 packets, on a clock of our own; and what only an attacker sends.

#[test]
fn wireguard_go_goes_along_with_our_protocol() {
    goes_along_with_our_protocol(Maker::WireguardGo);
}

#[test]
fn boringtun_cli_goes_along_with_our_protocol() {
    goes_along_with_our_protocol(Maker::Boringtun);
}

fn goes_along_with_our_protocol(maker: Maker) {
    if !maker.is_there() {
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
        let go = Daemon::run(maker, format!("wg{}c{}", std::process::id(), maker as usize));
        let wg = |arguments: &[&str]| output("wg", &[&["set", &go.name], arguments].concat(), "");
        wg(&["listen-port", "51999", "private-key", &theirs]);
        // boringtun-cli adds and removes peers, and changes none.
        let peer = |more: &[&str]| {
            wg(&["peer", &ours, "remove"]);
            wg(&[&["peer", &ours, "allowed-ips", "10.77.0.1/32"], more].concat());
        };
        peer(&[]);
        ip(&format!("addr add 10.77.0.2/24 dev {}", go.name));
        ip(&format!("link set {} mtu 1420 up", go.name));
        let (here, there) = (([127, 0, 0, 1], 51_998).into(), ([127, 0, 0, 1], 51_999).into());
        let mut end = Clocked::new(here, [3; 32], far, there);
        let later = |end: &mut Clocked, seconds| end.now = end.now.plus(Nanos::from_secs(seconds));

        // Another pre-shared key than theirs: their response says nothing to us. The same one, and they call, too.
        let text = output("wg", &["genpsk"], "");
        let secret = || Secret::new(*unprinted(&text).first_chunk().unwrap());
        let preshared = file("preshared", text.clone());
        peer(&["preshared-key", &preshared]);
        end.ask();
        end.until("a response that is refused", |end| !end.refused.is_empty());
        assert!(end.session().is_none() && end.kinds.contains(&2));
        end.share(secret());
        later(&mut end, 6);
        end.shake_hands(None);
        there_and_back(&mut end, 1);
        peer(&["preshared-key", &preshared, "endpoint", &here.to_string()]);
        let begun = end.session().map(|session| session.local());
        end.kinds.clear();
        UdpSocket::bind("10.77.0.2:0").unwrap().send_to(b"?", "10.77.0.1:9").unwrap();
        end.until("they call", |end| end.session().is_some_and(|session| Some(session.local()) != begun));
        assert!(end.kinds.contains(&1) && !end.kinds.contains(&2), "{:?}", end.kinds);
        end.until("their packet", |end| !end.received.is_empty());
        end.received.clear();
        there_and_back(&mut end, 1);
        peer(&[]);
        end.share(Secret::default());
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
        // The same of theirs.
        (200..230)
            .map(|sequence| end.seal(&echo(sequence)))
            .collect::<Vec<_>>()
            .iter()
            .for_each(|message| end.send(message));
        let theirs = end.gather(30);
        for (datagram, from) in theirs.iter().rev().chain(&theirs) {
            end.take(datagram, *from);
        }
        assert_eq!(echoes(&mut end), (200..230).rev().collect::<Vec<_>>());
        assert_eq!(std::mem::take(&mut end.replayed), 30);
        let mut forged = end.seal(&echo(6));
        *forged.last_mut().unwrap() ^= 1;
        end.send(&forged);
        there_and_back(&mut end, 7);

        // We move, and are found.
        end.socket = Clocked::socket("127.0.0.1:51997".parse().unwrap());
        there_and_back(&mut end, 8);

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
        there_and_back(&mut end, 9);
        assert_eq!(end.replayed, 0);
    });
}
