//! A node: dataplane and agent as processes, in this thread's network namespace or another one, and the plugin run as
//! a container runtime runs it.
#![allow(dead_code, missing_docs)]

use margay_api::control::v1::{
    ApplyRequest, DeleteRequest, Endpoint, GetRequest, GetStatusRequest, Object,
    control_client::ControlClient,
};
use margay_api::dataplane::v1::{LookupRouteRequest, dataplane_client::DataplaneClient};
use serde_json::{Value, json};
use std::{
    env, fs,
    io::Write as _,
    net::Ipv4Addr,
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

/// What one node is not like the others in.
#[derive(Clone, Default)]
pub struct Place {
    /// `node-a` where it is empty.
    pub name: String,
    /// The namespace, if not this thread's.
    pub netns: Option<PathBuf>,
    /// The store, if it is none of the node's own.
    pub store: Option<String>,
    /// How the dataplane gets to other nodes, if there are any.
    pub uplink: Vec<String>,
}

/// One node.
pub struct Node {
    place: Place,
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
        Self::at(Place::default())
    }

    /// The same, there.
    pub fn at(place: Place) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mut node = Self { place, folder, runtime, dataplane: None, agent: None };
        node.start_dataplane();
        node.start_agent();
        node
    }

    pub fn start_dataplane(&mut self) {
        let listen = self.path("dataplane.sock");
        // Small: what it costs to open one of many sockets grows with the memory that they share.
        let small = ["--flows", "1024", "--frames", "8192", "--workload-ring", "64", "--hugepages", "off"];
        let mut dataplane = self.program("margay-dataplane");
        dataplane.args(small).args(&self.place.uplink).args(["--log", "warn", "--listen"]).arg(listen);
        self.dataplane = Some(dataplane.spawn().unwrap());
    }

    pub fn start_agent(&mut self) {
        self.launch_agent();
        self.until("the node is ready", |node| node.status().fine);
    }

    /// Without waiting for anything.
    pub fn launch_agent(&mut self) {
        let own = format!("embedded:{}", self.path("store.redb").display());
        let store = self.place.store.as_ref().unwrap_or(&own);
        let mut agent = self.program("margay-agent");
        agent.args(["--node", self.name(), "--log", "warn", "--store", store]);
        for (flag, file) in
            [("--listen", "agent.sock"), ("--dataplane", "dataplane.sock"), ("--snapshot", "snapshot.redb")]
        {
            agent.arg(flag).arg(self.path(file));
        }
        self.agent = Some(agent.spawn().unwrap());
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        if self.place.name.is_empty() { "node-a" } else { &self.place.name }
    }

    /// A command in its namespace.
    fn command(&self, program: &Path) -> Command {
        let Some(netns) = &self.place.netns else { return Command::new(program) };
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", netns.display())).arg(program);
        command
    }

    /// Beside the plugin: `cargo test` of the workspace builds all of them.
    fn program(&self, name: &str) -> Command {
        let path = Path::new(env!("CARGO_BIN_EXE_margay-cni")).with_file_name(name);
        let missing =
            format!("{} is not there: cargo build -p margay-dataplane -p margay-agent", path.display());
        assert!(path.exists(), "{missing}");
        self.command(&path)
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
        let mut plugin = self.command(Path::new(env!("CARGO_BIN_EXE_margay-cni")));
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

    /// Takes an object back out of the store.
    pub fn delete(&self, kind: &str, name: &str) {
        let request = DeleteRequest { kind: kind.into(), name: name.into(), ..DeleteRequest::default() };
        self.runtime.block_on(self.client().delete(request)).unwrap();
    }

    /// Where the dataplane sends packets to an address: kind and next hop of the route that is in force, and its prefix.
    pub fn way(&self, address: Ipv4Addr) -> Option<(String, Vec<u8>, u32)> {
        let socket = self.path("dataplane.sock");
        let channel = self.runtime.block_on(margay_api::unix::connect(&socket)).unwrap();
        let request = LookupRouteRequest { address: address.octets().to_vec(), from_workload: true };
        let answer = self.runtime.block_on(DataplaneClient::new(channel).lookup_route(request)).unwrap();
        let route = answer.into_inner().routes.into_iter().find(|route| route.in_force)?;
        let hop = route.next_hops.first().map(|hop| hop.gateway.clone()).unwrap_or_default();
        Some((route.kind, hop, route.destination.map_or(0, |prefix| prefix.length)))
    }

    /// What its agent says of itself.
    pub fn is_healthy(&self, component: &str) -> (bool, String) {
        let status =
            self.runtime.block_on(self.client().get_status(GetStatusRequest {})).unwrap().into_inner();
        let found = status.components.into_iter().find(|part| part.name == component).unwrap();
        (found.healthy, found.reason)
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

fn kill(child: &mut Option<Child>) {
    if let Some(mut child) = child.take() {
        let _ = child.kill();
        let _ = child.wait();
    }
}
