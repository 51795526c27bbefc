//! Tunnels on real interfaces: VXLAN to the kernel's own device, IPIP to the kernel's raw sockets, and two
//! nodes with each other. Needs root.
#![allow(missing_docs)]

mod build;
mod namespace;
mod process;
mod traffic;

use build::*;
use margay_api::dataplane::v1::{self as pb, Encapsulation, change::Change, sync_response::Response};
use margay_dataplane::net::Proto;
use margay_dataplane::wire::ip4;
use namespace::{PATIENCE, Station, in_namespace, ip};
use process::{Agent, Process};
use std::io::{Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::Instant;
use traffic::{all_passes, answers, reaches, streams};

/// The nodes, by number.
const NODES: [[&str; 2]; 2] = [["10.9.0.1", "fd09::1"], ["10.9.0.2", "fd09::2"]];
const MACS: [[u8; 6]; 2] = [VTEP_MAC.0, FAR_VTEP_MAC.0];

/// What node `own` is told: its workload, and that prefixes are on the other node, through tunnels.
fn told(own: usize, workload: u8, there: &[(&str, Encapsulation)]) -> Vec<pb::Change> {
    let far = 1 - own;
    let overlay = pb::Overlay {
        ipv4_address: bytes(addr(NODES[own][0])),
        ipv6_address: bytes(addr(NODES[own][1])),
        ipip: true,
        vxlan: true,
        vxlan_v6: true,
        mac: MACS[own].to_vec(),
        mac_v6: MACS[own].to_vec(),
        ..Default::default()
    };
    let end = pb::TunnelEndpoint {
        node: "far".into(),
        mac: MACS[far].to_vec(),
        parent_ipv4: bytes(addr(NODES[far][0])),
        mac_v6: MACS[far].to_vec(),
        parent_ipv6: bytes(addr(NODES[far][1])),
        ..Default::default()
    };
    let config = pb::NodeConfig { overlay: Some(overlay), ..Default::default() };
    let mut changes = vec![
        change(Change::Config(config)),
        change(Change::TunnelEndpoint(end)),
        change(Change::Profile(open_profile())),
        change(Change::WorkloadEndpoint(endpoint(workload, &[]))),
    ];
    changes.extend(to_workload(workload));
    changes.extend(there.iter().map(|(destination, how)| {
        let gateway = bytes(addr(NODES[far][usize::from(destination.contains(':'))]));
        change(Change::Route(pb::Route {
            destination: Some(prefix(destination)),
            target: Some(pb::route::Target::NextHop(pb::NextHop {
                gateway,
                interface_name: String::new(),
                weight: 0,
            })),
            encapsulation: (*how).into(),
            ..Default::default()
        }))
    }));
    changes
}

/// A capture on an interface of a station, if there are programs for it.
struct Capture(Child, tempfile::TempDir);

impl Capture {
    fn begin(at: &Station, interface: &'static str) -> Option<Self> {
        let there = |program: &str| {
            Command::new(program)
                .arg("--version")
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .is_ok()
        };
        if !there("tcpdump") || !there("tshark") {
            let _ = writeln!(std::io::stderr(), "SKIPPED: decoding a capture needs tcpdump and tshark");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("capture.pcap");
        let mut child = at.there(move || {
            let mut command = Command::new("tcpdump");
            command.args(["-i", interface, "-U", "-Z", "root", "-w"]).arg(file);
            command.stderr(Stdio::piped()).spawn().unwrap()
        });
        // It says so when it listens.
        let mut said = [0; 1];
        child.stderr.as_mut().unwrap().read_exact(&mut said).unwrap();
        Some(Self(child, folder))
    }

    /// Frames that the filter is about, of what was sent by `from`.
    fn frames(&self, filter: &str) -> usize {
        let file = self.1.path().join("capture.pcap");
        let checks = ["ip.check_checksum", "udp.check_checksum", "tcp.check_checksum"];
        let mut command = Command::new("tshark");
        command.arg("-r").arg(file).args(["-n", "-Y", filter]);
        for check in checks {
            command.args(["-o", &format!("{check}:TRUE")]);
        }
        let output = command.output().unwrap();
        String::from_utf8_lossy(&output.stdout).lines().count()
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn mac_of(interface: &str) -> String {
    // Of this thread's namespace; /sys is of the one that mounted it.
    let output = Command::new("ip").args(["-o", "link", "show", interface]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut words = text.split_whitespace().skip_while(|word| *word != "link/ether");
    words.nth(1).expect("an address").to_owned()
}

fn node_a() -> Station {
    ip("link set lo up");
    let outside = Station::at("up0", "out0", &["10.9.0.2/24", "fd09::2/64"]);
    ip("addr add 10.9.0.1/24 dev up0");
    ip("addr add fd09::1/64 dev up0 nodad");
    outside
}

#[test]
fn the_kernels_vxlan_device_is_at_the_other_end() {
    in_namespace(|| {
        let outside = node_a();
        let inside = Station::workload(1, workload_mac(1));
        let (far, near) = (FAR_VTEP_MAC.to_string(), VTEP_MAC.to_string());
        outside.there(move || {
            for (device, local, remote) in [("vx4", "10.9.0.2", "10.9.0.1"), ("vx6", "fd09::2", "fd09::1")] {
                let kind = format!("type vxlan id 4096 dstport 4789 local {local} dev out0 nolearning");
                ip(&format!("link add {device} address {far} {kind}"));
                ip(&format!("link set {device} up"));
                let status = Command::new("bridge")
                    .args(["fdb", "append", &near, "dev", device, "dst", remote])
                    .status();
                assert!(status.expect("bridge (package iproute2)").success());
            }
            ip("addr add 10.67.1.9/32 dev vx4");
            ip("addr add fd67:1::9/128 dev vx6 nodad");
            ip("route add 10.65.0.1/32 dev vx4 src 10.67.1.9");
            ip("-6 route add fd65::1/128 dev vx6 src fd67:1::9");
            ip(&format!("neigh add 10.65.0.1 lladdr {near} dev vx4 nud permanent"));
            ip(&format!("neigh add fd65::1 lladdr {near} dev vx6 nud permanent"));
        });
        let capture = Capture::begin(&outside, "out0");
        let there = [("10.67.1.0/24", Encapsulation::Vxlan), ("fd67:1::/64", Encapsulation::Vxlan)];
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let process = Process::start(&["--uplink", "up0", "--frames", "8192"]);
        let mut client = runtime.block_on(process.client());
        let _agent = runtime.block_on(Agent::adopted(&mut client, told(0, 1, &there)));
        all_passes(&inside, &outside, ["10.67.1.9", "fd67:1::9"], [1450, 1430]);

        // A packet that the kernel has been told to forward, from a stranger's address.
        outside.there(|| ip("addr add 10.9.0.77/24 dev out0"));
        let stranger = outside.there(|| UdpSocket::bind("10.9.0.77:0").unwrap());
        stranger.send_to(&[8; 64], "10.9.0.1:4789").unwrap();
        let reason = |name: &'static str| {
            let mut client = client.clone();
            runtime.block_on(async move {
                let drops = client.list_drops(pb::ListDropsRequest {}).await.unwrap().into_inner().drops;
                drops.iter().find(|drop| drop.reason == name).map_or(0, |drop| drop.packets)
            })
        };
        let deadline = Instant::now() + PATIENCE;
        while reason("tunnel-from-stranger") == 0 {
            assert!(Instant::now() < deadline, "it is dropped for that reason");
        }
        if let Some(capture) = capture {
            let ours = format!("eth.src == {}", mac_of("up0"));
            assert!(capture.frames(&format!("{ours} && vxlan.vni == 4096 && tcp")) > 100);
            for wrong in [
                "_ws.malformed",
                "_ws.expert.severity == \"Error\"",
                "ip.checksum.status == \"Bad\"",
                "udp.checksum.status == \"Bad\"",
                "tcp.checksum.status == \"Bad\"",
            ] {
                assert_eq!(capture.frames(&format!("{ours} && ({wrong})")), 0, "{wrong}");
            }
        }
    });
}

/// What a kernel's raw socket of the protocol gets, and what it sends, has the kernel's own outer header.
#[test]
fn the_kernels_raw_sockets_speak_ipip_with_us() {
    in_namespace(|| {
        let outside = node_a();
        let inside = Station::workload(1, workload_mac(1));
        let there = [("10.66.1.0/24", Encapsulation::Ipip)];
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let process = Process::start(&["--uplink", "up0", "--frames", "8192"]);
        let mut client = runtime.block_on(process.client());
        let _agent = runtime.block_on(Agent::adopted(&mut client, told(0, 1, &there)));
        let mut receiver = outside.there(|| {
            let mut command = Command::new("socat");
            command.args(["-u", "IP4-RECV:4,bind=10.9.0.2", "STDOUT"]).stdout(Stdio::piped());
            command.spawn().expect("socat")
        });
        let mut output = receiver.stdout.take().unwrap();
        let (give, got) = std::sync::mpsc::channel::<Vec<u8>>();
        std::thread::spawn(move || {
            let mut room = [0; 2048];
            while let Ok(len @ 1..) = output.read(&mut room) {
                let _ = give.send(room[..len].to_vec());
            }
        });
        let socket = inside.there(|| UdpSocket::bind("10.65.0.1:4000").unwrap());
        socket.set_read_timeout(Some(std::time::Duration::from_millis(200))).unwrap();
        let answer = {
            let udp = [53u16, 4000, 8 + 6, 0].map(u16::to_be_bytes).concat();
            let header = ip4::emit(addr("10.66.1.9"), addr("10.65.0.1"), Proto::UDP, 64, udp.len() + 6);
            [&header[..], &udp, b"answer"].concat()
        };
        let (mut room, mut heard, mut answered) = ([0; 64], vec![], false);
        let deadline = Instant::now() + PATIENCE;
        while !answered || heard.is_empty() {
            assert!(Instant::now() < deadline, "heard {} bytes, answered: {answered}", heard.len());
            // The first may wait for a neighbour, or come before anybody listens.
            let _ = socket.send_to(b"question", "10.66.1.9:53");
            let answer = answer.clone();
            outside.there(move || {
                let mut command = Command::new("socat");
                command.args(["-u", "STDIN", "IP4-SENDTO:10.9.0.1:4"]).stdin(Stdio::piped());
                let mut sender = command.spawn().expect("socat");
                sender.stdin.take().unwrap().write_all(&answer).unwrap();
                assert!(sender.wait().unwrap().success());
            });
            if let Ok(len) = socket.recv(&mut room) {
                assert_eq!(&room[..len], b"answer");
                answered = true;
            }
            heard.extend(got.try_iter().flatten());
        }
        let _ = receiver.kill();
        let _ = receiver.wait();
        // With the outer header or without: that is for socat to say.
        let inner = |at: &usize| {
            ip4::Header::parse(&heard[*at..]).is_ok_and(|header| header.src == addr("10.65.0.1"))
        };
        let at = (0..heard.len()).find(inner).expect("the packet as it was inside");
        let header = ip4::Header::parse(&heard[at..]).unwrap();
        assert_eq!((header.dst, header.ttl, header.proto), (addr("10.66.1.9"), 63, Proto::UDP));
        assert_eq!(&heard[at + 28..at + 36], b"question");
    });
}

#[test]
fn two_nodes_carry_their_workloads_traffic() {
    in_namespace(|| {
        let node_b = node_a();
        let first = Station::workload(1, workload_mac(1));
        let second = node_b.there(|| Station::workload(2, workload_mac(2)));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let a = Process::start(&["--uplink", "up0", "--frames", "8192"]);
        let b = node_b.there(|| Process::start(&["--uplink", "out0", "--frames", "8192"]));
        let routes = |n: u8, how: Encapsulation| {
            let (v4, v6) = (format!("10.65.0.{n}/32"), format!("fd65::{n}/128"));
            move |own: usize, workload: u8| {
                told(own, workload, &[(v4.as_str(), how), (v6.as_str(), Encapsulation::Vxlan)])
            }
        };
        let (mut to_a, mut to_b) = (runtime.block_on(a.client()), runtime.block_on(b.client()));
        let how = Encapsulation::Ipip;
        let mut agent_a = runtime.block_on(Agent::adopted(&mut to_a, routes(2, how)(0, 1)));
        let mut agent_b = runtime.block_on(Agent::adopted(&mut to_b, routes(1, how)(1, 2)));
        all_passes(&first, &second, ["10.65.0.2", "fd65::2"], [1480, 1430]);

        // Another kind, while the nodes run.
        let how = Encapsulation::Vxlan;
        runtime.block_on(async {
            agent_a.commit(2, routes(2, how)(0, 1)).await;
            agent_b.commit(2, routes(1, how)(1, 2)).await;
            for agent in [&mut agent_a, &mut agent_b] {
                let adopted = Response::Adopted(pb::Adopted { generation: 2 });
                assert_eq!(agent.next().await.unwrap(), adopted);
            }
        });
        let at = SocketAddr::new("10.65.0.2".parse().unwrap(), 5301);
        answers(&second, at);
        reaches(&first, at);
        streams(&first, &second, SocketAddr::new("10.65.0.2".parse().unwrap(), 8001));
        let tunnels = runtime.block_on(to_a.list_tunnels(pb::ListTunnelsRequest {})).unwrap().into_inner();
        let up: Vec<_> = tunnels.tunnels.iter().filter(|tunnel| tunnel.reason.is_empty()).collect();
        assert_eq!(
            up.iter().map(|tunnel| (tunnel.kind.as_str(), tunnel.mtu)).collect::<Vec<_>>(),
            [("vxlan", 1450), ("vxlan-v6", 1430)]
        );
        let status = runtime.block_on(to_a.get_status(pb::GetStatusRequest {})).unwrap().into_inner();
        assert_eq!(status.workload_mtu, 1430, "the least of all that are on");
    });
}
