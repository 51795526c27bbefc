//! Neighbours: who answered, who is to be asked.

use super::{Action, Purpose, State};
use crate::fib::{Interfaces, Probe, Source};
use crate::net::{Addr, IfId, Mac, Nanos};
use crate::nodes::Event;
use crate::wire::{arp, ethernet, nd};

impl State {
    /// News from a worker.
    pub fn event(&mut self, event: &Event, now: Nanos) -> Option<Action> {
        match *event {
            Event::NeighbourSeen { interface, addr, mac } => {
                if self.neighbours.learn(interface, addr, mac, Source::Seen, now) {
                    self.dirty = true;
                }
                None
            }
            Event::NeighbourWanted { interface, addr } => {
                let slot = self.slots.get(&interface)?;
                if slot.facts.as_ref()?.kernel_neighbours {
                    return Some(Action::Resolve { interface: slot.name.clone(), addr });
                }
                let probe = self.neighbours.wanted(interface, addr, now)?;
                self.question(probe)
            }
            Event::PathMtu { to, mtu } => {
                if self.path_mtus.learn(to, mtu, now) {
                    self.dirty = true;
                }
                None
            }
            Event::Dropped { .. }
            | Event::TableFull { .. }
            | Event::NatExhausted { .. }
            | Event::WouldDiffer { .. } => None,
        }
    }

    /// News from the kernel's neighbour table; `None`: it has no answer.
    pub fn kernel_neighbour(&mut self, interface: IfId, addr: Addr, mac: Option<Mac>, now: Nanos) {
        let news = match mac {
            Some(mac) => self.neighbours.learn(interface, addr, mac, Source::Kernel, now),
            None => self.neighbours.forget(interface, addr),
        };
        if news {
            self.dirty = true;
        }
    }

    /// Lets time pass. To be called about once a second.
    pub fn tick(&mut self, now: Nanos) -> Vec<Action> {
        let (probes, gone) = self.neighbours.tick(now);
        if gone | self.path_mtus.tick(now) {
            self.dirty = true;
        }
        self.publisher.reclaim();
        probes.into_iter().filter_map(|probe| self.question(probe)).collect()
    }

    /// The frame that asks a neighbour for its address.
    fn question(&self, probe: Probe) -> Option<Action> {
        let slot = self.slots.get(&probe.interface)?;
        let facts = slot.facts.as_ref()?;
        let vlan = match &slot.purpose {
            Purpose::Uplink { vlan } => vlan.as_ref().map(|(_, tag)| *tag),
            _ => None,
        };
        let mac = if slot.purpose == Purpose::Host { Interfaces::HOST_PORT_MAC } else { facts.mac };
        let own = facts.addresses.iter().map(|(addr, _)| *addr).find(|own| own.is_v4() == probe.addr.is_v4());
        let frame = if probe.addr.is_v4() {
            let ask = arp::Arp {
                operation: arp::Operation::Request,
                sender_mac: mac,
                sender: own.unwrap_or(Interfaces::GATEWAY_V4),
                target_mac: Mac::default(),
                target: probe.addr,
            };
            let to = probe.mac.unwrap_or(Mac::BROADCAST);
            let header = ethernet::Prebuilt::new(to, mac, vlan, ethernet::ARP);
            [header.as_slice(), &ask.emit()].concat()
        } else {
            let (packet, group) = nd::solicitation(probe.addr, own.unwrap_or(Interfaces::GATEWAY_V6), mac);
            let header = ethernet::Prebuilt::new(probe.mac.unwrap_or(group), mac, vlan, ethernet::IPV6);
            [header.as_slice(), &packet].concat()
        };
        Some(Action::Send { interface: probe.interface, frame })
    }
}
