//! The interfaces by which a node speaks to the network, as far as host endpoints tell.
//!
//! Files know no interfaces. Each that a host endpoint names is taken for an uplink that has the addresses
//! the host endpoint expects. One that names none is on the uplink with its addresses, or on one of its
//! own. What protects all interfaces protects one more, and those of workloads. The node's own addresses
//! are on the uplink that expects one of them; else on one that expects none. That is the way to
//! everybody else.

use std::net::IpAddr;

use margay_api::dataplane::v1 as api;
use margay_dataplane::{
    control::{End, Facts, Purpose, State},
    net::{Addr, Mac, Nanos, WorkerId},
    policy::Query,
};

/// What stands for the interfaces that no host endpoint names. No interface can be called so.
const OTHERS: &str = "all others";
/// What every uplink is said to take; nothing here depends on it.
const MTU: u16 = 1500;

/// The uplinks of a node; none: nothing protects it.
#[derive(Default)]
pub struct Uplinks {
    all: Vec<Uplink>,
    /// The way to the network, by its place.
    way_out: usize,
}

struct Uplink {
    name: String,
    addresses: Vec<Addr>,
}

impl Uplinks {
    /// Those of a node that has addresses of its `own`.
    pub fn of<'a>(hosts: impl Iterator<Item = &'a api::HostEndpoint> + Clone, own: &[IpAddr]) -> Self {
        let expected = |host: &api::HostEndpoint| {
            host.expected_addresses.iter().filter_map(|bytes| Addr::from_slice(bytes)).collect::<Vec<_>>()
        };
        let mut all: Vec<Uplink> = Vec::new();
        let mut add = |name: &str, addresses: Vec<Addr>| {
            let its = |uplink: &Uplink| {
                uplink.name == name || uplink.addresses.iter().any(|own| addresses.contains(own))
            };
            match all.iter().position(its) {
                Some(at) => all[at].addresses.extend(addresses),
                None => all.push(Uplink { name: name.to_owned(), addresses }),
            }
        };
        let named = |host: &&api::HostEndpoint| !matches!(host.interface_name.as_str(), "" | "*");
        hosts.clone().filter(named).for_each(|host| add(&host.interface_name, expected(host)));
        let unnamed = hosts.clone().filter(|host| host.interface_name.is_empty());
        unnamed.for_each(|host| add(&format!("that of {}", host.id), expected(host)));
        if hosts.clone().any(|host| host.interface_name == "*") {
            all.push(Uplink { name: OTHERS.to_owned(), addresses: Vec::new() });
        }
        let own: Vec<Addr> = own.iter().map(|addr| Addr::from(*addr)).collect();
        let expects = |uplink: &Uplink| uplink.addresses.iter().any(|addr| own.contains(addr));
        let unsaid = |uplink: &Uplink| uplink.addresses.is_empty();
        let way_out = all.iter().position(expects).or_else(|| all.iter().position(unsaid)).unwrap_or(0);
        let elsewhere = |addr: &Addr| !all.iter().any(|uplink| uplink.addresses.contains(addr));
        let rest: Vec<Addr> = own.iter().filter(|addr| elsewhere(addr)).copied().collect();
        if let Some(uplink) = all.get_mut(way_out) {
            uplink.addresses.extend(rest);
        }
        Self { all, way_out }
    }

    /// One that has all addresses of a node, whatever protects it.
    pub fn one(own: &[IpAddr]) -> Self {
        let addresses = own.iter().map(|addr| Addr::from(*addr)).collect();
        Self { all: vec![Uplink { name: OTHERS.to_owned(), addresses }], way_out: 0 }
    }

    /// Gives them to a dataplane that has none.
    pub fn attach(&self, state: &mut State) {
        for uplink in &self.all {
            let Some(id) = state.want(&uplink.name, Purpose::Uplink { vlan: None }) else { continue };
            let whole = |addr: &Addr| (*addr, if addr.is_v4() { 32 } else { 128 });
            let facts = Facts {
                mac: Mac::default(),
                mtu: MTU,
                addresses: uplink.addresses.iter().map(whole).collect(),
                kernel_neighbours: true,
                queues: vec![WorkerId(0)],
                super_frames: false,
            };
            state.attached(id, facts, Nanos::default());
        }
    }

    /// No host endpoint protects anything here.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The addresses of the node, by uplink.
    pub fn addresses(&self) -> impl Iterator<Item = &[Addr]> {
        self.all.iter().map(|uplink| uplink.addresses.as_slice())
    }

    /// The ends of a packet as the node sees them, of which it has one or both itself.
    pub fn ends(&self, from: Option<End>, to: Option<End>, query: &Query) -> [End; 2] {
        let host = match (&from, &to) {
            (Some(End::Host), None) => Some(query.key.src),
            (None, Some(End::Host)) => Some(query.key.dst),
            _ => None,
        };
        let has = |addr: Addr| self.all.iter().find(|uplink| uplink.addresses.contains(&addr));
        let uplink = host.and_then(has).or_else(|| self.all.get(self.way_out));
        let network = || uplink.map_or(End::Nowhere, |uplink| End::Network(uplink.name.as_str().into()));
        [from.unwrap_or_else(network), to.unwrap_or_else(network)]
    }
}

#[cfg(test)]
mod tests {
    use margay_dataplane::net::{FlowKey, Icmp};

    use super::*;

    /// Where a packet from far away to the node's `address` comes in.
    fn way_in(hosts: &[(&str, &[&str])], address: &str) -> String {
        let hosts = hosts.iter().zip('a'..).map(|((interface, expected), id)| {
            let addresses = expected.iter().map(|text| text.parse::<Addr>().unwrap());
            api::HostEndpoint {
                id: id.to_string(),
                interface_name: (*interface).to_owned(),
                expected_addresses: addresses.map(|addr| addr.v4_octets().to_vec()).collect(),
                ..api::HostEndpoint::default()
            }
        });
        let hosts: Vec<_> = hosts.collect();
        let uplinks = Uplinks::of(hosts.iter(), &["192.0.2.10".parse().unwrap()]);
        let key = FlowKey { dst: address.parse().unwrap(), ..FlowKey::default() };
        let query = Query { key, icmp: Icmp::default() };
        match uplinks.ends(None, Some(End::Host), &query) {
            [End::Network(name), End::Host] => name.to_string(),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn the_uplink_with_the_address_is_the_way_in() {
        let two: &[(&str, &[&str])] = &[("eth0", &["198.51.100.1"]), ("eth1", &["192.0.2.10"])];
        assert_eq!(way_in(two, "198.51.100.1"), "eth0");
        assert_eq!(way_in(two, "192.0.2.10"), "eth1");
        assert_eq!(way_in(two, "192.0.2.99"), "eth1", "by the node's own address goes what no uplink has");
        assert_eq!(way_in(&[("eth0", &["198.51.100.1"]), ("eth1", &[])], "192.0.2.10"), "eth1");
        assert_eq!(way_in(&[("*", &[]), ("eth0", &["198.51.100.1"])], "192.0.2.10"), OTHERS);
        assert_eq!(way_in(&[("eth0", &["198.51.100.1"])], "192.0.2.10"), "eth0", "there is no other");
    }

    #[test]
    fn an_endpoint_without_interface_is_where_its_address_is() {
        let same: &[(&str, &[&str])] = &[("", &["192.0.2.10"]), ("eth0", &["192.0.2.10"])];
        assert_eq!(way_in(same, "192.0.2.10"), "eth0");
        assert_eq!(way_in(&[("", &["192.0.2.10"])], "192.0.2.10"), "that of a");
        assert_eq!(way_in(&[], "192.0.2.10"), "[Nowhere, Host]");
    }
}
