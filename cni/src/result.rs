//! What ADD returns, in each version of the specification.

use crate::{
    config::{Version, address},
    error::{Code, Error},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::net::IpAddr;

/// What ADD has done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Added {
    /// Ours have two: the host's side, then the container's.
    pub interfaces: Vec<Interface>,
    /// The container's addresses.
    pub ips: Vec<Ip>,
    /// What it reaches by them.
    pub routes: Vec<Route>,
    /// What its resolver is told.
    pub dns: Option<Value>,
}

/// An interface that was made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its Ethernet address.
    pub mac: String,
    /// The largest packet; 0: not told.
    #[serde(skip_serializing_if = "is_zero")]
    pub mtu: u32,
    /// The container's network namespace; empty: the host's.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub sandbox: String,
}

/// An address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Ip {
    /// With its length.
    pub address: String,
    /// The index of the interface.
    pub interface: Option<usize>,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// A prefix.
    pub dst: String,
    /// By whom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gw: Option<String>,
}

impl Added {
    /// From a runtime or an IPAM plugin.
    ///
    /// # Errors
    /// It is no result.
    pub fn parse(value: &Value, of: &str) -> Result<Self, Error> {
        serde_path_to_error::deserialize(value)
            .map_err(|error| Error::new(Code::Decode, format!("{of}: {}: {}", error.path(), error.inner())))
    }

    /// As it is written to standard output.
    pub fn to_json(&self, version: Version) -> Value {
        let interfaces = self.interfaces.iter().map(|interface| {
            let mtu = if version >= Version::V1_1_0 { interface.mtu } else { 0 };
            json!(Interface { mtu, ..interface.clone() })
        });
        let ips = self.ips.iter().map(|ip| {
            let mut value = json!({"address": ip.address});
            if version < Version::V1_0_0 {
                value["version"] = if ip.address.contains(':') { "6" } else { "4" }.into();
            }
            if let Some(interface) = ip.interface {
                value["interface"] = interface.into();
            }
            value
        });
        let mut result = json!({
            "cniVersion": version.to_string(),
            "interfaces": interfaces.collect::<Vec<_>>(),
            "ips": ips.collect::<Vec<_>>(),
            "routes": self.routes,
        });
        if let Some(dns) = &self.dns {
            result["dns"] = dns.clone();
        }
        result
    }

    /// The addresses, without a length.
    ///
    /// # Errors
    /// One is no address.
    pub fn addresses(&self) -> Result<Vec<IpAddr>, Error> {
        self.ips.iter().map(|ip| address(&ip.address, "ips")).collect()
    }
}

/// What VERSION answers.
pub fn versions() -> Value {
    json!({
        "cniVersion": Version::default().to_string(),
        "supportedVersions": Version::ALL.map(|version| version.to_string()),
    })
}

fn is_zero(mtu: &u32) -> bool {
    *mtu == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn added() -> Added {
        Added {
            interfaces: vec![
                Interface {
                    name: "cali1".into(),
                    mac: "ee:ee:ee:ee:ee:ee".into(),
                    mtu: 1450,
                    ..Interface::default()
                },
                Interface {
                    name: "eth0".into(),
                    mac: "02:00:00:00:00:01".into(),
                    mtu: 1450,
                    sandbox: "/var/run/netns/blue".into(),
                },
            ],
            ips: vec![
                Ip { address: "10.1.0.5/32".into(), interface: Some(1) },
                Ip { address: "fd00::5/128".into(), interface: Some(1) },
            ],
            routes: vec![Route { dst: "0.0.0.0/0".into(), gw: Some("169.254.1.1".into()) }],
            dns: Some(json!({"nameservers": ["10.1.0.1"]})),
        }
    }

    #[test]
    fn each_version_has_its_form() {
        let newest = added().to_json(Version::V1_1_0);
        assert_eq!(newest["cniVersion"], "1.1.0");
        assert_eq!(
            newest["interfaces"][0],
            json!({"name": "cali1", "mac": "ee:ee:ee:ee:ee:ee", "mtu": 1450})
        );
        assert_eq!(newest["interfaces"][1]["sandbox"], "/var/run/netns/blue");
        assert_eq!(newest["ips"][0], json!({"address": "10.1.0.5/32", "interface": 1}));
        assert_eq!(newest["dns"]["nameservers"][0], "10.1.0.1");
        let old = added().to_json(Version::V0_4_0);
        assert_eq!(old["ips"][1], json!({"version": "6", "address": "fd00::5/128", "interface": 1}));
        assert!(old["interfaces"][0].get("mtu").is_none(), "mtu is new in 1.1.0");
        for version in Version::ALL {
            let back = Added::parse(&added().to_json(version), "prevResult").unwrap();
            assert_eq!((back.ips, back.routes), (added().ips, added().routes), "{version}");
        }
    }

    #[test]
    fn an_ipam_plugins_result_has_no_interfaces() {
        // As the specification's section 5 has it.
        let result = json!({
            "cniVersion": "1.0.0",
            "ips": [{"address": "10.1.0.5/16", "gateway": "10.1.0.1"}],
            "routes": [{"dst": "0.0.0.0/0"}],
            "dns": {},
        });
        let added = Added::parse(&result, "host-local").unwrap();
        assert_eq!(added.addresses().unwrap(), ["10.1.0.5".parse::<IpAddr>().unwrap()]);
        assert_eq!(added.routes[0].gw, None);
        let error = Added::parse(&json!({"ips": [{"address": 7}]}), "host-local").unwrap_err();
        assert!(error.code == Code::Decode && error.message.contains("ips[0].address"), "{error}");
    }

    #[test]
    fn versions_are_the_known_ones() {
        assert_eq!(
            versions(),
            json!({"cniVersion": "1.1.0", "supportedVersions": ["0.3.1", "0.4.0", "1.0.0", "1.1.0"]})
        );
    }
}
