//! Ends of packets that no rule tells apart: each group is judged by one of them.
//!
//! Endpoints are alike that have the same namespace, labels, profiles, account and named ports, and
//! are inside the same address blocks of rules, and on the same node where host endpoints protect theirs.
//! A node that is protected is a group for each of its uplinks, and any other node one where rules name nodes. Other addresses are alike that are inside the
//! same blocks and the same network sets. Blocks nest or are apart, so an address of each block
//! that is in no smaller one stands for all of those.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use margay_agent::{
    calc::workload_name,
    model::{Resource, WorkloadEndpoint},
};
use margay_dataplane::{
    net::{Addr, Prefix},
    policy::{CompiledPolicy, Direction},
};
use serde::Serialize;

use super::{Cluster, Node};
use crate::exit::{Code, Failure, Outcome};

/// Questions whether an address is in a block, at most.
const MAX_QUESTIONS: usize = 100_000_000;

/// Ends that fare alike.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Group {
    /// For people.
    pub name: String,
    /// Of endpoints.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The node whose own addresses they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The endpoints, or the blocks that others are in.
    pub members: Vec<String>,
    /// One of its addresses by family.
    #[serde(skip)]
    pub addresses: Vec<Addr>,
}

impl Group {
    /// Policy applies to them.
    pub fn is_judged(&self) -> bool {
        self.namespace.is_some() || self.host.is_some()
    }
}

/// What makes an endpoint what it is to rules.
type Traits = (String, BTreeMap<String, String>, Vec<String>, String, String);

/// What endpoints of a group have in common: traits in each of the clusters, the blocks that they are in, and
/// the node, if host endpoints protect it.
type Likeness<'a> = (Vec<Traits>, Vec<Prefix>, &'a str);

/// The groups of all that is in each of the clusters, endpoints first.
pub fn groups(clusters: &[&Cluster]) -> Outcome<Vec<Group>> {
    let mut blocks = BTreeSet::new();
    for cluster in clusters {
        cluster.blocks(&mut blocks)?;
    }
    let first = clusters.first().map(|cluster| cluster.endpoints.as_slice()).unwrap_or_default();
    if first.len().saturating_mul(blocks.len()) > MAX_QUESTIONS {
        return Err(Failure::new(
            Code::Failed,
            "there is too much to compare",
            format!("{} endpoints with {} address blocks in rules", first.len(), blocks.len()),
            "put addresses into network sets, or ask about fewer endpoints",
        ));
    }
    let protected: BTreeSet<&str> = clusters.iter().flat_map(|cluster| cluster.protected()).collect();
    let mut alike: BTreeMap<Likeness<'_>, Vec<&WorkloadEndpoint>> = BTreeMap::new();
    for endpoint in first {
        let own = |other: &&WorkloadEndpoint| {
            (&other.metadata.namespace, &other.metadata.name)
                == (&endpoint.metadata.namespace, &endpoint.metadata.name)
        };
        let everywhere: Option<Vec<Traits>> =
            clusters.iter().map(|cluster| cluster.endpoints.iter().find(own).map(traits)).collect();
        let Some(everywhere) = everywhere else { continue };
        let inside = |block: &&Prefix| addresses(endpoint).any(|addr| block.contains(addr));
        let node = protected.get(endpoint.spec.node.as_str()).copied().unwrap_or_default();
        let key = (everywhere, blocks.iter().filter(inside).copied().collect(), node);
        alike.entry(key).or_default().push(endpoint);
    }
    let alike = alike.into_iter();
    let mut groups: Vec<Group> = alike.map(|((.., node), members)| of_endpoints(&members, node)).collect();
    groups.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    groups.extend(hosts(clusters));
    groups.extend(nodes(clusters, &groups));
    groups.extend(others(clusters, blocks));
    Ok(groups)
}

fn traits(endpoint: &WorkloadEndpoint) -> Traits {
    let (metadata, spec) = (&endpoint.metadata, &endpoint.spec);
    (
        metadata.namespace.clone(),
        metadata.labels.clone(),
        spec.profiles.clone(),
        format!("{} {}", spec.orchestrator, spec.service_account_name),
        format!("{:?}", spec.ports),
    )
}

fn addresses(endpoint: &WorkloadEndpoint) -> impl Iterator<Item = Addr> + '_ {
    endpoint.spec.ip_networks.iter().map(|net| Addr::from(net.addr()))
}

fn of_endpoints(members: &[&WorkloadEndpoint], node: &str) -> Group {
    let first = members[0];
    let labels: Vec<String> = first.metadata.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
    let labels = if labels.is_empty() { "no labels".to_owned() } else { labels.join(",") };
    let name = match (members.len(), node) {
        (1, _) => workload_name(first),
        (more, "") => format!("{} {labels} ({more})", first.metadata.namespace),
        (more, node) => format!("{} {labels} on {node} ({more})", first.metadata.namespace),
    };
    Group {
        name,
        namespace: Some(first.metadata.namespace.clone()),
        host: None,
        members: members.iter().map(|one| workload_name(one)).collect(),
        addresses: addresses(first).collect(),
    }
}

/// The nodes that host endpoints protect, in any of the clusters.
fn hosts(clusters: &[&Cluster]) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for cluster in clusters {
        for (name, node) in &cluster.nodes {
            for addresses in node.host_addresses() {
                let known =
                    groups.iter().any(|group| addresses.iter().any(|own| group.addresses.contains(own)));
                if known {
                    continue;
                }
                let title = format!("host {name}");
                let several = groups.iter().any(|group| group.name == title);
                groups.push(Group {
                    name: if several { format!("{title} at {}", addresses[0]) } else { title },
                    namespace: None,
                    host: Some(name.clone()),
                    members: addresses.iter().map(ToString::to_string).collect(),
                    addresses: addresses.to_vec(),
                });
            }
        }
    }
    groups
}

/// The nodes that no host endpoint protects, where rules tell them from other addresses.
fn nodes(clusters: &[&Cluster], known: &[Group]) -> Vec<Group> {
    if !clusters.iter().any(|cluster| cluster.nodes.values().any(Node::names_nodes)) {
        return Vec::new();
    }
    let hosts = known.iter().filter_map(|group| group.host.as_ref());
    let mut seen: BTreeSet<&String> = hosts.collect();
    let all = clusters.iter().flat_map(|cluster| &cluster.around.own);
    let others = all.filter(|(name, _)| seen.insert(name));
    let group = |(name, addresses): (&String, &Vec<IpAddr>)| Group {
        name: format!("host {name}"),
        namespace: None,
        host: Some(name.clone()),
        members: addresses.iter().map(ToString::to_string).collect(),
        addresses: addresses.iter().copied().map(Addr::from).collect(),
    };
    others.map(group).collect()
}

/// All addresses that are no endpoint's and no node's.
fn others(clusters: &[&Cluster], mut blocks: BTreeSet<Prefix>) -> Vec<Group> {
    let mut taken = BTreeSet::new();
    let mut sets: BTreeMap<String, BTreeSet<Prefix>> = BTreeMap::new();
    for cluster in clusters {
        taken.extend(cluster.endpoints.iter().flat_map(addresses));
        taken.extend(cluster.around.hosts.keys().map(|host: &IpAddr| Addr::from(*host)));
        for resource in &cluster.resources {
            let (name, nets) = match &**resource {
                Resource::GlobalNetworkSet(set) => (set.metadata.name.clone(), &set.spec.nets),
                Resource::NetworkSet(set) => {
                    (format!("{}/{}", set.metadata.namespace, set.metadata.name), &set.spec.nets)
                }
                _ => continue,
            };
            let nets = nets.iter().map(|net| Prefix::truncate(net.addr().into(), net.len()));
            sets.entry(name).or_default().extend(nets);
        }
    }
    let of_rules = blocks.clone();
    blocks.extend(sets.values().flatten());
    let everything = [Prefix::truncate(Addr::v4([0; 4]), 0), Prefix::truncate(Addr::from_bits(0), 0)];
    blocks.extend(everything);
    // Blocks in order, each before those inside it.
    let blocks: Vec<Prefix> = blocks.into_iter().collect();
    let mut alike: BTreeMap<(Vec<String>, Vec<Prefix>), Group> = BTreeMap::new();
    for (at, block) in blocks.iter().enumerate() {
        let Some(addr) = free(*block, &blocks[at + 1..], &taken) else { continue };
        let holding = sets.iter().filter(|(_, nets)| nets.iter().any(|net| net.contains(addr)));
        let holding: Vec<String> = holding.map(|(name, _)| name.clone()).collect();
        let inside: Vec<Prefix> = of_rules.iter().filter(|net| net.contains(addr)).copied().collect();
        let name = match (holding.is_empty(), block.is_default()) {
            (false, _) => format!("set {}", holding.join("+")),
            (true, true) => "other addresses".to_owned(),
            (true, false) => block.to_string(),
        };
        // The whole of either family is one peer to people, and two keys to us.
        let key = if block.is_default() { (Vec::new(), Vec::new()) } else { (holding, inside) };
        let group = alike.entry(key).or_insert_with(|| Group {
            name,
            namespace: None,
            host: None,
            members: Vec::new(),
            addresses: Vec::new(),
        });
        group.members.push(block.to_string());
        if !group.addresses.iter().any(|own| own.is_v4() == addr.is_v4()) {
            group.addresses.push(addr);
        }
    }
    alike.into_values().collect()
}

/// An address of `block` that is in none of the blocks inside it and not taken.
fn free(block: Prefix, later: &[Prefix], taken: &BTreeSet<Addr>) -> Option<Addr> {
    let mut at = block.addr().bits();
    if block != Prefix::host(block.addr()) {
        at += 1;
    }
    let last = Addr::bits(block.last());
    let mut inside = later.iter().filter(|inner| block.covers(**inner)).peekable();
    while at <= last {
        let addr = Addr::from_bits(at);
        match inside.peek() {
            Some(inner) if inner.contains(addr) => at = Addr::bits(inner.last()).checked_add(1)?,
            Some(inner) if Addr::bits(inner.last()) < at => drop(inside.next()),
            _ if taken.contains(&addr) => at += 1,
            _ => return Some(addr),
        }
    }
    None
}

impl Cluster {
    /// The nodes that host endpoints protect.
    fn protected(&self) -> impl Iterator<Item = &str> {
        self.nodes.iter().filter(|(_, node)| node.is_protected()).map(|(name, _)| name.as_str())
    }

    /// The blocks of addresses that rules name, of all trees.
    fn blocks(&self, blocks: &mut BTreeSet<Prefix>) -> Outcome<()> {
        let mut seen = BTreeSet::new();
        let mut take = |tree: &CompiledPolicy| {
            if seen.insert(std::ptr::from_ref(tree)) {
                for rule in tree.list().rules() {
                    let lists = [&rule.src_nets, &rule.dst_nets, &rule.not_src_nets, &rule.not_dst_nets];
                    blocks.extend(lists.into_iter().flatten());
                }
            }
        };
        for endpoint in &self.endpoints {
            for direction in [Direction::Ingress, Direction::Egress] {
                take(self.node_of(endpoint).tree(endpoint, direction)?);
            }
        }
        self.nodes.values().flat_map(Node::host_trees).for_each(take);
        Ok(())
    }
}
