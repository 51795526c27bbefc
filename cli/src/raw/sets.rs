//! The IP sets of a case, and what is in them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use margay_dataplane::{
    net::{Addr, Prefix},
    policy::{IpSet, PortMember, SetId, SetKind, SetMembers},
};

use super::{
    written::{WrittenCase, WrittenRule},
    wrong::Wrong,
};

/// IP sets by name.
pub struct Sets {
    ids: BTreeMap<String, SetId>,
    pub table: Vec<Option<Arc<IpSet>>>,
}

impl Sets {
    pub fn new(case: &WrittenCase) -> Result<Self, Wrong> {
        let rules = &case.rules;
        let tiers =
            [&rules.tiers, &rules.host_pre_dnat_tiers, &rules.host_forward_tiers, &rules.host_normal_tiers];
        let policies = tiers.into_iter().flatten().flat_map(|tier| &tier.policies);
        let named = policies.chain(&rules.profiles).chain(&rules.host_profiles);
        // An empty set does not show what it would hold: its use does.
        let with_ports: BTreeSet<&String> =
            named.flat_map(|named| &named.rules).flat_map(WrittenRule::port_sets).collect();
        let mut sets = Self { ids: BTreeMap::new(), table: Vec::new() };
        for (name, members) in &case.ip_sets {
            let members = match with_ports.contains(name) {
                true => members
                    .iter()
                    .map(|text| port_member(text))
                    .collect::<Result<_, _>>()
                    .map(SetMembers::IpPort),
                false => members.iter().map(|text| net(text)).collect::<Result<_, _>>().map(SetMembers::Net),
            };
            let members = members.map_err(|message| Wrong::new(format!("ip_sets.{name}"), message))?;
            sets.ids.insert(name.clone(), SetId(sets.table.len() as u32));
            sets.table.push(Some(Arc::new(IpSet { name: name.as_str().into(), members })));
        }
        Ok(sets)
    }

    pub fn ids(&self, field: &str, names: &[String]) -> Result<Vec<SetId>, Wrong> {
        let id = |name: &String| {
            let id = self.ids.get(name).copied();
            id.ok_or_else(|| Wrong::new(field, format_args!("ip_sets has no set {name:?}; add it")))
        };
        names.iter().map(id).collect()
    }

    pub fn addresses(&self, field: &str, names: &[String]) -> Result<Vec<SetId>, Wrong> {
        let ids = self.ids(field, names)?;
        let held = |id: &&SetId| {
            self.table[id.0 as usize].as_ref().is_some_and(|set| set.kind() == SetKind::Address)
        };
        match ids.iter().zip(names).find(|(id, _)| !held(id)) {
            Some((_, name)) => {
                let why = format_args!(
                    "the set {name:?} is of addresses with ports here and of addresses there; make it two"
                );
                Err(Wrong::new(field, why))
            }
            None => Ok(ids),
        }
    }
}

/// Bits behind the length are taken for 0, as they are where such rules come from.
pub fn net(text: &str) -> Result<Prefix, String> {
    let wrong = || format!("{text:?} is neither an address nor a block as in 10.0.0.0/8");
    let (addr, len) = text.split_once('/').map_or((text, None), |(addr, len)| (addr, Some(len)));
    let addr: Addr = addr.parse().map_err(|_| wrong())?;
    let most = if addr.is_v4() { 32 } else { 128 };
    match len.map(str::parse::<u8>) {
        None => Ok(Prefix::host(addr)),
        Some(Ok(len)) if len <= most => Ok(Prefix::truncate(addr, len)),
        Some(_) => Err(wrong()),
    }
}

fn port_member(text: &str) -> Result<PortMember, String> {
    let member = || {
        let (addr, port) = text.split_once(',')?;
        let (proto, port) = port.split_once(':')?;
        let addr = net(addr).ok().filter(|net| *net == Prefix::host(net.addr()))?.addr();
        Some(PortMember { addr, proto: proto.parse().ok()?, port: port.parse().ok()? })
    };
    member().ok_or_else(|| format!("{text:?} is not an address, protocol and port, as in 10.0.0.1,tcp:80"))
}
