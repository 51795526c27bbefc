//! Two nodes and a router, each a real BIRD in a network namespace of its own: what the agents write makes them speak.

use margay_agent::{
    backoff::Backoff,
    calc::{Calculated, Resources, desired},
    model::load,
    routing::{Bird, Settings},
};
use std::{
    fs,
    future::Future,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};
use tokio::{sync::watch, time::timeout};

/// How long what must happen may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is looked for.
const LOOK: Duration = Duration::from_millis(100);
const TABLE: u32 = 179;

const CLUSTER: &str = r#"
apiVersion: projectcalico.org/v3
kind: Node
metadata: {name: a}
spec: {bgp: {ipv4Address: 192.168.77.1/24, ipv6Address: "fd77::1/64"}}
---
apiVersion: projectcalico.org/v3
kind: Node
metadata: {name: b}
spec: {bgp: {ipv4Address: 192.168.77.2/24, ipv6Address: "fd77::2/64"}}
---
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: pods}
spec: {cidr: 10.65.0.0/16}
---
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: pods-six}
spec: {cidr: "fd65::/64"}
---
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: tunnelled}
spec: {cidr: 10.66.0.0/16, ipipMode: Always}
---
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: silent}
spec: {cidr: 10.67.0.0/16, disableBGPExport: true}
---
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {name: router}
spec: {peerIP: 192.168.77.254, asNumber: 65001, filters: [no-default]}
---
apiVersion: projectcalico.org/v3
kind: BGPFilter
metadata: {name: no-default}
spec: {importV4: [{cidr: 198.51.100.0/24, matchOperator: In, action: Reject}]}
---
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: b-k8s-api-eth0}
spec: {node: b, orchestrator: k8s, pod: api, endpoint: eth0, interfaceName: cali3, ipNetworks: [10.65.1.1/32]}
"#;

/// What runs on node a.
const WEB: &str = r#"---
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: a-k8s-web-eth0}
spec:
  node: a
  orchestrator: k8s
  pod: web
  endpoint: eth0
  interfaceName: cali1
  ipNetworks: [10.65.0.1/32, 10.66.0.1/32, 10.67.0.1/32, "fd65::1/128"]
"#;

/// Somebody else's: it announces two networks, and believes what it hears.
const ROUTER: &str = r"
router id 192.168.77.254;
log stderr { fatal };
protocol device { }
protocol direct { ipv4; }
protocol kernel { ipv4 { export where source = RTS_BGP; }; }
protocol static { ipv4; route 203.0.113.0/24 blackhole; route 198.51.100.0/24 blackhole; }
template bgp node {
  local 192.168.77.254 as 65001;
  connect delay time 1;
  connect retry time 2;
  error wait time 1, 5;
  ipv4 { import all; export where source = RTS_STATIC; };
}
protocol bgp a from node { neighbor 192.168.77.1 as 64512; }
protocol bgp b from node { neighbor 192.168.77.2 as 64512; }
";

/// A namespace on the common network, and what runs in it.
struct Machine {
    namespace: String,
    bird: Option<Child>,
}

impl Machine {
    fn new(name: &str, lan: &str, addresses: &[&str]) -> Self {
        let namespace = format!("margay-bgp-{}-{name}", std::process::id());
        ip(&format!("netns add {namespace}"));
        let machine = Self { namespace, bird: None };
        let near = format!("up-{name}");
        ip(&format!("-n {lan} link add {near} type veth peer name eth0 netns {}", machine.namespace));
        ip(&format!("-n {lan} link set {near} master lan0 up"));
        ip(&format!("-n {} link set lo up", machine.namespace));
        for address in addresses {
            let nodad = if address.contains(':') { " nodad" } else { "" };
            ip(&format!("-n {} addr add {address} dev eth0{nodad}", machine.namespace));
        }
        ip(&format!("-n {} link set eth0 up", machine.namespace));
        machine
    }

    fn start(&mut self, configuration: &Path, socket: &Path) {
        let bird = Command::new("ip")
            .args(["netns", "exec", &self.namespace, "/usr/sbin/bird", "-f"])
            .arg("-c")
            .arg(configuration)
            .arg("-s")
            .arg(socket)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.bird = Some(bird);
    }

    /// The machine's routes of a table.
    fn routes(&self, table: &str) -> String {
        let list = |version: &str| {
            let arguments = [version, "-n", &self.namespace, "route", "show", "table", table];
            let output = Command::new("ip").args(arguments).output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        list("-4") + &list("-6")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Some(mut bird) = self.bird.take() {
            let _ = bird.kill();
            let _ = bird.wait();
        }
        let _ = Command::new("ip").args(["netns", "del", &self.namespace]).output();
    }
}

fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().expect("ip (package iproute2)");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Waits until `found` is true, or fails with what `shown` shows.
async fn until<F: Future<Output = bool>>(
    what: &str,
    mut found: impl FnMut() -> F,
    shown: impl Fn() -> String,
) {
    let waiting = async {
        let mut looks = tokio::time::interval(LOOK);
        while !found().await {
            looks.tick().await;
        }
    };
    assert!(timeout(PATIENCE, waiting).await.is_ok(), "{what} did not happen; there is:\n{}", shown());
}

async fn until_routed(machine: &Machine, table: &str, wanted: impl Fn(&str) -> bool + Copy) {
    let look = || async move { wanted(&machine.routes(table)) };
    until("the routes wanted", look, || machine.routes(table)).await;
}

fn calculated(manifest: &str, node: &str) -> Calculated {
    let resources: Resources = load(manifest).unwrap().into_iter().collect();
    Calculated { revision: 1, desired: Arc::new(desired(&resources, node)) }
}

struct Agent {
    told: watch::Sender<Option<Calculated>>,
    bird: Bird,
    configuration: PathBuf,
    socket: PathBuf,
}

impl Agent {
    fn start(dir: &Path, node: &str, manifest: &str) -> Self {
        let settings = Settings {
            configuration: dir.join(format!("{node}.conf")),
            socket: dir.join(format!("{node}.ctl")),
            table: TABLE,
        };
        let (told, desired) = watch::channel(Some(calculated(manifest, node)));
        let (configuration, socket) = (settings.configuration.clone(), settings.socket.clone());
        Self { told, bird: Bird::start(settings, desired, Backoff::LOCAL), configuration, socket }
    }

    async fn is_well(&self) {
        let state = || self.bird.health().state();
        until("health", || async { state().healthy }, || format!("{:?}", state())).await;
    }
}

fn is_possible() -> bool {
    let root = fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    let missing = match (Path::new("/usr/sbin/bird").exists(), root) {
        (true, true) => return true,
        (false, _) => "BIRD is not here: install package bird2",
        (_, false) => "needs root for network namespaces",
    };
    // Past the capture of the test's output: to be seen also where all pass.
    std::io::stderr().write_all(format!("SKIPPED: {missing}\n").as_bytes()).unwrap();
    false
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn routes_go_between_nodes_and_a_router() {
    if !is_possible() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let lan = Machine { namespace: format!("margay-bgp-{}-lan", std::process::id()), bird: None };
    ip(&format!("netns add {}", lan.namespace));
    ip(&format!("-n {} link add lan0 type bridge", lan.namespace));
    ip(&format!("-n {} link set lan0 up", lan.namespace));
    let mut a = Machine::new("a", &lan.namespace, &["192.168.77.1/24", "fd77::1/64"]);
    let mut b = Machine::new("b", &lan.namespace, &["192.168.77.2/24", "fd77::2/64"]);
    let mut router = Machine::new("r", &lan.namespace, &["192.168.77.254/24"]);

    let whole = format!("{CLUSTER}{WEB}");
    let agents = [Agent::start(dir.path(), "a", &whole), Agent::start(dir.path(), "b", &whole)];
    for agent in &agents {
        // Before there is a BIRD its configuration waits for it.
        let file = || async { agent.configuration.exists() };
        until("the configuration", file, || agent.bird.health().state().reason).await;
        assert!(!agent.bird.health().state().healthy);
    }
    a.start(&agents[0].configuration, &agents[0].socket);
    b.start(&agents[1].configuration, &agents[1].socket);
    let by_hand = dir.path().join("router.conf");
    fs::write(&by_hand, ROUTER).unwrap();
    router.start(&by_hand, &dir.path().join("router.ctl"));

    // What a's workloads have, at b and at the router; and what the router announces, at both.
    until_routed(&b, "179", |routes| {
        routes.contains("10.65.0.1 via 192.168.77.1 dev eth0")
            && routes.contains("203.0.113.0/24 via 192.168.77.254 dev eth0")
            && routes.contains("fd65::1 via fd77::1 dev eth0")
    })
    .await;
    until_routed(&router, "main", |routes| {
        routes.contains("10.65.0.1 via 192.168.77.1 dev eth0")
            && routes.contains("10.65.1.1 via 192.168.77.2 dev eth0")
            && routes.contains("10.66.0.1 via 192.168.77.1 dev eth0")
    })
    .await;
    until_routed(&a, "179", |routes| routes.contains("203.0.113.0/24") && routes.contains("10.65.1.1 via"))
        .await;

    for agent in &agents {
        agent.is_well().await;
        let peers = agent.bird.peers().await.unwrap();
        let of = |object: &str| peers.iter().filter(|peer| peer.session.object == object).count();
        assert_eq!((peers.len(), of("mesh"), of("BGPPeer router")), (3, 2, 1));
        assert!(peers.iter().all(|peer| peer.status.as_ref().is_some_and(|status| status.is_established())));
    }
    let at_b = b.routes("179");
    assert!(!at_b.contains("10.65.1.1"), "b's own is its dataplane's:\n{at_b}");
    assert!(!at_b.contains("10.66.0.1"), "tunnels are the dataplane's:\n{at_b}");
    assert!(!at_b.contains("198.51.100.0"), "the filter rejects it:\n{at_b}");
    assert!(!b.routes("main").contains("10.65."), "the host's own table is left alone");
    assert!(!(at_b + &router.routes("main")).contains("10.67.0.1"), "its pool is not announced");

    // The workload goes: so do its routes. Then it comes back, at the other node.
    for (agent, node) in agents.iter().zip(["a", "b"]) {
        agent.told.send_replace(Some(calculated(CLUSTER, node)));
    }
    until_routed(&b, "179", |routes| !routes.contains("10.65.0.1")).await;
    until_routed(&router, "main", |routes| !routes.contains("10.65.0.1")).await;
    let moved = whole.replace("node: a\n", "node: b\n");
    for (agent, node) in agents.iter().zip(["a", "b"]) {
        agent.told.send_replace(Some(calculated(&moved, node)));
    }
    until_routed(&a, "179", |routes| routes.contains("10.65.0.1 via 192.168.77.2")).await;

    // Agents end; what BIRD has stays.
    let sockets = agents.each_ref().map(|agent| agent.socket.clone());
    drop(agents);
    assert!(sockets.iter().all(|socket| socket.exists()));
    assert!(a.routes("179").contains("10.65.0.1 via 192.168.77.2"));
}
