//! Neighbours: who answered, who is to be asked.

use super::{Action, Purpose, State};
use crate::fib::{Interfaces, Probe};
use crate::net::{Addr, IfId, Mac, Nanos};
use crate::nodes::Event;
use crate::wire::{arp, ethernet, nd};

impl State {
    /// News from a worker.
    pub fn event(&mut self, event: &Event, now: Nanos) -> Option<Action> {
        match *event {
            Event::NeighbourSeen { interface, addr, mac, hearing } => {
                // Where the kernel learns, what it makes of it is what counts.
                if !self.slots.get(&interface)?.facts.as_ref()?.kernel_neighbours {
                    self.neighbours.heard(interface, addr, mac, hearing, now);
                    self.dirty |= self.neighbours.has_news();
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
            Event::SessionWanted(_) | Event::PeerMoved { .. } => {
                self.peer_event(event, now);
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
        match mac {
            Some(mac) => self.neighbours.set_kernel(interface, addr, mac, now),
            None => self.neighbours.forget(interface, addr),
        }
        self.dirty |= self.neighbours.has_news();
    }

    /// Lets time pass. To be called about once a second.
    pub fn tick(&mut self, now: Nanos) -> Vec<Action> {
        let probes = self.neighbours.tick(now);
        self.dirty |= self.neighbours.has_news() | self.path_mtus.tick(now);
        self.publisher.reclaim();
        let mut actions = self.announcements();
        actions.extend(probes.into_iter().filter_map(|probe| self.question(probe)));
        actions
    }

    /// Tells workloads that have just come, or come back, that their gateway is here: one that moved from
    /// another node knows that node's (RFC 5227 §3, RFC 4861 §7.2.6).
    fn announcements(&mut self) -> Vec<Action> {
        let mut actions = vec![];
        for (interface, times) in std::mem::take(&mut self.unannounced) {
            let facts = self.slots.get(&interface).and_then(|slot| slot.facts.as_ref());
            let Some(mac) = facts.map(|facts| facts.mac) else { continue };
            let own = arp::Arp {
                operation: arp::Operation::Request,
                sender_mac: mac,
                sender: Interfaces::GATEWAY_V4,
                target_mac: Mac::default(),
                target: Interfaces::GATEWAY_V4,
            };
            let header = ethernet::Prebuilt::new(Mac::BROADCAST, mac, None, ethernet::ARP);
            actions.push(Action::Announce { interface, frame: [header.as_slice(), &own.emit()].concat() });
            let (packet, all) = nd::announcement(Interfaces::GATEWAY_V6, mac);
            let header = ethernet::Prebuilt::new(all, mac, None, ethernet::IPV6);
            actions.push(Action::Announce { interface, frame: [header.as_slice(), &packet].concat() });
            if times > 1 {
                self.unannounced.insert(interface, times - 1);
            }
        }
        actions
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
