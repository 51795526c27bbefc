//! `connectivity test` on a node of its own: a real dataplane, a real agent, real packets. Needs root.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{self, Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

/// How long the test waits for what must happen before it fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// Dataplane and agent, in a network namespace.
struct Node {
    netns: String,
    folder: TempDir,
    processes: Vec<Child>,
}

impl Node {
    /// Up, and ready for workloads. None without root.
    fn start(name: &str) -> Option<Self> {
        if fs::read_to_string("/proc/self/status").unwrap().lines().all(|line| !line.starts_with("Uid:\t0\t"))
        {
            let _ = writeln!(std::io::stderr(), "SKIPPED: network namespaces need root");
            return None;
        }
        let netns = format!("margay-cli-{name}-{}", process::id());
        ip(&["netns", "add", &netns]);
        let mut node = Self { netns, folder: tempfile::tempdir().unwrap(), processes: vec![] };
        let store = format!("embedded:{}", node.path("store.redb").display());
        let [agent, dataplane] =
            ["agent.sock", "dataplane.sock"].map(|name| node.path(name).display().to_string());
        node.spawn(
            "margay-dataplane",
            &[
                "--flows",
                "1024",
                "--frames",
                "8192",
                "--workload-ring",
                "64",
                "--hugepages",
                "off",
                "--log",
                "warn",
                "--listen",
                &dataplane,
            ],
        );
        node.spawn(
            "margay-agent",
            &[
                "--node",
                "node-a",
                "--log",
                "warn",
                "--store",
                &store,
                "--listen",
                &agent,
                "--dataplane",
                &dataplane,
            ],
        );
        node.until("the node is well", |node| node.run(&["status"]).status.success());
        Some(node)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// In its namespace. `cargo test` of the workspace builds all programs.
    fn command(&self, program: &str) -> Command {
        let program = Path::new(env!("CARGO_BIN_EXE_margayctl")).with_file_name(program);
        assert!(program.exists(), "{} is not there: cargo build --workspace", program.display());
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.netns)).arg(program);
        command.env("MARGAY_AGENT", self.path("agent.sock"));
        command.env("MARGAY_DATAPLANE", self.path("dataplane.sock")).stdin(Stdio::null());
        command
    }

    fn spawn(&mut self, program: &str, arguments: &[&str]) {
        let mut command = self.command(program);
        command.env_remove("MARGAY_AGENT").env_remove("MARGAY_DATAPLANE");
        self.processes.push(command.args(arguments).spawn().unwrap());
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command("margayctl").args(arguments).output().unwrap()
    }

    /// What it prints, of a command that ends with this code.
    #[track_caller]
    fn ends(&self, code: i32, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let text = String::from_utf8(output.stdout).unwrap();
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}\n{text}{complaint}");
        text
    }

    fn apply(&self, manifest: &str) {
        let file = self.path("manifest.yaml");
        fs::write(&file, manifest).unwrap();
        self.ends(0, &["apply", "-f", &file.display().to_string()]);
    }

    #[track_caller]
    fn until(&self, what: &str, reached: impl Fn(&Self) -> bool) {
        let begin = Instant::now();
        while !reached(self) {
            assert!(begin.elapsed() < PATIENCE, "in vain: {what}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Names of what is stored of a kind.
    fn names(&self, kind: &str) -> String {
        self.ends(0, &["get", kind, "-A", "-o", "name"])
    }

    fn links(&self) -> String {
        let output = Command::new("ip").args(["-n", &self.netns, "-brief", "link"]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    #[track_caller]
    fn is_as_it_was(&self) {
        for kind in ["workloadendpoints", "networkpolicies", "profiles"] {
            assert_eq!(self.names(kind), "", "{kind}");
        }
        assert!(!self.links().contains("cali"), "{}", self.links());
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = process.kill();
            let _ = process.wait();
        }
        ip(&["netns", "delete", &self.netns]);
    }
}

fn ip(arguments: &[&str]) {
    assert!(Command::new("ip").args(arguments).status().unwrap().success(), "ip {arguments:?}");
}

fn signal(kind: &str, process: &Child) {
    assert!(Command::new("kill").args([kind, &process.id().to_string()]).status().unwrap().success());
}

#[test]
fn what_policy_says_is_seen_whoever_decides_and_nothing_stays() {
    let Some(node) = Node::start("own") else { return };
    let text = node.ends(0, &["connectivity", "test", "-o", "wide"]);
    assert!(text.contains("as expected, on node-a, by generation"), "{text}");
    assert!(!text.contains("FAIL") && !text.contains("note:"), "{text}");
    assert!(text.contains("tcp client > server:8080") && text.contains("icmp stranger > server"), "{text}");
    node.is_as_it_was();

    // Another policy comes before: it decides, which is seen, and said.
    node.apply(
        "{apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: before}, spec: {order: 1}}\n---\n\
         {apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: before.no-tcp}, \
         spec: {tier: before, types: [Ingress], ingress: [{action: Deny, protocol: TCP}, {action: Pass}]}}",
    );
    let report: Value = serde_json::from_str(&node.ends(0, &["connectivity", "test", "-o", "json"])).unwrap();
    let tests = report["tests"].as_array().unwrap();
    let of = |protocol: &str, port: Value| {
        let found = tests
            .iter()
            .find(|test| test["protocol"] == protocol && test["port"] == port && test["from"] == "client");
        let test = found.unwrap();
        [&test["expected"], &test["seen"], &test["overruled"], &test["by"]].map(Value::to_string).join(" ")
    };
    assert_eq!(of("tcp", 8080.into()), r#""deny" "deny" true "ingress before before.no-tcp rule 0""#);
    assert!(of("udp", 8080.into()).starts_with(r#""allow" "allow" false"#));
    assert!(of("icmp", Value::Null).starts_with(r#""allow" "allow" false"#));
    node.is_as_it_was();
}

/// Namespaces that a process holds open, other than that of the node.
fn held(process: u32, node: &Path) -> Vec<PathBuf> {
    let inode = |at: &Path| fs::metadata(at).map(|namespace| namespace.ino()).ok();
    let open = fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten().flatten();
    let spaces = open.map(|entry| entry.path()).filter(|path| {
        fs::read_link(path).is_ok_and(|target| target.to_string_lossy().starts_with("net:["))
            && inode(path) != inode(node)
    });
    let mut spaces: Vec<PathBuf> = spaces.collect();
    spaces.sort_by_key(|path| inode(path));
    spaces.dedup_by_key(|path| inode(path));
    spaces
}

#[test]
fn of_two_endpoints_that_are_there_one_packet_tells_what_the_node_does() {
    let Some(node) = Node::start("pair") else { return };
    for (name, address) in [("one", "10.9.0.1"), ("two", "10.9.0.2"), ("mute", "10.9.0.3")] {
        let near = format!("cali{name}");
        let netns = node.netns.as_str();
        ip(&["-n", netns, "link", "add", &near, "type", "veth", "peer", "name", name]);
        if name != "mute" {
            ip(&["-n", netns, "address", "add", address, "dev", name]);
        }
        ip(&["-n", netns, "link", "set", &near, "up"]);
        ip(&["-n", netns, "link", "set", name, "up"]);
        node.apply(&format!(
            "{{apiVersion: projectcalico.org/v3, kind: Profile, metadata: {{name: open}}, \
             spec: {{ingress: [{{action: Allow}}], egress: [{{action: Allow}}]}}}}\n---\n\
             {{apiVersion: projectcalico.org/v3, kind: WorkloadEndpoint, \
             metadata: {{name: node--a-cni-{name}-eth0, namespace: shop}}, \
             spec: {{node: node-a, orchestrator: cni, containerID: {name}, endpoint: eth0, workload: {name}, \
             interfaceName: {near}, ipNetworks: [{address}/32], profiles: [open]}}}}"
        ));
    }
    let ask =
        |to| ["connectivity", "test", "--from", "10.9.0.1", "--to", to, "--proto", "udp", "--port", "80"];
    node.until("the packet arrives", |node| node.run(&ask("10.9.0.2")).status.code() == Some(0));
    let text = node.ends(0, &ask("10.9.0.2"));
    assert!(text.starts_with("OK  shop/one (10.9.0.1)") && text.contains("seen:     allow, sent"), "{text}");

    // Policy lets it go there, too, but nobody there says that he has the address.
    let text = node.ends(6, &ask("10.9.0.3"));
    let (said, story) = text.split_once("\n\n").unwrap();
    let expected = ["FAIL  shop/one", "expected: allow", "seen:     deny, dropped: neighbour-unresolved"];
    for (line, expected) in said.lines().zip(expected) {
        assert!(line.trim_start().starts_with(expected), "{text}");
    }
    for way in [" policy ", " hold\n", " drop "] {
        assert!(story.contains(way), "{way}: {text}");
    }
}

#[test]
fn a_workload_that_is_mute_is_told_from_a_node_that_drops() {
    let Some(node) = Node::start("mute") else { return };
    let test =
        node.command("margayctl").args(["connectivity", "test"]).stdout(Stdio::piped()).spawn().unwrap();
    // Held while nothing is asked yet: whoever is there by then no longer answers for a port.
    let ours = PathBuf::from(format!("/run/netns/{}", node.netns));
    node.until("client and server are there", |_| held(test.id(), &ours).len() >= 2);
    signal("-STOP", &test);
    for space in held(test.id(), &ours) {
        let mute = ["ip", "rule", "add", "pref", "1", "ipproto", "tcp", "sport", "8080", "prohibit"];
        let net = format!("--net={}", space.display());
        assert!(Command::new("nsenter").arg(net).args(mute).status().unwrap().success());
    }
    signal("-CONT", &test);
    let output = test.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(6), "{text}");
    let failed: Vec<Vec<&str>> = text
        .lines()
        .filter(|line| line.starts_with("FAIL"))
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert!(!failed.is_empty(), "{text}");
    for columns in failed {
        let said = [&columns[1..5], &columns[7..]].concat().join(" ");
        assert_eq!(said, "tcp client > server:8080 allow deny", "{text}");
    }
    // The story says that it is not the node: the packet is sent to the server.
    let (_, story) =
        text.split_once("tcp client > server:8080: expected allow, by ingress default ").unwrap();
    let mut lines = story.lines().skip(1);
    assert!(lines.next().is_some_and(|line| line.ends_with(": sent")), "{text}");
    assert!(lines.any(|line| line.contains(" policy ")), "{text}");
    node.is_as_it_was();
}

#[test]
fn a_test_that_is_ended_leaves_nothing_and_what_a_killed_one_leaves_goes_with_the_next() {
    let Some(node) = Node::start("ended") else { return };
    for (kind, code) in [("-INT", Some(1)), ("-KILL", None)] {
        let mut test = node.command("margayctl");
        let mut test =
            test.args(["connectivity", "test"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        node.until("the workloads are there", |node| node.names("workloadendpoints").lines().count() == 3);
        signal(kind, &test);
        assert_eq!(test.wait().unwrap().code(), code);
        if kind == "-INT" {
            node.is_as_it_was();
        }
    }
    assert_eq!(node.names("workloadendpoints").lines().count(), 3);
    node.ends(0, &["connectivity", "test"]);
    node.is_as_it_was();
}
