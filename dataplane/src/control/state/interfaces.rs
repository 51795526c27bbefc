//! Interfaces that are wanted, and what is known of those that are there.

use super::{Facts, Purpose, Slot, State};
use crate::control::desired::{Endpoint, EndpointId};
use crate::io::af_xdp::Ours;
use crate::net::{Addr, IfId, Nanos};
use std::collections::BTreeSet;
use std::sync::Arc;

/// ANNOUNCE_NUM (RFC 5227 §1.1).
const ANNOUNCEMENTS: u8 = 2;

impl State {
    /// Wants an uplink, or a VLAN on one, or the host port, for as long as the process runs.
    pub fn want(&mut self, name: &str, purpose: Purpose) -> Option<IfId> {
        self.slot(name, purpose)
    }

    /// No worker serves the interface any more that had this number.
    pub fn released(&mut self, id: IfId, now: Nanos) {
        if self.retiring.remove(&id) {
            self.moved = true;
            self.first_free = self.first_free.min(id.0);
            self.place_waiting(now);
        }
    }

    /// Endpoints or interfaces have changed since this was asked last.
    pub fn take_moved(&mut self) -> bool {
        std::mem::take(&mut self.moved)
    }

    /// Interfaces whose workers are to let go of them.
    pub fn retiring(&self) -> &BTreeSet<IfId> {
        &self.retiring
    }

    /// Interfaces that carry packets and are wanted: name, number, purpose, and whether they are
    /// there. VLANs and tunnels are not among them: what carries them is.
    pub fn wanted(&self) -> impl Iterator<Item = (IfId, &Arc<str>, &Purpose, bool)> {
        let carries =
            |slot: &&Slot| !matches!(slot.purpose, Purpose::Uplink { vlan: Some(_) } | Purpose::Tunnel(_));
        self.slots
            .iter()
            .filter(move |(_, slot)| carries(slot))
            .map(|(id, slot)| (*id, &slot.name, &slot.purpose, slot.facts.is_some()))
    }

    /// An interface is there and served, or what is known of it has changed.
    pub fn attached(&mut self, id: IfId, facts: Facts, now: Nanos) {
        let Some(slot) = self.slots.get_mut(&id) else { return };
        if slot.facts.as_ref() == Some(&facts) && slot.up {
            return;
        }
        if slot.facts.is_none() && matches!(slot.purpose, Purpose::Workload(_)) {
            self.unannounced.insert(id, ANNOUNCEMENTS);
        }
        slot.facts = Some(facts);
        slot.up = true;
        self.touched.slot(id, &slot.purpose);
        match &slot.purpose {
            Purpose::Workload(of) => {
                if let Some(endpoint) = self.desired.endpoints.get(of).cloned() {
                    self.place(&endpoint, now);
                }
            }
            // Its addresses say which host endpoint protects it.
            _ => {
                self.follow_protection();
                self.follow_tunnels();
            }
        }
        (self.moved, self.dirty) = (true, true);
    }

    /// An interface is no longer served.
    pub fn detached(&mut self, id: IfId) {
        if let Some(slot) = self.slots.get_mut(&id) {
            slot.facts = None;
            slot.up = false;
            self.touched.slot(id, &slot.purpose);
            self.neighbours.forget_interface(id);
            self.moved = true;
            self.dirty = true;
        }
    }

    /// The number of the interface of this name.
    pub fn id(&self, name: &str) -> Option<IfId> {
        self.names.get(name).copied()
    }

    /// The number of the uplink of this name, a VLAN's too.
    pub fn uplink(&self, name: &str) -> Option<IfId> {
        let id = self.id(name)?;
        matches!(self.slots[&id].purpose, Purpose::Uplink { .. }).then_some(id)
    }

    /// The VLANs that are wanted on a carrier.
    pub fn vlans_on(&self, carrier: IfId) -> Vec<(IfId, Arc<str>)> {
        let Some(name) = self.slots.get(&carrier).map(|slot| slot.name.clone()) else { return vec![] };
        let on =
            |slot: &Slot| matches!(&slot.purpose, Purpose::Uplink { vlan: Some((of, _)) } if *of == name);
        self.slots.iter().filter(|(_, slot)| on(slot)).map(|(id, slot)| (*id, slot.name.clone())).collect()
    }

    /// What an uplink should leave to us: the workloads' addresses, services, and where it is guarded
    /// the host's addresses.
    pub fn ours(&self) -> Ours {
        let prefixes = self.desired.endpoints.values().flat_map(|e| e.nets.iter().copied()).collect();
        let mut ours = Ours { prefixes, host: self.host_addresses(), ..Ours::default() };
        self.served(&mut ours);
        self.tunnelled(&mut ours);
        ours
    }

    /// The endpoint's interface is there and served.
    pub fn endpoint_up(&self, id: &EndpointId) -> bool {
        let endpoint = self.desired.endpoints.get(id);
        let slot = endpoint.and_then(|endpoint| self.slots.get(&self.id(&endpoint.interface)?));
        slot.is_some_and(|slot| slot.up && matches!(&slot.purpose, Purpose::Workload(of) if of == id))
    }

    /// Brings interfaces and static neighbours in line with what is desired: endpoints have `left` the interfaces of
    /// these names, and those that `came` are new or others than they were.
    pub(super) fn follow_desired(&mut self, left: &[Arc<str>], came: &[Arc<Endpoint>], now: Nanos) {
        self.moved = true;
        left.iter().for_each(|name| self.let_go(name));
        self.follow_protection();
        self.follow_tunnels();
        self.follow_peers(now);
        came.iter().for_each(|endpoint| self.place(endpoint, now));
        self.place_waiting(now);
        for endpoint in came {
            if let Some(id) = self.id(&endpoint.interface) {
                self.touched.one(id);
            }
        }
    }

    /// A tap for each uplink whose host traffic comes by way of us, and for no other.
    fn follow_protection(&mut self) {
        let led_through = self.led_through();
        let stray = |slot: &&Slot| match &slot.purpose {
            Purpose::Stack { uplink } => !led_through.contains(uplink),
            _ => false,
        };
        let stray: Vec<Arc<str>> = self.slots.values().filter(stray).map(|slot| slot.name.clone()).collect();
        stray.iter().for_each(|name| self.let_go(name));
        for uplink in led_through {
            if let Some(number) = self.id(&uplink) {
                self.slot(&format!("margay-up{}", number.0), Purpose::Stack { uplink });
            }
        }
    }

    /// The interface is not wanted any more.
    pub(super) fn let_go(&mut self, name: &str) {
        let Some(id) = self.names.remove(name) else { return };
        let slot = self.slots.remove(&id);
        if let Some(slot) = &slot {
            self.touched.slot(id, &slot.purpose);
            self.named_routes.renumbered(&slot.purpose);
        }
        let served = slot.is_some_and(|slot| slot.facts.is_some());
        self.neighbours.forget_interface(id);
        if served {
            self.retiring.insert(id);
        } else {
            self.first_free = self.first_free.min(id.0);
        }
    }

    /// Wants the endpoint's interface, and knows its neighbours from the start.
    fn place(&mut self, endpoint: &Endpoint, now: Nanos) {
        let Some(interface) = self.slot(&endpoint.interface, Purpose::Workload(endpoint.id.clone())) else {
            self.waiting.insert(endpoint.id.clone());
            return;
        };
        let given: Vec<Addr> = match endpoint.mac {
            Some(_) => endpoint.nets.iter().map(|net| net.addr()).collect(),
            None => vec![],
        };
        self.neighbours.keep_static(interface, &given);
        for addr in given {
            if let Some(mac) = endpoint.mac {
                self.neighbours.set_static(interface, addr, mac, now);
            }
        }
    }

    /// Tries again what had no number.
    fn place_waiting(&mut self, now: Nanos) {
        for id in std::mem::take(&mut self.waiting) {
            if let Some(endpoint) = self.desired.endpoints.get(&id).cloned() {
                self.place(&endpoint, now);
            }
        }
    }

    /// The interface's slot: the one it has, or a free one.
    pub(super) fn slot(&mut self, name: &str, purpose: Purpose) -> Option<IfId> {
        if let Some(id) = self.id(name) {
            return (self.slots[&id].purpose == purpose).then_some(id);
        }
        let free = |id: &IfId| !self.slots.contains_key(id) && !self.retiring.contains(id);
        let id = (self.first_free..self.max_interfaces).map(IfId).find(free)?;
        self.first_free = id.0 + 1;
        self.touched.slot(id, &purpose);
        self.named_routes.renumbered(&purpose);
        let name: Arc<str> = name.into();
        self.names.insert(name.clone(), id);
        self.slots.insert(id, Slot { name, purpose, facts: None, up: false });
        Some(id)
    }
}
