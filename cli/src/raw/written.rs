//! A case as it is written.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// What a case may say and what has no say in verdicts: names, sources, expectations.
type Ignored = Option<Value>;

/// A case.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WrittenCase {
    pub ip_version: u8,
    #[serde(default)]
    pub rules: WrittenRules,
    #[serde(default)]
    pub ip_sets: BTreeMap<String, Vec<String>>,
    pub packets: Vec<Probe>,
    #[serde(default, rename = "suite")]
    _suite: Ignored,
    #[serde(default, rename = "name")]
    _name: Ignored,
    #[serde(default, rename = "src")]
    _src: Ignored,
}

/// The rules of an interface.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WrittenRules {
    pub tiers: Vec<Tier>,
    pub profiles: Vec<Named>,
    pub host_pre_dnat_tiers: Vec<Tier>,
    pub host_forward_tiers: Vec<Tier>,
    pub host_normal_tiers: Vec<Tier>,
    pub host_profiles: Vec<Named>,
    pub for_host_interface: bool,
    pub for_xdp: bool,
    pub suppress_normal_host_policy: bool,
    #[serde(rename = "no_profile_match_id")]
    _no_profile_match_id: Ignored,
}

/// A tier.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tier {
    pub name: String,
    /// `pass`, or `deny`, which is also the default.
    #[serde(default)]
    pub end_action: String,
    #[serde(default)]
    pub policies: Vec<Named>,
    #[serde(default, rename = "end_rule_id")]
    _end_rule_id: Ignored,
}

/// A policy or a profile.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Named {
    pub name: String,
    #[serde(default)]
    pub rules: Vec<WrittenRule>,
    /// Not asked, and does not make its tier count.
    #[serde(default)]
    pub staged: bool,
    #[serde(default, rename = "no_match_id")]
    _no_match_id: Ignored,
}

/// A rule.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WrittenRule {
    pub action: String,
    #[serde(default)]
    pub ip_version: Option<u8>,
    #[serde(default)]
    pub protocol: Option<Protocol>,
    #[serde(default)]
    pub not_protocol: Option<Protocol>,
    #[serde(default)]
    pub src_net: Vec<String>,
    #[serde(default)]
    pub dst_net: Vec<String>,
    #[serde(default)]
    pub not_src_net: Vec<String>,
    #[serde(default)]
    pub not_dst_net: Vec<String>,
    #[serde(default)]
    pub src_ports: Vec<Range>,
    #[serde(default)]
    pub dst_ports: Vec<Range>,
    #[serde(default)]
    pub not_src_ports: Vec<Range>,
    #[serde(default)]
    pub not_dst_ports: Vec<Range>,
    #[serde(default)]
    pub src_ip_set_ids: Vec<String>,
    #[serde(default)]
    pub dst_ip_set_ids: Vec<String>,
    #[serde(default)]
    pub not_src_ip_set_ids: Vec<String>,
    #[serde(default)]
    pub not_dst_ip_set_ids: Vec<String>,
    #[serde(default)]
    pub src_named_port_ip_set_ids: Vec<String>,
    #[serde(default)]
    pub dst_named_port_ip_set_ids: Vec<String>,
    #[serde(default)]
    pub not_src_named_port_ip_set_ids: Vec<String>,
    #[serde(default)]
    pub not_dst_named_port_ip_set_ids: Vec<String>,
    #[serde(default)]
    pub dst_ip_port_set_ids: Vec<String>,
    #[serde(default)]
    pub icmp: Option<Type>,
    #[serde(default)]
    pub not_icmp: Option<Type>,
    #[serde(default, rename = "rule_id")]
    _rule_id: Ignored,
    #[serde(default, rename = "match_id")]
    _match_id: Ignored,
}

impl WrittenRule {
    /// The names of the sets of (address, protocol, port).
    pub fn port_sets(&self) -> impl Iterator<Item = &String> {
        [
            &self.src_named_port_ip_set_ids,
            &self.dst_named_port_ip_set_ids,
            &self.not_src_named_port_ip_set_ids,
            &self.not_dst_named_port_ip_set_ids,
            &self.dst_ip_port_set_ids,
        ]
        .into_iter()
        .flatten()
    }
}

/// A protocol.
#[derive(Deserialize)]
#[serde(untagged)]
pub enum Protocol {
    Number(u8),
    Name(String),
}

/// Ports.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Range {
    pub first: u16,
    pub last: u16,
}

/// A type of ICMP, and perhaps a code.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Type {
    pub r#type: u8,
    #[serde(default)]
    pub code: Option<u8>,
}

/// A packet, and what else may be said of it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    pub packet: WrittenPacket,
    #[serde(default, rename = "verdict")]
    _verdict: Ignored,
    #[serde(default, rename = "rule_ids_hit")]
    _rule_ids_hit: Ignored,
}

/// A packet.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WrittenPacket {
    pub proto: u8,
    pub src: String,
    pub dst: String,
    #[serde(default)]
    pub sport: u16,
    #[serde(default)]
    pub dport: u16,
    #[serde(default)]
    pub icmp_type: u8,
    #[serde(default)]
    pub icmp_code: u8,
    #[serde(default)]
    pub pre_dnat_dst: Option<String>,
    #[serde(default)]
    pub pre_dnat_dport: Option<u16>,
    #[serde(default)]
    pub from_host: bool,
    #[serde(default)]
    pub to_host: bool,
}
