//! Host endpoints against the real kernel: TCP and UDP between a host and a station outside, over
//! a protected uplink. Needs root.
#![allow(missing_docs)]

mod namespace;
mod process;

use margay_api::dataplane::v1::{self as pb, change::Change, sync_response::Response};
use margay_dataplane::io::af_xdp::ifreq::Interface;
use namespace::{PATIENCE, Station, in_namespace, ip};
use process::{Agent, Process};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

const HOST: &str = "10.9.0.1";
const OUTSIDE: &str = "10.9.0.2";
/// How long what must not come is waited for.
const BRIEFLY: Duration = Duration::from_millis(300);

/// The host: its uplink, and what runs there.
struct Host {
    outside: Station,
    process: Process,
    agent: Agent,
    runtime: tokio::runtime::Runtime,
    generation: u64,
}

impl Host {
    fn new() -> Self {
        ip("link set lo up");
        let outside = Station::at("up0", "out0", &["10.9.0.2/24"]);
        ip("addr add 10.9.0.1/24 dev up0");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let process = Process::start(&["--uplink", "up0", "--frames", "8192"]);
        let agent = runtime.block_on(async {
            let mut agent = Agent::connect(&mut process.client().await).await;
            assert!(matches!(agent.next().await.unwrap(), Response::Hello(_)));
            agent
        });
        Self { outside, process, agent, runtime, generation: 0 }
    }

    /// Says everything anew.
    fn commit(&mut self, changes: Vec<Change>) {
        self.generation += 1;
        let changes = changes.into_iter().map(|change| pb::Change { change: Some(change) }).collect();
        self.runtime.block_on(async {
            self.agent.commit(self.generation, changes).await;
            let adopted = Response::Adopted(pb::Adopted { generation: self.generation });
            assert_eq!(self.agent.next().await.unwrap(), adopted);
        });
    }

    /// Waits until the host's traffic takes the way that its host endpoint wants.
    fn guarded(&self) {
        let stack = |interface: &pb::Interface| interface.kind == "stack" && interface.up;
        self.runtime.block_on(async {
            let mut client = self.process.client().await;
            let deadline = std::time::Instant::now() + PATIENCE;
            loop {
                let reply = client.list_interfaces(pb::ListInterfacesRequest {}).await.unwrap().into_inner();
                if reply.interfaces.iter().any(stack) {
                    return;
                }
                assert!(std::time::Instant::now() < deadline, "{:?}", reply.interfaces);
            }
        });
    }

    fn dropped(&self, reason: &str) -> u64 {
        self.runtime.block_on(async {
            let mut client = self.process.client().await;
            let reply = client.list_drops(pb::ListDropsRequest {}).await.unwrap().into_inner();
            reply.drops.iter().find(|drop| drop.reason == reason).map_or(0, |drop| drop.packets)
        })
    }
}

fn rule(protocol: u32, port: u16) -> pb::Rule {
    let port = u32::from(port);
    pb::Rule {
        action: pb::Action::Allow.into(),
        protocol: Some(protocol),
        dst_ports: vec![pb::PortRange { first: port, last: port }],
        ..Default::default()
    }
}

fn id(name: &str) -> pb::PolicyId {
    pb::PolicyId { kind: "GlobalNetworkPolicy".into(), namespace: String::new(), name: name.into() }
}

fn policy(name: &str, inbound_rules: Vec<pb::Rule>, outbound_rules: Vec<pb::Rule>) -> Change {
    Change::Policy(pb::Policy {
        id: Some(id(name)),
        tier: "default".into(),
        inbound_rules,
        outbound_rules,
        ..Default::default()
    })
}

fn tier(name: &str, default: pb::Action) -> Vec<pb::TierBinding> {
    vec![pb::TierBinding {
        name: "default".into(),
        ingress_policies: vec![id(name)],
        egress_policies: vec![id(name)],
        default_action: default.into(),
    }]
}

/// A host endpoint on `up0` with policy `host`, and these rules for it; TCP 22 is failsafe.
fn protect(inbound: Vec<pb::Rule>, outbound: Vec<pb::Rule>) -> Vec<Change> {
    let failsafe = pb::FailsafePort { protocol: 6, port: 22, net: None };
    vec![
        Change::Config(pb::NodeConfig { failsafe_inbound: vec![failsafe], ..Default::default() }),
        policy("host", inbound, outbound),
        Change::HostEndpoint(pb::HostEndpoint {
            id: "up0".into(),
            interface_name: "up0".into(),
            tiers: tier("host", pb::Action::Deny),
            ..Default::default()
        }),
    ]
}

/// Answers everything on these ports with itself, for as long as the test runs. To be called
/// where it is to listen.
fn echo(address: &str, ports: &[u16]) {
    for port in ports {
        let listener = TcpListener::bind((address, *port)).unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                std::thread::spawn(move || std::io::copy(&mut &stream, &mut &stream));
            }
        });
    }
}

/// Opens a connection. `None`: nobody answers in time.
fn open(address: &str, port: u16, patience: Duration) -> Option<TcpStream> {
    let to: SocketAddr = format!("{address}:{port}").parse().unwrap();
    match TcpStream::connect_timeout(&to, patience) {
        Ok(stream) => {
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.set_write_timeout(Some(PATIENCE)).unwrap();
            Some(stream)
        }
        Err(error) if error.kind() == ErrorKind::TimedOut => None,
        Err(error) => panic!("{error}"),
    }
}

/// Sends `len` bytes of no regular pattern there and back again.
fn echoes(stream: &TcpStream, len: usize) {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 56) as u8
    };
    let sent: Vec<u8> = (0..len).map(|_| next()).collect();
    let mut got = vec![0; len];
    std::thread::scope(|scope| {
        scope.spawn(|| (&*stream).write_all(&sent).unwrap());
        (&*stream).read_exact(&mut got).unwrap();
    });
    assert!(sent == got, "every byte comes back");
}

/// Opens a connection there and uses it.
fn speaks(address: &'static str, port: u16) -> bool {
    let stream = open(address, port, PATIENCE);
    if let Some(stream) = &stream {
        echoes(stream, 100);
    }
    stream.is_some()
}

fn silent(address: &'static str, port: u16) -> bool {
    open(address, port, BRIEFLY).is_none()
}

#[test]
fn tcp_to_and_from_a_protected_host_is_policed_both_ways_and_carries_bulk() {
    in_namespace(|| {
        let mut host = Host::new();
        echo(HOST, &[22, 8000, 8001]);
        host.outside.there(|| echo(OUTSIDE, &[9000, 9001]));
        assert!(host.outside.there(|| speaks(HOST, 8001)), "nothing is protected yet");

        host.commit(protect(vec![rule(6, 8000)], vec![rule(6, 9000)]));
        host.guarded();
        assert!(host.outside.there(|| speaks(HOST, 8000)));
        assert!(host.outside.there(|| silent(HOST, 8001)));
        assert!(speaks(OUTSIDE, 9000) && silent(OUTSIDE, 9001));
        assert!(host.outside.there(|| speaks(HOST, 22)), "failsafe");
        assert!(host.dropped("host-denied") >= 2);

        // Longer than any segment, from either side.
        host.outside.there(|| echoes(&open(HOST, 8000, PATIENCE).unwrap(), 8 << 20));
        echoes(&open(OUTSIDE, 9000, PATIENCE).unwrap(), 8 << 20);
    });
}

#[test]
fn a_long_connection_lives_through_a_new_policy_and_the_end_of_the_dataplane() {
    in_namespace(|| {
        let mut host = Host::new();
        echo(HOST, &[22, 8001]);
        host.commit(protect(vec![], vec![]));
        host.guarded();
        let ssh = host.outside.there(|| open(HOST, 22, PATIENCE).unwrap());
        let (ssh, fine) = host.outside.there(move || {
            echoes(&ssh, 1000);
            (ssh, silent(HOST, 8001))
        });
        assert!(fine);

        let mut shut = protect(vec![], vec![]);
        shut[0] = Change::Config(pb::NodeConfig::default());
        host.commit(shut);
        let (ssh, fine) = host.outside.there(move || {
            echoes(&ssh, 1000);
            (ssh, silent(HOST, 22))
        });
        assert!(fine, "a new one does not begin without the failsafe port");

        host.process.child.kill().unwrap();
        host.process.child.wait().unwrap();
        host.outside.there(move || echoes(&ssh, 1000));
        assert!(host.outside.there(|| speaks(HOST, 8001)), "the host's traffic flows again");
        assert!(Interface::named("margay-up0").unwrap().index().is_err(), "its tap is gone");
    });
}

#[test]
fn a_host_endpoint_that_goes_gives_the_uplink_back() {
    in_namespace(|| {
        let mut host = Host::new();
        echo(HOST, &[8001]);
        for _ in 0..2 {
            host.commit(protect(vec![], vec![]));
            host.guarded();
            assert!(host.outside.there(|| silent(HOST, 8001)));
            host.commit(vec![Change::HostEndpointRemove("up0".into())]);
            assert!(host.outside.there(|| speaks(HOST, 8001)));
        }
    });
}

#[test]
fn untracked_policy_passes_datagrams_both_ways_without_a_flow() {
    in_namespace(|| {
        let mut host = Host::new();
        let server = UdpSocket::bind((HOST, 5000)).unwrap();
        server.set_read_timeout(Some(PATIENCE)).unwrap();
        let answers = pb::Rule { src_ports: rule(17, 5000).dst_ports, dst_ports: vec![], ..rule(17, 5000) };
        let mut changes = protect(vec![], vec![]);
        changes.insert(0, policy("fast", vec![rule(17, 5000)], vec![answers]));
        let Some(Change::HostEndpoint(endpoint)) = changes.last_mut() else { panic!() };
        endpoint.untracked_tiers = tier("fast", pb::Action::Pass);
        host.commit(changes);
        host.guarded();
        let client = host.outside.there(|| {
            let client = UdpSocket::bind((OUTSIDE, 0)).unwrap();
            client.set_read_timeout(Some(PATIENCE)).unwrap();
            client.connect((HOST, 5000)).unwrap();
            client.send(b"question").unwrap();
            client
        });
        let mut buffer = [0; 16];
        let (len, from) = server.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..len], b"question");
        server.send_to(b"answer", from).unwrap();
        let len = client.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..len], b"answer");
        let flows = host.runtime.block_on(async {
            let mut client = host.process.client().await;
            client.get_status(pb::GetStatusRequest {}).await.unwrap().into_inner().flows
        });
        assert_eq!(flows, 0);
    });
}

#[test]
fn forward_policy_stands_between_the_network_and_a_workload() {
    in_namespace(|| {
        let mut host = Host::new();
        let workload = Station::at("cali1", "eth0", &["10.65.0.1/32"]);
        workload.there(|| {
            ip("route add 169.254.1.1 dev eth0 scope link");
            ip("route add default via 169.254.1.1 dev eth0");
            // The checksum that a veth leaves to the other end is completed, whatever the segment.
            echo("10.65.0.1", &[80, 81]);
        });
        host.outside.there(|| ip("route add 10.65.0.0/16 via 10.9.0.1"));
        let id = pb::WorkloadEndpointId {
            orchestrator: "k8s".into(),
            workload: "default/w1".into(),
            endpoint: "eth0".into(),
        };
        let own = pb::Prefix { address: vec![10, 65, 0, 1], length: 32 };
        let allow = pb::Rule { action: pb::Action::Allow.into(), ..Default::default() };
        let mut changes = protect(vec![], vec![]);
        let Some(Change::HostEndpoint(endpoint)) = changes.last_mut() else { panic!() };
        endpoint.forward_tiers = tier("forward", pb::Action::Deny);
        changes.splice(
            0..0,
            [
                policy("forward", vec![rule(6, 80)], vec![]),
                Change::Profile(pb::Profile {
                    name: "open".into(),
                    inbound_rules: vec![allow.clone()],
                    outbound_rules: vec![allow],
                }),
                Change::WorkloadEndpoint(pb::WorkloadEndpoint {
                    id: Some(id.clone()),
                    interface_name: "cali1".into(),
                    active: true,
                    nets: vec![own.clone()],
                    profile_ids: vec!["open".into()],
                    ..Default::default()
                }),
                Change::Route(pb::Route {
                    destination: Some(own),
                    target: Some(pb::route::Target::Workload(id)),
                    ..Default::default()
                }),
            ],
        );
        host.commit(changes);
        host.guarded();
        assert!(host.outside.there(|| speaks("10.65.0.1", 80)));
        assert!(host.outside.there(|| silent("10.65.0.1", 81)));
        assert!(host.dropped("forward-denied") >= 1);

        let explain = |port| {
            let request = pb::ExplainRequest {
                source: vec![10, 9, 0, 2],
                destination: vec![10, 65, 0, 1],
                protocol: 6,
                destination_port: port,
                ..Default::default()
            };
            host.runtime
                .block_on(async { host.process.client().await.explain(request).await.unwrap().into_inner() })
        };
        let open = explain(80);
        assert_eq!((open.verdict.as_str(), open.host.len()), ("allow", 1), "{open:?}");
        let shut = explain(81);
        let stage = &shut.host[0];
        assert_eq!((shut.verdict.as_str(), stage.stage.as_str()), ("deny", "applyOnForward"));
        assert_eq!(stage.decision.as_ref().unwrap().endpoint, "host endpoint up0");
    });
}

#[test]
fn an_explanation_tells_the_stages_of_the_hosts_own_traffic() {
    in_namespace(|| {
        let mut host = Host::new();
        host.commit(protect(vec![rule(6, 8000)], vec![]));
        let explain = |source: [u8; 4], destination: [u8; 4], port| {
            let request = pb::ExplainRequest {
                source: source.to_vec(),
                destination: destination.to_vec(),
                protocol: 6,
                destination_port: port,
                ..Default::default()
            };
            let told = host
                .runtime
                .block_on(async { host.process.client().await.explain(request).await.unwrap().into_inner() });
            let stages = told.host.iter().map(|stage| {
                let decision = stage.decision.as_ref().unwrap();
                format!("{} {} {}", stage.stage, stage.direction, decision.verdict)
            });
            (told.verdict, stages.collect::<Vec<_>>())
        };
        let said = |verdict: &str, stage: &str| (verdict.to_owned(), vec![stage.to_owned()]);
        let (inside, outside) = ([10, 9, 0, 1], [10, 9, 0, 2]);
        assert_eq!(explain(outside, inside, 22), said("allow", "failsafe ingress allow"));
        assert_eq!(explain(outside, inside, 8000), said("allow", "normal ingress allow"));
        assert_eq!(explain(outside, inside, 8001), said("deny", "normal ingress deny"));
        assert_eq!(explain(inside, outside, 8000), said("deny", "normal egress deny"));
    });
}
