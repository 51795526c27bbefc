//! Whose source is translated, to what, and by which ports.
//!
//! A workload's packet to somewhere outside all pools leaves with an address of this node
//! (`natOutgoing`). The port is kept where it lies in the range and is free; else the search goes
//! through the range from a place that nobody outside can foretell (RFC 6056). A port is taken only
//! towards one address, port and protocol: the same one serves for any number of others.

use crate::fib::lpm::Lpm;
use crate::net::{Addr, FlowKey, PortRange, Prefix};

/// What workloads' packets leave with.
#[derive(Debug, Default)]
pub struct Masquerade {
    /// 1: leaves with an address of this node; 0: does not.
    pools: Lpm,
    /// There is a pool of the first kind.
    any: bool,
    /// To these it leaves as it is; in order.
    excluded: Box<[Addr]>,
    settings: MasqueradeSettings,
}

/// How sources are translated, whichever they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MasqueradeSettings {
    /// The IPv4 address to leave with; `None`: one of the interface it leaves by.
    pub address: Option<Addr>,
    /// The ports and echo identifiers to leave with.
    pub ports: PortRange,
    /// Which port a flow gets.
    pub mapping: Mapping,
    /// What goes to a node of the cluster is not translated.
    pub excludes_hosts: bool,
}

/// Which port a flow gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mapping {
    /// Any that is free towards its destination.
    #[default]
    AddressAndPort,
    /// The same towards every destination, as long as no other flow has it towards one of them
    /// (RFC 4787, section 4.1).
    EndpointIndependent,
}

/// A pool of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Its addresses.
    pub cidr: Prefix,
    /// What leaves all pools from it is translated.
    pub masquerade: bool,
}

impl Default for MasqueradeSettings {
    /// Ports that Linux does not give its own sockets, nor Kubernetes its services.
    fn default() -> Self {
        let ports = PortRange { first: 61_000, last: 65_535 };
        Self { address: None, ports, mapping: Mapping::default(), excludes_hosts: false }
    }
}

impl Masquerade {
    /// With these pools, disabled ones among them, in a cluster whose nodes have the addresses `hosts`.
    pub fn new(pools: &[Pool], hosts: impl Iterator<Item = Addr>, settings: MasqueradeSettings) -> Self {
        let routes = pools.iter().map(|pool| (pool.cidr, u32::from(pool.masquerade)));
        let any = pools.iter().any(|pool| pool.masquerade);
        let mut excluded: Vec<Addr> = hosts.filter(|_| settings.excludes_hosts).collect();
        excluded.sort_unstable();
        // No value is too large.
        Self { pools: Lpm::build(routes).unwrap_or_default(), any, excluded: excluded.into(), settings }
    }

    /// A packet that leaves this node from `src` to `dst` does so with an address of the node.
    #[inline]
    pub fn applies(&self, src: Addr, dst: Addr) -> bool {
        self.any
            && self.pools.lookup(src) == Some(1)
            && self.pools.lookup(dst).is_none()
            && self.excluded.binary_search(&dst).is_err()
    }

    /// How.
    pub fn settings(&self) -> &MasqueradeSettings {
        &self.settings
    }
}

/// Ports looked at for one flow at most: a workload that has taken all ports towards one
/// destination is not to cost a worker its time.
pub const TRIES: u32 = 128;

/// The ports to try for a flow whose own is `port`, in order; `chance` says where to begin.
pub fn candidates(port: u16, range: PortRange, chance: u64) -> impl Iterator<Item = u16> {
    let count = u32::from(range.last - range.first) + 1;
    let start = ((u128::from(chance) * u128::from(count)) >> 64) as u32;
    let searched = (0..count).map(move |n| range.first + ((start + n) % count) as u16);
    Some(port).filter(|port| range.contains(*port)).into_iter().chain(searched)
}

/// The key of what answers a packet that leaves as `leaving`, but from `src` and by `port`.
/// `identified`: by an echo's identifier, or a source port; else there is only the address.
pub fn reply_to(leaving: &FlowKey, src: Addr, port: u16, identified: bool) -> FlowKey {
    let key = FlowKey { src, ..*leaving };
    match identified {
        true if key.proto.is_icmp() => FlowKey { sport: port, dport: port, ..key },
        true => FlowKey { sport: port, ..key },
        false => key,
    }
    .reversed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn pool(cidr: &str, masquerade: bool) -> Pool {
        Pool { cidr: cidr.parse().unwrap(), masquerade }
    }

    #[test]
    fn what_leaves_all_pools_from_one_that_says_so_is_translated() {
        let pools = [
            pool("10.65.0.0/16", true),
            pool("10.66.0.0/16", false),
            pool("fd65::/64", true),
            pool("fd66::/64", false),
        ];
        let of = |excludes_hosts| {
            let settings = MasqueradeSettings { excludes_hosts, ..MasqueradeSettings::default() };
            let hosts = ["10.0.0.2", "10.0.0.1", "2001:db8::9"].map(|text| text.parse().unwrap());
            Masquerade::new(&pools, hosts.into_iter(), settings)
        };
        for (src, dst, applies) in [
            ("10.65.0.1", "192.0.2.1", true),
            ("10.65.0.1", "10.65.1.1", false),
            ("10.65.0.1", "10.66.1.1", false),
            ("10.66.0.1", "192.0.2.1", false),
            ("192.0.2.1", "192.0.2.2", false),
            ("fd65::1", "2001:db8::1", true),
            ("fd65::1", "fd66::1", false),
            ("fd66::1", "2001:db8::1", false),
        ] {
            let [from, to] = [src, dst].map(|text| text.parse().unwrap());
            assert_eq!([false, true].map(|hosts| of(hosts).applies(from, to)), [applies; 2], "{src} > {dst}");
        }
        for (src, host) in [("10.65.0.1", "10.0.0.1"), ("10.65.0.1", "10.0.0.2"), ("fd65::1", "2001:db8::9")]
        {
            let [from, to] = [src, host].map(|text| text.parse().unwrap());
            assert_eq!(
                [false, true].map(|hosts| of(hosts).applies(from, to)),
                [true, false],
                "{src} > {host}"
            );
        }
    }

    #[test]
    fn every_port_of_the_range_is_tried_and_the_flows_own_first() {
        for range in [
            PortRange { first: 0, last: 65_535 },
            PortRange { first: 7, last: 7 },
            PortRange { first: 61_000, last: 61_099 },
        ] {
            let all: BTreeSet<u16> = (range.first..=range.last).collect();
            for chance in [0, 1 << 40, 1 << 63, u64::MAX] {
                let outside = candidates(6, PortRange { first: range.first.max(7), ..range }, chance);
                assert_ne!(outside.take(1).next(), Some(6));
                let found: Vec<u16> = candidates(range.last, range, chance).collect();
                assert_eq!(found[0], range.last);
                assert_eq!(found[1..].iter().copied().collect::<BTreeSet<_>>(), all);
                assert_eq!(found.len(), all.len() + 1);
            }
        }
    }
}
