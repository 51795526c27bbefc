//! The format: a case in JSON, read strictly into the dataplane's own types.

use margay_dataplane::{
    net::{Addr, FlowKey, Icmp, PortRange, Proto},
    policy::{
        self, Action, IcmpMatch, IpVersion, ListedPolicy, ListedProfile, PolicyId, RuleList, SetTable,
        TierDefault, TierList,
    },
};

use super::{
    interface::Packet,
    sets::{Sets, net},
    written::{Named, Protocol, Range, Tier, Type, WrittenCase, WrittenPacket, WrittenRule},
    wrong::Wrong,
};

/// A case, ready to be judged.
pub struct Case {
    pub rules: Rules,
    pub sets: SetTable,
    pub packets: Vec<Packet>,
}

/// The rules of an interface, by when they are asked.
#[derive(Debug, Default)]
pub struct Rules {
    pub for_xdp: bool,
    pub for_host_interface: bool,
    pub suppress_normal: bool,
    pub host_pre_dnat: Vec<TierList>,
    pub host_forward: Vec<TierList>,
    pub host_normal: RuleList,
    pub workload: RuleList,
}

/// Reads a case.
pub fn read(line: &[u8]) -> Result<Case, Wrong> {
    let written: WrittenCase = serde_json::from_slice(line)?;
    let version = match written.ip_version {
        4 => IpVersion::V4,
        6 => IpVersion::V6,
        other => return Err(Wrong::new("ip_version", format_args!("{other} is neither 4 nor 6"))),
    };
    let sets = Sets::new(&written)?;
    let packets = written.packets.iter().enumerate();
    let packets = packets
        .map(|(at, probe)| {
            packet(&probe.packet, version).map_err(|e| e.within(format!("packets[{at}].packet")))
        })
        .collect::<Result<_, _>>()?;
    let rules = written.rules;
    let rules = Rules {
        for_xdp: rules.for_xdp,
        for_host_interface: rules.for_host_interface,
        suppress_normal: rules.suppress_normal_host_policy,
        host_pre_dnat: tiers("rules.host_pre_dnat_tiers", rules.host_pre_dnat_tiers, &sets)?,
        host_forward: tiers("rules.host_forward_tiers", rules.host_forward_tiers, &sets)?,
        host_normal: RuleList {
            tiers: tiers("rules.host_normal_tiers", rules.host_normal_tiers, &sets)?,
            profiles: profiles("rules.host_profiles", rules.host_profiles, &sets)?,
            ..RuleList::default()
        },
        workload: RuleList {
            tiers: tiers("rules.tiers", rules.tiers, &sets)?,
            profiles: profiles("rules.profiles", rules.profiles, &sets)?,
            ..RuleList::default()
        },
    };
    let sets = SetTable::new(sets.table).map_err(|error| Wrong::new("ip_sets", error))?;
    Ok(Case { rules, sets, packets })
}

fn tiers(field: &str, written: Vec<Tier>, sets: &Sets) -> Result<Vec<TierList>, Wrong> {
    let mut tiers = Vec::new();
    for (at, tier) in written.into_iter().enumerate() {
        let field = format!("{field}[{at}]");
        let default = match tier.end_action.as_str() {
            "" | "deny" => TierDefault::Deny,
            "pass" => TierDefault::Pass,
            other => {
                return Err(Wrong::new(
                    format!("{field}.end_action"),
                    format_args!("{other:?} is neither deny nor pass"),
                ));
            }
        };
        let only_staged = !tier.policies.is_empty() && tier.policies.iter().all(|policy| policy.staged);
        let mut policies = Vec::new();
        for (at, written) in tier.policies.into_iter().enumerate() {
            let rules = rules(&format!("{field}.policies[{at}]"), &written.rules, sets)?;
            if !written.staged {
                let id = PolicyId { kind: "Policy".into(), namespace: "".into(), name: written.name.into() };
                policies.push(ListedPolicy { id, rules });
            }
        }
        if !only_staged {
            tiers.push(TierList { name: tier.name.into(), default, policies });
        }
    }
    Ok(tiers)
}

fn profiles(field: &str, written: Vec<Named>, sets: &Sets) -> Result<Vec<ListedProfile>, Wrong> {
    let profile = |(at, named): (usize, Named)| {
        let field = format!("{field}[{at}]");
        if named.staged {
            return Err(Wrong::new(format!("{field}.staged"), "a profile cannot be staged; remove it"));
        }
        Ok(ListedProfile { rules: rules(&field, &named.rules, sets)?, name: named.name.into() })
    };
    written.into_iter().enumerate().map(profile).collect()
}

fn rules(field: &str, written: &[WrittenRule], sets: &Sets) -> Result<policy::Rules, Wrong> {
    let each = written.iter().enumerate();
    each.map(|(at, written)| rule(written, sets).map_err(|e| e.within(format!("{field}.rules[{at}]"))))
        .collect()
}

fn rule(written: &WrittenRule, sets: &Sets) -> Result<policy::Rule, Wrong> {
    let action = match written.action.as_str() {
        "allow" => Action::Allow,
        "deny" => Action::Deny,
        "pass" => Action::Pass,
        "log" => Action::Log,
        other => {
            return Err(Wrong::new("action", format_args!("{other:?} is none of allow, deny, pass and log")));
        }
    };
    let nets = |field: &str, texts: &[String]| {
        texts
            .iter()
            .map(|text| net(text).map_err(|why| Wrong::new(field, why)))
            .collect::<Result<Vec<_>, _>>()
    };
    let ports = |field: &str, ranges: &[Range]| {
        let range = |range: &Range| match (range.first, range.last) {
            (first, last) if first <= last => Ok(PortRange { first, last }),
            (first, last) => Err(Wrong::new(field, format_args!("{first} to {last} ends before it begins"))),
        };
        ranges.iter().map(range).collect::<Result<Vec<_>, _>>()
    };
    let icmp = |written: &Option<Type>| written.as_ref().map(|t| IcmpMatch { kind: t.r#type, code: t.code });
    Ok(policy::Rule {
        action,
        ip_version: match written.ip_version {
            None | Some(0) => None,
            Some(4) => Some(IpVersion::V4),
            Some(6) => Some(IpVersion::V6),
            Some(other) => return Err(Wrong::new("ip_version", format_args!("{other} is neither 4 nor 6"))),
        },
        protocol: protocol("protocol", written.protocol.as_ref())?,
        not_protocol: protocol("not_protocol", written.not_protocol.as_ref())?,
        src_nets: nets("src_net", &written.src_net)?,
        dst_nets: nets("dst_net", &written.dst_net)?,
        not_src_nets: nets("not_src_net", &written.not_src_net)?,
        not_dst_nets: nets("not_dst_net", &written.not_dst_net)?,
        src_ports: ports("src_ports", &written.src_ports)?,
        dst_ports: ports("dst_ports", &written.dst_ports)?,
        not_src_ports: ports("not_src_ports", &written.not_src_ports)?,
        not_dst_ports: ports("not_dst_ports", &written.not_dst_ports)?,
        src_named_ports: sets.ids("src_named_port_ip_set_ids", &written.src_named_port_ip_set_ids)?,
        dst_named_ports: sets.ids("dst_named_port_ip_set_ids", &written.dst_named_port_ip_set_ids)?,
        not_src_named_ports: sets
            .ids("not_src_named_port_ip_set_ids", &written.not_src_named_port_ip_set_ids)?,
        not_dst_named_ports: sets
            .ids("not_dst_named_port_ip_set_ids", &written.not_dst_named_port_ip_set_ids)?,
        src_ip_sets: sets.addresses("src_ip_set_ids", &written.src_ip_set_ids)?,
        dst_ip_sets: sets.addresses("dst_ip_set_ids", &written.dst_ip_set_ids)?,
        not_src_ip_sets: sets.addresses("not_src_ip_set_ids", &written.not_src_ip_set_ids)?,
        not_dst_ip_sets: sets.addresses("not_dst_ip_set_ids", &written.not_dst_ip_set_ids)?,
        dst_ip_port_sets: sets.ids("dst_ip_port_set_ids", &written.dst_ip_port_set_ids)?,
        icmp: icmp(&written.icmp),
        not_icmp: icmp(&written.not_icmp),
        rule_id: None,
    })
}

fn protocol(field: &str, written: Option<&Protocol>) -> Result<Option<Proto>, Wrong> {
    Ok(match written {
        None => None,
        Some(Protocol::Number(number)) => Some(Proto(*number)),
        Some(Protocol::Name(name)) => Some(name.parse().map_err(|why: String| Wrong::new(field, why))?),
    })
}

fn packet(written: &WrittenPacket, version: IpVersion) -> Result<Packet, Wrong> {
    let addr = |field: &str, text: &str| {
        let addr: Addr =
            text.parse().map_err(|_| Wrong::new(field, format_args!("{text:?} is not an address")))?;
        if IpVersion::of(addr) == version {
            Ok(addr)
        } else {
            Err(Wrong::new(field, format_args!("{text} is not of the case's ip_version")))
        }
    };
    let key = FlowKey {
        src: addr("src", &written.src)?,
        dst: addr("dst", &written.dst)?,
        sport: written.sport,
        dport: written.dport,
        proto: Proto(written.proto),
    };
    let before = written.pre_dnat_dst.as_ref().map(|text| addr("pre_dnat_dst", text)).transpose()?;
    Ok(Packet {
        key,
        icmp: Icmp { kind: written.icmp_type, code: written.icmp_code },
        before_nat: (before.unwrap_or(key.dst), written.pre_dnat_dport.unwrap_or(key.dport)),
        local: written.from_host || written.to_host,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn wrong(change: impl FnOnce(&mut Value)) -> String {
        let mut case = json!({
            "ip_version": 4,
            "rules": {"tiers": [{"name": "t", "policies": [{"name": "p", "rules": [{"action": "allow"}]}]}]},
            "ip_sets": {"a": ["10.0.0.0/8"]},
            "packets": [{"packet": {"proto": 6, "src": "10.0.0.1", "dst": "10.0.0.2"}}],
        });
        assert!(read(case.to_string().as_bytes()).is_ok());
        change(&mut case);
        read(case.to_string().as_bytes()).err().map(|wrong| wrong.to_string()).unwrap_or_default()
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        let rule = |field: &'static str, value: Value| {
            wrong(move |case| case["rules"]["tiers"][0]["policies"][0]["rules"][0][field] = value)
        };
        let at = "rules.tiers[0].policies[0].rules[0]";
        assert_eq!(
            rule("action", json!("drop")),
            format!("{at}.action: \"drop\" is none of allow, deny, pass and log")
        );
        assert_eq!(
            rule("src_ip_set_ids", json!(["b"])),
            format!("{at}.src_ip_set_ids: ip_sets has no set \"b\"; add it")
        );
        assert!(
            rule("dst_net", json!(["10.0.0.0/33"])).starts_with(&format!("{at}.dst_net: \"10.0.0.0/33\""))
        );
        assert!(rule("src_ports", json!([{"first": 2, "last": 1}])).contains("ends before it begins"));
        assert!(
            rule("dst_named_port_ip_set_ids", json!(["a"]))
                .starts_with("ip_sets.a: \"10.0.0.0/8\" is not an address, protocol")
        );
        assert!(rule("http", json!({})).contains("unknown field `http`"));
        assert_eq!(wrong(|case| case["ip_version"] = json!(5)), "ip_version: 5 is neither 4 nor 6");
        assert!(
            wrong(|case| case["packets"][0]["packet"]["src"] = json!("fd00::1"))
                .starts_with("packets[0].packet.src: ")
        );
        assert!(
            wrong(|case| case["rules"]["tiers"][0]["end_action"] = json!("allow"))
                .contains("neither deny nor pass")
        );
        assert!(wrong(|case| case["frobnicate"] = json!(1)).contains("unknown field"));
    }

    #[test]
    fn a_tier_of_staged_policies_does_not_count() {
        let case = read(
            br#"{"ip_version":4,"packets":[],"rules":{"tiers":[
                {"name":"t","policies":[{"name":"p","staged":true,"rules":[{"action":"deny"}]}]},{"name":"u"}]}}"#,
        )
        .unwrap();
        let names: Vec<_> = case.rules.workload.tiers.iter().map(|tier| tier.name.to_string()).collect();
        assert_eq!(names, ["u"]);
    }
}
