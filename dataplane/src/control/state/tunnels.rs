//! Tunnels: their interfaces, what they take, and what uplinks should leave to us for them.

use super::{Facts, Purpose, Slot, State};
use crate::fib::{FarEnd, NearEnd, Overlay, TunnelKind};
use crate::io::af_xdp::Ours;
use crate::net::{Addr, Mac, Proto};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What the host takes where no interface has a name that was asked for: the least of common clouds, as in Calico.
const NOBODY_MATCHES: u16 = 1460;

impl State {
    /// All that workers need to know of tunnels' ends.
    pub fn overlay(&self) -> Overlay {
        let (settings, named) = (&self.desired.overlay, self.named_mtu());
        let near = TunnelKind::ALL.map(|kind| {
            let near = settings.near(kind)?;
            let interface = self.id(&interface_name(kind))?;
            let mtu = named.map(|named| named.saturating_sub(kind.overhead()));
            let mtu = near.mtu.into_iter().chain(mtu).min();
            Some(NearEnd {
                interface,
                address: near.address,
                mac: self.inner_mac(kind),
                port: near.port,
                mtu,
            })
        });
        let ends = self.desired.far_ends.values().flat_map(|node| node.ends).flatten();
        let nodes: BTreeMap<Addr, FarEnd> =
            ends.map(|(addr, mac)| (addr, FarEnd { mac, path_mtu: self.path_mtus.get(addr) })).collect();
        Overlay {
            vxlan_port: settings.vxlan_port,
            network: settings.network,
            near,
            nodes: Arc::new(nodes),
            peers: Arc::new(self.peer_ends()),
            external: settings.external.clone(),
            of_workloads: settings.of_workloads,
        }
    }

    /// The largest packet that workloads can send to every other node, whichever way it takes.
    pub fn workload_mtu(&self) -> Option<u16> {
        let host = self.host_mtu()?;
        let tunnels = self.slots.values().filter(|slot| matches!(slot.purpose, Purpose::Tunnel(_)));
        tunnels.filter_map(|slot| slot.facts.as_ref()).map(|facts| facts.mtu).chain([host]).min()
    }

    /// What the kernel's interfaces take that are up, by name.
    pub fn set_links(&mut self, links: BTreeMap<Arc<str>, u32>) {
        let before = self.host_mtu();
        self.links = links;
        if self.host_mtu() != before {
            self.follow_tunnels();
            (self.moved, self.dirty) = (true, true);
        }
    }

    /// Interfaces were named whose MTU counts, and none of those is there and up.
    pub fn lacks_named_links(&self) -> bool {
        self.desired.overlay.mtu_interfaces.is_some() && self.least_named().is_none()
    }

    /// What the host's packets may be long, its tunnels' headers included.
    fn host_mtu(&self) -> Option<u16> {
        self.named_mtu().or_else(|| self.uplink_mtu())
    }

    /// The same of the interfaces that were named, if some were.
    fn named_mtu(&self) -> Option<u16> {
        self.desired.overlay.mtu_interfaces.as_ref()?;
        Some(self.least_named().unwrap_or(NOBODY_MATCHES))
    }

    fn least_named(&self) -> Option<u16> {
        let pattern = self.desired.overlay.mtu_interfaces.as_ref()?;
        let named = self.links.iter().filter(|(name, _)| pattern.matches(name)).map(|(_, mtu)| *mtu);
        named.min().map(|mtu| u16::try_from(mtu).unwrap_or(u16::MAX))
    }

    /// The largest packet that all uplinks take.
    fn uplink_mtu(&self) -> Option<u16> {
        let uplinks = self.slots.values().filter(|slot| matches!(slot.purpose, Purpose::Uplink { .. }));
        uplinks.filter_map(|slot| slot.facts.as_ref()).map(|facts| facts.mtu).min()
    }

    /// Has an interface stand for each kind of tunnels that is on, which takes what the host does.
    pub(super) fn follow_tunnels(&mut self) {
        let least = self.host_mtu();
        for kind in TunnelKind::ALL {
            let Some(near) = self.desired.overlay.near(kind).copied() else {
                self.end_tunnels(kind);
                continue;
            };
            let Some(id) = self.slot(&interface_name(kind), Purpose::Tunnel(kind)) else { continue };
            // Without an uplink there is no way to send by it either.
            let fits = least.unwrap_or(1500).saturating_sub(kind.overhead());
            let facts = Facts {
                mac: self.inner_mac(kind),
                mtu: near.mtu.map_or(fits, |configured| configured.min(fits)),
                addresses: vec![],
                kernel_neighbours: false,
                queues: vec![],
                super_frames: false,
            };
            if let Some(slot) = self.slots.get_mut(&id) {
                let next = Slot { facts: Some(facts), up: true, ..slot.clone() };
                if (&next.facts, next.up) != (&slot.facts, slot.up) {
                    self.touched.slot(id, &next.purpose);
                }
                *slot = next;
            }
        }
    }

    /// The uplink that the host has its packets by which a tunnel of this kind carries: the one with the tunnel's
    /// address, else any.
    pub(super) fn host_side(&self, kind: TunnelKind) -> Option<&Slot> {
        let near = self.desired.overlay.near(kind)?;
        if !(self.desired.overlay.seals_hosts && kind.is_encrypted()) {
            return None;
        }
        let uplinks =
            || self.slots.values().filter(|slot| matches!(slot.purpose, Purpose::Uplink { vlan: None }));
        let has = |slot: &&Slot| {
            slot.facts
                .as_ref()
                .is_some_and(|facts| facts.addresses.iter().any(|(addr, _)| *addr == near.address))
        };
        uplinks().find(has).or_else(|| uplinks().next())
    }

    /// What packets inside are addressed to, on this side: those for the host go to its stack as they are.
    fn inner_mac(&self, kind: TunnelKind) -> Mac {
        let host = self.host_side(kind).and_then(|slot| slot.facts.as_ref()).map(|facts| facts.mac);
        host.or_else(|| self.desired.overlay.near(kind).map(|near| near.mac)).unwrap_or_default()
    }

    fn end_tunnels(&mut self, kind: TunnelKind) {
        let name = interface_name(kind);
        let Some(slot) = self.id(&name).and_then(|id| self.slots.get_mut(&id)) else { return };
        if slot.purpose == Purpose::Tunnel(kind) {
            // No worker serves it: its number may be given again at once.
            slot.facts = None;
            self.let_go(&name);
        }
    }

    /// Adds what uplinks should leave to us for tunnels.
    pub(super) fn tunnelled(&self, ours: &mut Ours) {
        for kind in TunnelKind::ALL {
            let Some(near) = self.desired.overlay.near(kind) else { continue };
            ours.tunnels.insert(match kind {
                TunnelKind::Ipip => (near.address, Proto::IPIP, 0),
                TunnelKind::Vxlan4 | TunnelKind::Vxlan6 => {
                    (near.address, Proto::UDP, self.desired.overlay.vxlan_port)
                }
                TunnelKind::Wireguard4 | TunnelKind::Wireguard6 => (near.address, Proto::UDP, near.port),
            });
        }
    }
}

/// What the interface of a kind is called here; the kernel has none.
pub(super) fn interface_name(kind: TunnelKind) -> String {
    format!("margay-{}", kind.name())
}
