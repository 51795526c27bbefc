//! With whom this node speaks BGP, what it announces, and what it takes: from BGPConfiguration, BGPPeer, BGPFilter, Node,
//! IPPool, and what the node has. As Calico has it.

use super::{Resources, blocks};
use crate::model::scalar::{AnyCommunity, AsNumber, Community, Whole};
use crate::model::{
    BgpConfiguration, BgpConfigurationSpec, BgpFilter, BgpFilterSpec, BgpLogSeverity, BgpPeer, BgpPeerSpec,
    BindMode, Cidr, EncapMode, IpPool, NextHopMode, Node, ReversePeering, Selector, SourceAddress,
    WorkloadEndpoint,
};
use sha1::{Digest, Sha1};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

/// Of nodes and clusters that name none.
const AS_NUMBER: AsNumber = AsNumber::new(64_512);
/// BGP's own port.
const PORT: u16 = 179;
/// How long a restart may take, in seconds.
const RESTART: u64 = 120;
/// The metric of routes that BGP gives to the kernel.
const METRIC: u32 = 1_024;

/// How a node speaks BGP.
#[derive(Clone, Debug, PartialEq)]
pub struct Bgp {
    /// The node's name to other speakers.
    pub router_id: Ipv4Addr,
    /// The node's AS.
    pub as_number: u32,
    /// What BGP is to be told to log.
    pub log: BgpLogSeverity,
    /// The port that is listened on.
    pub port: u16,
    /// Only the node's own address is listened on.
    pub bound: bool,
    /// Patterns of interfaces over which nothing is reached.
    pub ignored_interfaces: Vec<String>,
    /// Of routes given to the kernel: IPv4's and IPv6's.
    pub metrics: [u32; 2],
    /// What this node has: its blocks, and workloads outside of them.
    pub own: BTreeSet<Cidr>,
    /// The node's own addresses.
    pub addresses: BTreeSet<IpAddr>,
    /// Pools that are announced.
    pub announced: BTreeSet<Cidr>,
    /// Pools whose packets between nodes may go through tunnels, which are the dataplane's.
    pub tunnelled: BTreeSet<Cidr>,
    /// What announcements of some prefixes carry.
    pub communities: BTreeMap<Cidr, BTreeSet<Community>>,
    /// By the other end.
    pub sessions: BTreeMap<(IpAddr, u16), Session>,
    /// Those that a session names.
    pub filters: BTreeMap<String, BgpFilterSpec>,
    /// What is wrong, and what was done about it. One sentence each.
    pub problems: Vec<String>,
}

impl Bgp {
    /// Whether what the node has is announced: it is of a pool that may be.
    pub fn is_announced(&self, net: Cidr) -> bool {
        self.announced.iter().any(|pool| pool.len() <= net.len() && pool.contains(net.addr()))
    }
}

/// With one other speaker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// The object that asks for it: `BGPPeer rack-1`, or `mesh`.
    pub object: String,
    /// The node at the other end, where it is one.
    pub node: Option<String>,
    /// This end, unless the kernel shall choose.
    pub local: Option<IpAddr>,
    /// The AS at this end.
    pub local_as: u32,
    /// The AS at the other end.
    pub remote_as: u32,
    /// The other end is a client of this node, which reflects routes under this cluster's id.
    pub reflects: Option<IpAddr>,
    /// What becomes of next hops.
    pub next_hop: NextHopMode,
    /// How often the own AS may stand in a path.
    pub own_as_allowed: u32,
    /// Hops to the other end; packets from further are not its own.
    pub hops: Option<u8>,
    /// How long a restart may take, in seconds.
    pub restart: u64,
    /// How often the other end is told that the session lives, in seconds.
    pub keepalive: Option<u64>,
    /// Names of the filters, in their order.
    pub filters: Vec<String>,
}

impl Session {
    /// Both ends are of one AS.
    pub fn is_internal(&self) -> bool {
        self.local_as == self.remote_as
    }
}

/// How `node`, which has these workloads, speaks BGP; or not at all, because nobody knows it.
pub(super) fn bgp<'a>(
    resources: &Resources,
    node: &str,
    workloads: impl Iterator<Item = &'a WorkloadEndpoint>,
) -> Option<Bgp> {
    let own = resources.get::<Node>("", node)?;
    let settings = Settings::of(resources, node);
    let mut speakers = Speakers { resources, own, settings, sessions: BTreeMap::new(), problems: Vec::new() };
    speakers.peers();
    speakers.mesh();
    let Speakers { sessions, mut problems, .. } = speakers;
    let mut filters = BTreeMap::new();
    for session in sessions.values() {
        for name in &session.filters {
            match resources.get::<BgpFilter>("", name) {
                Some(filter) => drop(filters.insert(name.clone(), filter.spec.clone())),
                None => problems.push(format!(
                    "{} names BGPFilter {name:?}, which is not there: the session takes and gives nothing",
                    session.object
                )),
            }
        }
    }
    problems.sort();
    problems.dedup();
    let pools = |wanted: fn(&IpPool) -> bool| {
        resources.all::<IpPool>().filter(|pool| wanted(pool)).map(|pool| pool.spec.cidr).collect()
    };
    let encapsulates = |mode| matches!(mode, Some(EncapMode::Always | EncapMode::CrossSubnet));
    let metric = |priority: Option<i64>| priority.and_then(|n| u32::try_from(n).ok()).unwrap_or(METRIC);
    Some(Bgp {
        router_id: router_id(own),
        as_number: settings.as_number(own),
        log: settings.nearest(|spec| spec.log_severity_screen).unwrap_or(BgpLogSeverity::Info),
        port: settings.port(),
        bound: settings.cluster(|spec| spec.bind_mode) == Some(BindMode::NodeIP),
        ignored_interfaces: settings
            .cluster(|spec| spec.ignored_interfaces.as_ref())
            .into_iter()
            .flatten()
            .map(|pattern| pattern.as_str().to_owned())
            .collect(),
        metrics: [
            metric(settings.cluster(|spec| spec.ipv4_normal_route_priority).map(Whole::get)),
            metric(settings.cluster(|spec| spec.ipv6_normal_route_priority).map(Whole::get)),
        ],
        own: has(resources, node, workloads),
        addresses: own.addresses().map(|address| address.addr).collect(),
        announced: pools(|pool| !pool.spec.disable_bgp_export),
        tunnelled: resources
            .all::<IpPool>()
            .filter(|pool| encapsulates(pool.spec.ipip_mode) || encapsulates(pool.spec.vxlan_mode))
            .map(|pool| pool.spec.cidr)
            .collect(),
        communities: settings.communities(),
        sessions,
        filters,
        problems,
    })
}

/// Whether routes to workloads on nodes of other subnets, where no tunnel leads there, are left to BGP.
pub(super) fn makes_routes(resources: &Resources) -> bool {
    use crate::model::ProgramClusterRoutes::EnabledNoEncapOnly;
    let cluster = resources.get::<BgpConfiguration>("", "default");
    cluster.and_then(|cluster| cluster.spec.program_cluster_routes) == Some(EnabledNoEncapOnly)
}

/// The node's blocks, and those of its workloads' addresses that are in none of them.
pub(super) fn has<'a>(
    resources: &Resources,
    node: &str,
    workloads: impl Iterator<Item = &'a WorkloadEndpoint>,
) -> BTreeSet<Cidr> {
    let blocks: Vec<Cidr> =
        blocks::affine(resources).filter(|(_, of)| *of == node).map(|(block, _)| block).collect();
    let nets = workloads.flat_map(|workload| workload.spec.ip_networks.iter().copied());
    let lone = nets.filter(|net| !blocks.iter().any(|block| block.contains(net.addr())));
    let mut all: BTreeSet<Cidr> = lone.collect();
    all.extend(&blocks);
    all
}

/// The IPv4 address, or what stands for one: the same as long as the node has its name.
fn router_id(own: &Node) -> Ipv4Addr {
    let v4 = own.addresses().find_map(|address| match address.addr {
        IpAddr::V4(addr) => Some(addr),
        IpAddr::V6(_) => None,
    });
    v4.unwrap_or_else(|| {
        let hash = Sha1::digest(own.metadata.name.as_bytes());
        // Of a class that is no address, so that it is nobody's.
        Ipv4Addr::new(240 | hash[0] & 0x0e, hash[1], hash[2], hash[3])
    })
}

/// What BGPConfigurations say to a node.
#[derive(Clone, Copy)]
struct Settings<'a> {
    own: Option<&'a BgpConfigurationSpec>,
    cluster: Option<&'a BgpConfigurationSpec>,
}

impl<'a> Settings<'a> {
    fn of(resources: &'a Resources, node: &str) -> Self {
        let spec = |name: &str| resources.get::<BgpConfiguration>("", name).map(|found| &found.spec);
        Self { own: spec(&format!("node.{node}")), cluster: spec("default") }
    }

    fn cluster<T>(&self, setting: impl Fn(&'a BgpConfigurationSpec) -> Option<T>) -> Option<T> {
        self.cluster.and_then(setting)
    }

    fn nearest<T>(&self, setting: impl Fn(&'a BgpConfigurationSpec) -> Option<T>) -> Option<T> {
        [self.own, self.cluster].into_iter().flatten().find_map(setting)
    }

    fn as_number(&self, node: &Node) -> u32 {
        let own = node.spec.bgp.as_ref().and_then(|bgp| bgp.as_number);
        own.or(self.cluster(|spec| spec.as_number)).unwrap_or(AS_NUMBER).get()
    }

    fn port(&self) -> u16 {
        let given = self.cluster(|spec| spec.listen_port);
        given.and_then(|port| u16::try_from(port.get()).ok()).unwrap_or(PORT)
    }

    fn communities(&self) -> BTreeMap<Cidr, BTreeSet<Community>> {
        // Names are those of the object that uses them.
        let Some(spec) =
            [self.own, self.cluster].into_iter().flatten().find(|spec| spec.prefix_advertisements.is_some())
        else {
            return BTreeMap::new();
        };
        let named = spec.communities.as_deref().unwrap_or_default();
        let value = |community: &AnyCommunity| match community {
            AnyCommunity::Value(value) => Some(*value),
            AnyCommunity::Name(name) => {
                named.iter().find(|known| known.name == *name).map(|known| known.value)
            }
        };
        let mut all = BTreeMap::<_, BTreeSet<_>>::new();
        for advertised in spec.prefix_advertisements.iter().flatten() {
            all.entry(advertised.cidr).or_default().extend(advertised.communities.iter().filter_map(value));
        }
        all
    }
}

/// The other end of a session.
struct Far<'a> {
    addr: IpAddr,
    port: u16,
    as_number: u32,
    node: Option<&'a Node>,
}

/// Gathers sessions. Of several with one other end the first counts.
struct Speakers<'a> {
    resources: &'a Resources,
    own: &'a Node,
    settings: Settings<'a>,
    sessions: BTreeMap<(IpAddr, u16), Session>,
    problems: Vec<String>,
}

impl<'a> Speakers<'a> {
    /// Those of BGPPeers: what names this node counts before what selects it, and that before what is for all nodes.
    fn peers(&mut self) {
        let all: Vec<&BgpPeer> = self.resources.all().collect();
        let rank = |peer: &&BgpPeer| (peer.spec.node.is_none(), peer.spec.node_selector.is_none());
        let mut here: Vec<_> = all.iter().copied().filter(|peer| has_peer(self.own, &peer.spec)).collect();
        here.sort_by_key(rank);
        for peer in here {
            self.towards(peer);
        }
        for peer in all {
            // The other way round: who is selected as a peer has the session, too.
            let selects = selected(self.own, peer.spec.peer_selector.as_deref());
            if selects && peer.spec.reverse_peering != Some(ReversePeering::Manual) {
                for far in self.others().filter(|node| has_peer(node, &peer.spec)).collect::<Vec<_>>() {
                    self.with_node(&title(peer), far, &peer.spec);
                }
            }
        }
    }

    fn towards(&mut self, peer: &BgpPeer) {
        let (spec, title) = (&peer.spec, title(peer));
        if spec.peer_selector.is_some() {
            let far = self.others().filter(|node| selected(node, spec.peer_selector.as_deref()));
            for node in far.collect::<Vec<_>>() {
                self.with_node(&title, node, spec);
            }
            return;
        }
        let Some(at) = spec.peer_ip else {
            self.problems.push(format!("{title} names no peer: give peerIP or peerSelector"));
            return;
        };
        let is_at = |node: &&Node| node.addresses().any(|address| address.addr == at.addr);
        if is_at(&self.own) {
            return;
        }
        let node = self.others().find(is_at);
        let given = spec.as_number.filter(|number| number.get() != 0).map(AsNumber::get);
        let Some(as_number) = given.or(node.map(|node| self.settings.as_number(node))) else {
            self.problems.push(format!("{title} has no session: {} is no node; give its asNumber", at.addr));
            return;
        };
        let port = at.port.unwrap_or(if node.is_some() { self.settings.port() } else { PORT });
        self.add(&title, Far { addr: at.addr, port, as_number, node }, spec);
    }

    /// Every node with every other but reflectors.
    fn mesh(&mut self) {
        let is_off = self.settings.cluster(|spec| spec.node_to_node_mesh_enabled) == Some(false);
        if is_off || cluster_id(self.own).is_some() {
            return;
        }
        let max_restart_time = self.settings.cluster(|spec| spec.node_mesh_max_restart_time);
        let spec = BgpPeerSpec { max_restart_time, ..BgpPeerSpec::default() };
        for node in self.others().filter(|node| cluster_id(node).is_none()).collect::<Vec<_>>() {
            self.with_node("mesh", node, &spec);
        }
    }

    fn others(&self) -> impl Iterator<Item = &'a Node> + use<'a> {
        let own = &self.own.metadata.name;
        self.resources.all::<Node>().filter(move |node| node.metadata.name != *own)
    }

    /// One session for each IP version that both have.
    fn with_node(&mut self, object: &str, node: &'a Node, spec: &BgpPeerSpec) {
        for v4 in [true, false] {
            if let (Some(addr), Some(_)) = (address(node, v4), address(self.own, v4)) {
                let (port, as_number) = (self.settings.port(), self.settings.as_number(node));
                self.add(object, Far { addr, port, as_number, node: Some(node) }, spec);
            }
        }
    }

    fn add(&mut self, object: &str, far: Far<'_>, spec: &BgpPeerSpec) {
        let local = match spec.source_address {
            Some(SourceAddress::None) => None,
            Some(SourceAddress::UseNodeIP) | None => match address(self.own, far.addr.is_ipv4()) {
                Some(addr) => Some(addr),
                None => {
                    let why =
                        "this node has no address of that IP version; give it one, or sourceAddress None";
                    self.problems.push(format!("{object} has no session with {}: {why}", far.addr));
                    return;
                }
            },
        };
        let seconds = |duration: crate::model::scalar::Duration| duration.as_nanos() / 1_000_000_000;
        let local_as = spec.local_as_number.filter(|number| number.get() != 0);
        let local_as = local_as.map_or_else(|| self.settings.as_number(self.own), AsNumber::get);
        let kept = spec.keep_original_next_hop == Some(true);
        let reflects = cluster_id(self.own).filter(|own| {
            let same_cluster = far.node.and_then(cluster_id) == Some(*own);
            local_as == far.as_number && !same_cluster
        });
        let session = Session {
            object: object.to_owned(),
            node: far.node.map(|node| node.metadata.name.clone()),
            local,
            local_as,
            remote_as: far.as_number,
            reflects,
            next_hop: spec.next_hop_mode.unwrap_or(if kept { NextHopMode::Keep } else { NextHopMode::Auto }),
            own_as_allowed: spec
                .num_allowed_local_as_numbers
                .and_then(|n| u32::try_from(n.get()).ok())
                .unwrap_or(0),
            hops: spec.ttl_security.and_then(|hops| u8::try_from(hops.get()).ok()).filter(|hops| *hops > 0),
            restart: spec.max_restart_time.map_or(RESTART, seconds),
            keepalive: spec.keepalive_time.map(seconds),
            filters: spec.filters.clone().unwrap_or_default(),
        };
        self.sessions.entry((far.addr, far.port)).or_insert(session);
    }
}

fn title(peer: &BgpPeer) -> String {
    format!("BGPPeer {}", peer.metadata.name)
}

fn cluster_id(node: &Node) -> Option<IpAddr> {
    node.spec.bgp.as_ref().and_then(|bgp| bgp.route_reflector_cluster_id)
}

fn address(node: &Node, v4: bool) -> Option<IpAddr> {
    node.addresses().map(|address| address.addr).find(|addr| addr.is_ipv4() == v4)
}

/// The peer is one of this node: it names it, or selects it, or is for all.
fn has_peer(node: &Node, peer: &BgpPeerSpec) -> bool {
    match (&peer.node, &peer.node_selector) {
        (Some(name), _) => node.metadata.name == *name,
        (None, Some(_)) => selected(node, peer.node_selector.as_deref()),
        (None, None) => true,
    }
}

/// A selector that does not parse, which is refused when it is applied, selects nobody.
fn selected(node: &Node, selector: Option<&str>) -> bool {
    selector
        .and_then(|text| Selector::parse(text).ok())
        .is_some_and(|selector| selector.matches(&node.metadata.labels))
}
