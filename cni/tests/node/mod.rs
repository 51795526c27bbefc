//! A node: dataplane and agent as processes, in this thread's network namespace, and the plugin run as a
//! container runtime runs it.
#![allow(dead_code, missing_docs)]

use margay_api::control::v1::{
    ApplyRequest, Endpoint, GetRequest, GetStatusRequest, Object, control_client::ControlClient,
};
use serde_json::{Value, json};
use std::{
    env, fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use tokio::runtime::{Builder, Runtime};
use tonic::transport::Channel;

/// How long a test waits for what must happen before it fails.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Where Debian has IPAM plugins.
const PLUGINS: &str = "/usr/lib/cni";

/// One node.
pub struct Node {
    folder: tempfile::TempDir,
    runtime: Runtime,
    dataplane: Option<Child>,
    agent: Option<Child>,
}

/// What the plugin said.
#[derive(Debug)]
pub struct Said {
    /// Its exit status says so.
    pub fine: bool,
    /// Null where it wrote nothing.
    pub json: Value,
}

impl Said {
    /// The result of a command that must succeed.
    #[track_caller]
    pub fn fine(self) -> Value {
        assert!(self.fine, "{}", self.json);
        self.json
    }

    /// The code and message of one that must not.
    #[track_caller]
    pub fn error(self) -> (u64, String) {
        assert!(!self.fine, "{}", self.json);
        (self.json["code"].as_u64().unwrap(), self.json["msg"].as_str().unwrap().to_owned())
    }
}

impl Node {
    /// Up, and ready for containers.
    pub fn start() -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let mut node = Self { folder: tempfile::tempdir().unwrap(), runtime, dataplane: None, agent: None };
        node.start_dataplane();
        node.start_agent();
        node
    }

    pub fn start_dataplane(&mut self) {
        let listen = self.path("dataplane.sock");
        // Small: what it costs to open one of many sockets grows with the memory that they share.
        let small = ["--flows", "1024", "--frames", "8192", "--workload-ring", "64", "--hugepages", "off"];
        let child =
            program("margay-dataplane").args(small).args(["--log", "warn", "--listen"]).arg(listen).spawn();
        self.dataplane = Some(child.unwrap());
    }

    pub fn start_agent(&mut self) {
        let store = format!("embedded:{}", self.path("store.redb").display());
        let mut agent = program("margay-agent");
        agent.args(["--node", "node-a", "--log", "warn", "--store", &store]);
        agent
            .arg("--listen")
            .arg(self.path("agent.sock"))
            .arg("--dataplane")
            .arg(self.path("dataplane.sock"));
        self.agent = Some(agent.spawn().unwrap());
        self.until("the node is ready", |node| node.status().fine);
    }

    /// As `kill -9` does.
    pub fn kill_agent(&mut self) {
        kill(&mut self.agent);
    }

    /// As `kill -9` does.
    pub fn kill_dataplane(&mut self) {
        kill(&mut self.dataplane);
    }

    /// A file of its own.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A network whose addresses Debian's host-local assigns.
    pub fn network(&self) -> Value {
        json!({
            "cniVersion": "1.0.0", "name": "net", "type": "margay-cni",
            "agent_socket": self.path("agent.sock"), "state_dir": self.path("state"),
            "ipam": {"type": "host-local", "dataDir": self.path("host-local"),
                     "ranges": [[{"subnet": "10.65.0.0/24"}], [{"subnet": "fd65::/120"}]]},
        })
    }

    /// One command. `pod` is its name in namespace shop, or empty.
    pub fn run(
        &self,
        command: &str,
        container: &str,
        netns: Option<&Path>,
        pod: &str,
        network: &Value,
    ) -> Said {
        let mut plugin = Command::new(env!("CARGO_BIN_EXE_margay-cni"));
        plugin.env_clear().env("CNI_COMMAND", command).env("CNI_PATH", PLUGINS);
        plugin.env("CNI_CONTAINERID", container).env("CNI_IFNAME", "eth0");
        if let Some(netns) = netns {
            plugin.env("CNI_NETNS", netns);
        }
        if !pod.is_empty() {
            plugin.env("CNI_ARGS", format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME={pod}"));
        }
        let mut child = plugin.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(network.to_string().as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let json = if output.stdout.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&output.stdout).unwrap()
        };
        Said { fine: output.status.success(), json }
    }

    pub fn status(&self) -> Said {
        self.run("STATUS", "", None, "", &self.network())
    }

    fn client(&self) -> ControlClient<Channel> {
        let socket = self.path("agent.sock");
        ControlClient::new(self.runtime.block_on(margay_api::unix::connect(&socket)).unwrap())
    }

    /// Stores objects, and waits until they are in force.
    pub fn apply(&self, objects: &[Value]) {
        let objects = objects.iter().map(Value::to_string).collect();
        let request = ApplyRequest { objects, wait: true, ..ApplyRequest::default() };
        self.runtime.block_on(self.client().apply(request)).unwrap();
    }

    /// The names of stored endpoints.
    pub fn endpoints(&self) -> Vec<String> {
        self.objects("wep").into_iter().map(|object| object.name).collect()
    }

    /// Handles that have addresses of the agent's.
    pub fn addresses(&self) -> Vec<Value> {
        let blocks = self.objects("ipamblock").into_iter();
        let blocks = blocks.map(|object| serde_json::from_str::<Value>(&object.json).unwrap());
        blocks.flat_map(|block| block["spec"]["attributes"].as_array().cloned().unwrap_or_default()).collect()
    }

    fn objects(&self, kind: &str) -> Vec<Object> {
        let request = GetRequest { kind: kind.into(), ..GetRequest::default() };
        self.runtime.block_on(self.client().get(request)).unwrap().into_inner().objects
    }

    /// What the dataplane serves, and interfaces it is still about to let go of.
    pub fn served(&self) -> (Vec<Endpoint>, u64) {
        let status =
            self.runtime.block_on(self.client().get_status(GetStatusRequest {})).unwrap().into_inner();
        (status.endpoints, status.dataplane.map_or(0, |dataplane| dataplane.workload_endpoints))
    }

    /// Waits for what must happen.
    pub fn until(&self, what: &str, mut happened: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !happened(self) {
            assert!(Instant::now() < deadline, "{what}");
        }
    }

    /// Files in a directory of its own.
    pub fn files(&self, name: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.path(name)) else { return Vec::new() };
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill_agent();
        self.kill_dataplane();
    }
}

/// The names of links of this namespace that the plugin made.
pub fn links() -> Vec<String> {
    let output = Command::new("ip").args(["-json", "link"]).output().unwrap().stdout;
    let links: Vec<Value> = serde_json::from_slice(&output).unwrap();
    let names = links.into_iter().map(|link| link["ifname"].as_str().unwrap_or_default().to_owned());
    names.filter(|name| name.starts_with("cali")).collect()
}

/// Beside the plugin: `cargo test` of the workspace builds all of them.
fn program(name: &str) -> Command {
    let path = Path::new(env!("CARGO_BIN_EXE_margay-cni")).with_file_name(name);
    assert!(
        path.exists(),
        "{} is not there: cargo build -p margay-dataplane -p margay-agent",
        path.display()
    );
    Command::new(path)
}

fn kill(child: &mut Option<Child>) {
    if let Some(mut child) = child.take() {
        let _ = child.kill();
        let _ = child.wait();
    }
}
