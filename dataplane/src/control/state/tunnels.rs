//! Tunnels: their interfaces, what they take, and what uplinks should leave to us for them.

use super::{Facts, Purpose, Slot, State};
use crate::fib::{FarEnd, NearEnd, Overlay, TunnelKind};
use crate::io::af_xdp::Ours;
use crate::net::{Addr, Proto};
use std::collections::BTreeMap;
use std::sync::Arc;

impl State {
    /// All that workers need to know of tunnels' ends.
    pub fn overlay(&self) -> Overlay {
        let settings = &self.desired.overlay;
        let near = TunnelKind::ALL.map(|kind| {
            let near = settings.near(kind)?;
            let interface = self.id(&interface_name(kind))?;
            Some(NearEnd { interface, address: near.address, mac: near.mac, port: near.port, mtu: near.mtu })
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
        let uplinks = self.uplink_mtu()?;
        let tunnels = self.slots.values().filter(|slot| matches!(slot.purpose, Purpose::Tunnel(_)));
        tunnels.filter_map(|slot| slot.facts.as_ref()).map(|facts| facts.mtu).chain([uplinks]).min()
    }

    /// The largest packet that all uplinks take.
    fn uplink_mtu(&self) -> Option<u16> {
        let uplinks = self.slots.values().filter(|slot| matches!(slot.purpose, Purpose::Uplink { .. }));
        uplinks.filter_map(|slot| slot.facts.as_ref()).map(|facts| facts.mtu).min()
    }

    /// Has an interface stand for each kind of tunnels that is on, which takes what every uplink does.
    pub(super) fn follow_tunnels(&mut self) {
        let least = self.uplink_mtu();
        for kind in TunnelKind::ALL {
            let Some(near) = self.desired.overlay.near(kind).copied() else {
                self.end_tunnels(kind);
                continue;
            };
            let Some(id) = self.slot(&interface_name(kind), Purpose::Tunnel(kind)) else { continue };
            // Without an uplink there is no way to send by it either.
            let fits = least.unwrap_or(1500).saturating_sub(kind.overhead());
            let facts = Facts {
                mac: near.mac,
                mtu: near.mtu.map_or(fits, |configured| configured.min(fits)),
                addresses: vec![],
                kernel_neighbours: false,
                queues: vec![],
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
