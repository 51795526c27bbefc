//! The network's configuration, from standard input.
//!
//! Keys are those of CNI's specification, Calico's plugin and ours. Keys that nobody here knows are tolerated, as the
//! specification asks. A key of Calico's that would change what a container gets, and does not here, is refused by name.

use crate::error::{Code, Error};
use serde::{Deserialize, Deserializer, de};
use serde_json::{Map, Value};
use std::{collections::BTreeMap, fmt, net::IpAddr, path::PathBuf, str::FromStr};

/// The versions of the specification that we speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "as they are called")]
pub enum Version {
    V0_3_1,
    V0_4_0,
    V1_0_0,
    #[default]
    V1_1_0,
}

impl Version {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::V0_3_1, Self::V0_4_0, Self::V1_0_0, Self::V1_1_0];
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        })
    }
}

impl FromStr for Version {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|version| version.to_string() == text).ok_or(())
    }
}

/// A network's configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Of the specification.
    pub version: Version,
    /// What it says.
    pub network: Network,
    /// As it was read: for IPAM plugins.
    pub raw: Map<String, Value>,
}

/// What a [`Config`] says.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct Network {
    /// Unique on the host.
    pub name: String,
    /// The largest packet; 0: what reaches every node.
    #[serde(deserialize_with = "null_is_default")]
    pub mtu: u32,
    /// The agent's node; empty: whatever that is.
    pub nodename: String,
    /// Who assigns addresses.
    #[serde(deserialize_with = "null_is_default")]
    pub ipam: Ipam,
    /// How long policy may take to be in force, in seconds; 0: the agent's 10.
    pub policy_setup_timeout_seconds: u32,
    /// What the container's kernel does.
    pub container_settings: ContainerSettings,
    /// The agent's socket.
    pub agent_socket: PathBuf,
    /// Where what could not be told to the agent waits.
    pub state_dir: PathBuf,
    /// What a container's resolver is told.
    pub dns: Option<Value>,
    args: OuterArgs,
    #[serde(rename = "runtimeConfig")]
    runtime: RuntimeConfig,
    /// The result of ADD, where the runtime gives it.
    #[serde(rename = "prevResult")]
    pub previous: Option<Value>,
    /// GC: what is to stay.
    #[serde(rename = "cni.dev/valid-attachments")]
    pub valid: Option<Vec<ValidAttachment>>,
}

/// Who assigns addresses.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct Ipam {
    /// `margay-ipam` or `calico-ipam`: the agent; else an IPAM plugin.
    #[serde(rename = "type")]
    pub plugin: String,
    /// An IPv4 address is assigned.
    #[serde(deserialize_with = "truth")]
    pub assign_ipv4: bool,
    /// An IPv6 address is assigned.
    #[serde(deserialize_with = "truth")]
    pub assign_ipv6: bool,
    /// Names or prefixes; empty: any.
    pub ipv4_pools: Vec<String>,
    /// Names or prefixes; empty: any.
    pub ipv6_pools: Vec<String>,
}

/// What the container's kernel does.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ContainerSettings {
    /// It forwards packets.
    pub allow_ip_forwarding: bool,
}

/// An attachment that is to stay.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ValidAttachment {
    /// The container's id.
    #[serde(rename = "containerID")]
    pub container: String,
    /// Its interface.
    #[serde(rename = "ifname")]
    pub interface: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct OuterArgs {
    cni: CniArgs,
}

/// By the conventions of CNI.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct CniArgs {
    labels: Vec<Label>,
    ips: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
struct Label {
    key: String,
    value: String,
}

/// What the runtime gives of what the configuration said it takes.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct RuntimeConfig {
    ips: Vec<String>,
    mac: Option<String>,
}

impl Default for Network {
    fn default() -> Self {
        Self {
            name: String::new(),
            mtu: 0,
            nodename: String::new(),
            ipam: Ipam::default(),
            policy_setup_timeout_seconds: 0,
            container_settings: ContainerSettings::default(),
            agent_socket: "/run/margay/agent.sock".into(),
            state_dir: "/var/lib/margay/cni".into(),
            dns: None,
            args: OuterArgs::default(),
            runtime: RuntimeConfig::default(),
            previous: None,
            valid: None,
        }
    }
}

impl Default for Ipam {
    fn default() -> Self {
        Self {
            plugin: "margay-ipam".to_owned(),
            assign_ipv4: true,
            assign_ipv6: false,
            ipv4_pools: Vec::new(),
            ipv6_pools: Vec::new(),
        }
    }
}

impl Ipam {
    /// The agent assigns addresses.
    pub fn is_ours(&self) -> bool {
        matches!(self.plugin.as_str(), "margay-ipam" | "calico-ipam")
    }
}

/// What Calico's plugin can and this one cannot: the key, and the values that ask for nothing.
const REFUSED: [(&[&str], &[Value]); 5] = [
    (&["feature_control", "floating_ips"], &[Value::Bool(false)]),
    (&["feature_control", "ip_addrs_no_ipam"], &[Value::Bool(false)]),
    (&["ipMasq"], &[Value::Bool(false)]),
    (&["device_type"], &[]),
    (&["dataplane_options"], &[]),
];

/// The shortest MTU that IPv4 allows (RFC 791) and the longest of any frame.
const MTU: std::ops::RangeInclusive<u32> = 68..=65_535;

impl Config {
    /// Reads and checks it.
    ///
    /// # Errors
    /// It is no JSON, of no version that we speak, or a value is wrong: the message names it.
    pub fn parse(text: &[u8]) -> Result<Self, Error> {
        let raw: Map<String, Value> = serde_json::from_slice(text).map_err(|error| {
            Error::new(Code::Decode, format!("the configuration is no JSON object: {error}"))
        })?;
        let version = version(&raw)?;
        let network: Network = serde_path_to_error::deserialize(Value::Object(raw.clone()))
            .map_err(|error| Error::new(Code::Config, format!("{}: {}", error.path(), error.inner())))?;
        let config = Self { version, network, raw };
        config.check()?;
        Ok(config)
    }

    /// Labels of a container that no pod in the store describes.
    pub fn labels(&self) -> BTreeMap<String, String> {
        let labels = &self.network.args.cni.labels;
        labels.iter().map(|label| (label.key.clone(), label.value.clone())).collect()
    }

    /// Addresses that the runtime wants, without their length.
    pub fn wanted_addresses(&self) -> Result<Vec<IpAddr>, Error> {
        let wanted = self.network.runtime.ips.iter().chain(&self.network.args.cni.ips);
        wanted.map(|text| address(text, "runtimeConfig.ips")).collect()
    }

    /// The Ethernet address that the runtime wants.
    pub fn wanted_mac(&self) -> Option<&str> {
        self.network.runtime.mac.as_deref().filter(|mac| !mac.is_empty())
    }

    fn check(&self) -> Result<(), Error> {
        let Network { name, mtu, ipam, agent_socket, state_dir, .. } = &self.network;
        let wrong = |field: &str, what: String| Err(Error::new(Code::Config, format!("{field}: {what}")));
        let sound = name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
        if !sound {
            let what = "is not a network's name: use letters, digits, and after the first _ . -";
            return wrong("name", format!("{name:?} {what}"));
        }
        if *mtu != 0 && !MTU.contains(mtu) {
            return wrong("mtu", format!("{mtu}: use {} to {}, or 0 for what fits", MTU.start(), MTU.end()));
        }
        if ipam.plugin.is_empty() || ipam.plugin.contains('/') {
            return wrong("ipam.type", format!("{:?} is not a plugin's name", ipam.plugin));
        }
        if ipam.is_ours() && !ipam.assign_ipv4 && !ipam.assign_ipv6 {
            return wrong(
                "ipam.assign_ipv4",
                "false, and so is assign_ipv6: a container needs an address".into(),
            );
        }
        for (field, path) in [("agent_socket", agent_socket), ("state_dir", state_dir)] {
            if !path.is_absolute() {
                return wrong(field, format!("{:?} is not an absolute path", path.display().to_string()));
            }
        }
        for (path, nothing) in REFUSED {
            let (first, rest) = path.split_first().expect("no path here is empty");
            let value =
                rest.iter().try_fold(self.raw.get(*first), |value, key| Some(value?.get(key))).flatten();
            if let Some(value) = value.filter(|value| !value.is_null() && !nothing.contains(value)) {
                let message = format!("{}: {value} is not supported: remove it", path.join("."));
                return Err(Error::new(Code::Unsupported, message));
            }
        }
        Ok(())
    }
}

/// The address in `10.0.0.1/24` or `10.0.0.1`.
pub fn address(text: &str, field: &str) -> Result<IpAddr, Error> {
    let alone = text.split_once('/').map_or(text, |(address, _)| address);
    alone.parse().map_err(|_| Error::new(Code::Config, format!("{field}: {text:?} is not an address")))
}

/// As the specification has it, a configuration without a version is of the first.
fn version(raw: &Map<String, Value>) -> Result<Version, Error> {
    let text = raw.get("cniVersion").and_then(Value::as_str).unwrap_or("0.1.0");
    text.parse().map_err(|()| {
        let known = Version::ALL.map(|version| version.to_string()).join(", ");
        Error::new(Code::Version, format!("cniVersion: {text:?} is not spoken here: use one of {known}"))
    })
}

fn null_is_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    Option::deserialize(from).map(Option::unwrap_or_default)
}

/// Calico has these as text.
fn truth<'de, D: Deserializer<'de>>(from: D) -> Result<bool, D::Error> {
    match Value::deserialize(from)? {
        Value::Bool(truth) => Ok(truth),
        Value::String(text) if text == "true" => Ok(true),
        Value::String(text) if text == "false" => Ok(false),
        other => Err(de::Error::custom(format!("{other} is neither true nor false"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(value: &Value) -> Result<Config, Error> {
        Config::parse(value.to_string().as_bytes())
    }

    fn with(key: &str, value: Value) -> Value {
        let mut config = json!({"cniVersion": "1.0.0", "name": "net", "type": "margay-cni"});
        config[key] = value;
        config
    }

    #[test]
    fn calicos_own_configuration_is_understood() {
        // The example of Calico's documentation.
        let config = parse(&json!({
            "name": "any_name", "cniVersion": "0.3.1", "type": "calico", "log_level": "info",
            "datastore_type": "kubernetes", "nodename": "node-a", "mtu": 1440,
            "ipam": {"type": "calico-ipam", "assign_ipv4": "true", "assign_ipv6": "true",
                     "ipv4_pools": ["10.0.0.0/24", "default-ipv4-ippool"]},
            "container_settings": {"allow_ip_forwarding": true},
            "policy": {"type": "k8s"}, "policy_setup_timeout_seconds": 5,
            "kubernetes": {"kubeconfig": "/etc/cni/net.d/calico-kubeconfig"},
            "feature_control": {"floating_ips": false},
        }))
        .unwrap();
        let network = &config.network;
        assert_eq!(
            (config.version, network.mtu, network.nodename.as_str()),
            (Version::V0_3_1, 1440, "node-a")
        );
        assert!(
            network.ipam.is_ours()
                && network.ipam.assign_ipv6
                && network.container_settings.allow_ip_forwarding
        );
        assert_eq!((network.ipam.ipv4_pools.len(), network.policy_setup_timeout_seconds), (2, 5));
    }

    #[test]
    fn the_specifications_example_is_understood() {
        let config = parse(&json!({
            "cniVersion": "1.1.0", "name": "dbnet", "type": "bridge", "bridge": "cni0", "keyA": ["some more", "plugin"],
            "ipam": {"type": "host-local", "subnet": "10.1.0.0/16", "gateway": "10.1.0.1",
                     "routes": [{"dst": "0.0.0.0/0"}]},
            "dns": {"nameservers": ["10.1.0.1"]},
            "args": {"cni": {"labels": [{"key": "app", "value": "db"}]}},
            "runtimeConfig": {"mac": "00:11:22:33:44:66", "ips": ["10.1.0.9/16"]},
            "cni.dev/valid-attachments": [{"containerID": "c", "ifname": "eth0"}],
        }))
        .unwrap();
        assert!(!config.network.ipam.is_ours());
        assert_eq!(config.labels()["app"], "db");
        assert_eq!(config.wanted_addresses().unwrap(), ["10.1.0.9".parse::<IpAddr>().unwrap()]);
        assert_eq!(config.wanted_mac(), Some("00:11:22:33:44:66"));
        assert_eq!(config.network.valid.unwrap()[0].container, "c");
        assert_eq!(config.raw["bridge"], "cni0", "what is not ours is handed on");
    }

    #[test]
    fn wrong_values_are_refused_by_name() {
        for (key, value, code, says) in [
            ("name", json!("-x"), Code::Config, "name: \"-x\""),
            ("name", json!(7), Code::Config, "name: invalid type"),
            ("mtu", json!(67), Code::Config, "mtu: 67"),
            ("mtu", json!("big"), Code::Config, "mtu: invalid type"),
            ("ipam", json!({"type": "a/b"}), Code::Config, "ipam.type"),
            ("ipam", json!({"assign_ipv4": "yes"}), Code::Config, "ipam.assign_ipv4: \"yes\""),
            ("ipam", json!({"assign_ipv4": false}), Code::Config, "ipam.assign_ipv4"),
            ("agent_socket", json!("agent.sock"), Code::Config, "agent_socket"),
            ("policy_setup_timeout_seconds", json!(-1), Code::Config, "policy_setup_timeout_seconds"),
            (
                "feature_control",
                json!({"floating_ips": true}),
                Code::Unsupported,
                "feature_control.floating_ips: true",
            ),
            ("device_type", json!("netkit"), Code::Unsupported, "device_type: \"netkit\""),
            ("cniVersion", json!("0.2.0"), Code::Version, "0.2.0"),
            ("cniVersion", json!(null), Code::Version, "0.1.0"),
        ] {
            let error = parse(&with(key, value.clone())).unwrap_err();
            assert!(error.code == code && error.message.contains(says), "{key} {value}: {error:?}");
        }
        assert_eq!(Config::parse(b"{").unwrap_err().code, Code::Decode);
        assert_eq!(Config::parse(b"[]").unwrap_err().code, Code::Decode);
        assert!(parse(&with("ipam", Value::Null)).is_ok_and(|config| config.network.ipam.is_ours()));
    }
}
