//! One node of ours on real interfaces, and daemons of others at the end of its encrypted tunnels.
#![allow(dead_code, missing_docs)]

use super::build::*;
use super::namespace::{PATIENCE, Station, ip};
use super::process::{Agent, Process};
use margay_api::dataplane::v1::{
    self as pb, Encapsulation, change::Change, dataplane_client::DataplaneClient, sync_response::Response,
};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::time::Instant;
use tokio::runtime::Runtime;
use tonic::transport::Channel;

/// The nodes, by number.
pub const NODES: [[&str; 2]; 2] = [["10.9.0.1", "fd09::1"], ["10.9.0.2", "fd09::2"]];
pub const MTUS: [usize; 2] = [1440, 1420];
/// What is behind wireguard-go.
pub const FAR: [&str; 2] = ["10.67.1.9", "fd67:1::9"];

/// What node `own` is told: its workload, the other's keys over IPv4 and IPv6, and what is routed to it.
pub fn told(own: usize, workload: u8, keys: [&[u8]; 2], there: [&str; 2]) -> Vec<pb::Change> {
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
pub fn output(program: &str, arguments: &[&str], input: &str) -> String {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{program}: {error}"));
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A key that `wg` prints, in bytes.
pub fn unprinted(key: &str) -> Vec<u8> {
    const DIGITS: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = key.trim_end_matches('=').chars().map(|digit| DIGITS.find(digit).unwrap());
    let bits: Vec<usize> = digits.flat_map(|digit| (0..6).rev().map(move |bit| digit >> bit & 1)).collect();
    bits.chunks_exact(8).map(|bits| bits.iter().fold(0, |byte, bit| byte << 1 | *bit as u8)).collect()
}

/// And the other way round.
pub fn printed(key: &[u8]) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bits: Vec<u8> = key.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1)).collect();
    let digits =
        bits.chunks(6).map(|bits| bits.iter().fold(0, |digit, bit| digit << 1 | bit) << (6 - bits.len()));
    digits.map(|digit| DIGITS[usize::from(digit)] as char).chain(['=']).collect()
}

/// Whose WireGuard is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Maker {
    /// Debian's.
    WireguardGo,
    /// boringtun-cli of [`BORINGTUN`], which is not in Debian.
    Boringtun,
}

/// The release of boringtun-cli.
const BORINGTUN: &str = "0.7.1";

/// boringtun-cli, which is built if it is not there yet; or why it cannot be had.
static BORINGTUN_CLI: LazyLock<Result<PathBuf, String>> = LazyLock::new(|| {
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("../tools/boringtun-cli-{BORINGTUN}"));
    let program = root.join("bin/boringtun-cli");
    if !program.exists() {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["install", "--quiet", "--locked", "boringtun-cli", "--version"]);
        cargo.arg(format!("={BORINGTUN}")).arg("--root").arg(&root);
        let built = cargo.output().map_err(|error| format!("cargo: {error}"))?;
        if !built.status.success() {
            let said = String::from_utf8_lossy(&built.stderr).into_owned();
            return Err(format!("boringtun-cli cannot be built: {said}"));
        }
    }
    Ok(program)
});

impl Maker {
    /// The daemon's program and arguments for a device, in the foreground.
    fn command(self, device: &str) -> Command {
        let program = match self {
            Self::WireguardGo => Path::new("wireguard-go"),
            Self::Boringtun => BORINGTUN_CLI.as_deref().expect("asked before"),
        };
        let mut command = Command::new(program);
        command.args(["-f", device]).env("LOG_LEVEL", "error");
        if self == Self::Boringtun {
            command.args(["--disable-drop-privileges", "--threads", "1"]);
        }
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// Whether it can be had here; told loudly if it cannot.
    pub fn is_there(self) -> bool {
        let there = |program: &str| {
            let mut command = Command::new(program);
            command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
        };
        let mut missing = vec![];
        if !(there("wg") && Path::new("/dev/net/tun").exists()) {
            missing.push("needs wireguard-tools and /dev/net/tun".to_owned());
        }
        match self {
            Self::WireguardGo if !there("wireguard-go") => missing.push("needs wireguard-go".into()),
            Self::Boringtun => missing.extend(BORINGTUN_CLI.as_ref().err().cloned()),
            Self::WireguardGo => {}
        }
        for why in &missing {
            let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
        }
        missing.is_empty()
    }
}

/// A daemon of the station, over IPv4 or IPv6.
pub struct Daemon {
    pub name: String,
    child: Child,
}

impl Daemon {
    /// `ours` is the public key that it knows us by; `calls`: it knows where we are, too.
    pub fn start(maker: Maker, at: &Station, family: usize, key: &Path, ours: &str, calls: bool) -> Self {
        // Their sockets all stand in one folder, whatever the namespace.
        let name = format!("wg{}{}{family}", std::process::id(), ["g", "b"][maker as usize]);
        let (device, private, ours) = (name.clone(), key.to_owned(), ours.to_owned());
        at.there(move || {
            let daemon = Self::run(maker, device);
            let device = &daemon.name;
            let near = [format!("{}:51820", NODES[0][0]), format!("[{}]:51821", NODES[0][1])];
            let allowed = ["10.65.0.1/32", "fd65::1/128"][family];
            let port = ["51820", "51821"][family];
            let mut wg = Command::new("wg");
            wg.args(["set", device, "listen-port", port, "private-key"]).arg(&private);
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
            daemon
        })
    }

    /// A device that nobody has told anything yet.
    pub fn run(maker: Maker, name: String) -> Self {
        let child = maker.command(&name).spawn().unwrap_or_else(|error| panic!("{maker:?}: {error}"));
        let daemon = Self { name, child };
        let deadline = Instant::now() + PATIENCE;
        while !daemon.socket().exists() {
            assert!(Instant::now() < deadline, "{maker:?} is ready");
            std::thread::yield_now();
        }
        daemon
    }

    fn socket(&self) -> PathBuf {
        format!("/var/run/wireguard/{}.sock", self.name).into()
    }

    pub fn shown(&self, at: &Station, what: &'static str) -> String {
        let name = self.name.clone();
        at.there(move || output("wg", &["show", &name, what], ""))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(self.socket());
    }
}

/// Our node, and what is outside of it.
pub struct Lab {
    pub runtime: Runtime,
    pub client: DataplaneClient<Channel>,
    agent: Agent,
    _process: Process,
    pub inside: Station,
    pub outside: Station,
    pub folder: tempfile::TempDir,
    /// What our peers know us by.
    pub ours: String,
    generation: u64,
}

impl Lab {
    pub fn new(keys: [&[u8]; 2]) -> Self {
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

    pub fn commit(&mut self, changes: Vec<pb::Change>) {
        self.generation += 1;
        let generation = self.generation;
        self.runtime.block_on(async {
            self.agent.commit(generation, changes).await;
            let adopted = Response::Adopted(pb::Adopted { generation });
            assert_eq!(self.agent.next().await.unwrap(), adopted);
        });
    }

    pub fn peers(&mut self, family: usize) -> Vec<pb::WireguardPeerStatus> {
        let listed = self.runtime.block_on(self.client.list_wireguard(pb::ListWireguardRequest {})).unwrap();
        listed.into_inner().interfaces[family].peers.clone()
    }

    pub fn drops(&mut self, reason: &str) -> u64 {
        let drops = self.runtime.block_on(self.client.list_drops(pb::ListDropsRequest {})).unwrap();
        drops.into_inner().drops.iter().find(|drop| drop.reason == reason).map_or(0, |drop| drop.packets)
    }

    /// A key of wireguard-go's: its file, and the public one.
    pub fn key(&self, family: usize) -> (PathBuf, String) {
        let path = self.folder.path().join(format!("theirs{family}.key"));
        if !path.exists() {
            std::fs::write(&path, output("wg", &["genkey"], "")).unwrap();
        }
        let public = output("wg", &["pubkey"], &std::fs::read_to_string(&path).unwrap());
        (path, public)
    }
}

/// The key by which peers know a node, as soon as it has one.
pub async fn public(client: &mut DataplaneClient<Channel>) -> Vec<u8> {
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
