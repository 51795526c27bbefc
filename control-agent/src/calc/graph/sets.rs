//! The IP sets that rules here ask for, member by member.

use super::labels::{LabelIndex, Moved};
use crate::{
    calc::{
        Resources,
        ip_sets::{Holds, IpSet, Record, Wanted, of_backends, of_nodes},
        services::Services,
        tree::Tree,
    },
    model::{Cidr, Protocol, Resource},
};
use slab::Slab;
use std::{
    borrow::Cow,
    collections::{BTreeSet, HashMap},
};

/// Sets that are asked for, and who may be in them.
#[derive(Default)]
pub(super) struct Sets {
    /// Everybody, and the selectors of sets.
    pub everybody: LabelIndex,
    sets: Slab<Set>,
    numbers: HashMap<String, usize>,
    /// Sets by their selectors.
    by_selector: HashMap<usize, Vec<usize>>,
    /// Sets that changed since they were last told, and ids of those that are gone.
    changed: BTreeSet<usize>,
    gone: BTreeSet<String>,
}

struct Set {
    id: String,
    holds: Holds,
    selector: Option<usize>,
    /// Rules that ask for it.
    uses: usize,
    members: Tree<Record, ()>,
    /// Of members that several endpoints make, how many more than one do.
    more: HashMap<Record, usize>,
}

impl Sets {
    /// Asks for sets. Those that nobody asked for before are made.
    pub fn acquire(&mut self, wanted: &Wanted, resources: &Resources) {
        for (id, holds) in wanted {
            match self.numbers.get(id) {
                Some(number) => self.sets[*number].uses += 1,
                None => self.add(id, holds, resources),
            }
        }
    }

    /// Takes back one [`acquire`](Self::acquire).
    pub fn release(&mut self, wanted: &Wanted) {
        for id in wanted.keys() {
            let number = self.numbers[id];
            self.sets[number].uses -= 1;
            if self.sets[number].uses == 0 {
                self.drop_set(number);
            }
        }
    }

    /// Follows a member.
    pub fn follow(&mut self, moved: &Moved) {
        let (was, is) = (moved.was.as_ref(), moved.is.as_ref());
        let same =
            was.zip(is).is_some_and(|((was, _), (is, _))| nets(was) == nets(is) && ports(was).eq(ports(is)));
        let is_in = |side: Option<&(_, Vec<usize>)>, selector: &usize| {
            side.is_some_and(|(_, matched)| matched.binary_search(selector).is_ok())
        };
        // What comes comes first: what stays is never gone.
        for (side, other, comes) in [(is, was, true), (was, is, false)] {
            let Some((object, matched)) = side else { continue };
            for selector in matched.iter().filter(|selector| !(same && is_in(other, selector))) {
                for number in self.by_selector.get(selector).into_iter().flatten() {
                    let set = &mut self.sets[*number];
                    for record in records(&set.holds, object) {
                        if comes { set.add(record) } else { set.take(record) }
                    }
                    self.changed.insert(*number);
                }
            }
        }
    }

    /// Nodes have changed.
    pub fn nodes_changed(&mut self, resources: &Resources) {
        self.refresh(|holds| match holds {
            Holds::Nodes(selector) => Some(of_nodes(resources, selector)),
            _ => None,
        });
    }

    /// Backends of services have changed.
    pub fn backends_changed(&mut self, services: &Services<'_>) {
        self.refresh(|holds| match holds {
            Holds::Backends(namespace, name) => Some(of_backends(services, namespace, name)),
            Holds::BackendAddresses(namespace, name) => {
                Some(services.addresses(namespace, name).map(Record::Net).collect())
            }
            _ => None,
        });
    }

    /// Tells what has changed since this was last asked.
    pub fn tell(&mut self, sets: &mut Tree<String, IpSet>) {
        for id in std::mem::take(&mut self.gone) {
            sets.remove(&id);
        }
        for number in std::mem::take(&mut self.changed) {
            let set = &self.sets[number];
            sets.put(set.id.clone(), IpSet { kind: set.holds.kind(), members: set.members.clone() });
        }
    }

    fn add(&mut self, id: &str, holds: &Holds, resources: &Resources) {
        let selector = match holds {
            Holds::Selected(selector) | Holds::NamedPort(selector, ..) => {
                Some(self.everybody.watch(selector))
            }
            Holds::Nodes(_) | Holds::Backends(..) | Holds::BackendAddresses(..) => None,
        };
        let mut set = Set {
            id: id.to_owned(),
            holds: holds.clone(),
            selector,
            uses: 1,
            members: Tree::default(),
            more: HashMap::new(),
        };
        match holds {
            Holds::Nodes(selector) => set.become_all(of_nodes(resources, selector)),
            Holds::Backends(namespace, name) => {
                set.become_all(of_backends(&Services::new(resources), namespace, name));
            }
            Holds::BackendAddresses(namespace, name) => {
                set.become_all(
                    Services::new(resources).addresses(namespace, name).map(Record::Net).collect(),
                );
            }
            Holds::Selected(_) | Holds::NamedPort(..) => {}
        }
        for member in selector.into_iter().flat_map(|selector| self.everybody.selected(selector)) {
            records(holds, member).into_iter().for_each(|record| set.add(record));
        }
        let number = self.sets.insert(set);
        self.numbers.insert(id.to_owned(), number);
        self.gone.remove(id);
        self.changed.insert(number);
        if let Some(selector) = selector {
            self.by_selector.entry(selector).or_default().push(number);
        }
    }

    fn drop_set(&mut self, number: usize) {
        let set = self.sets.remove(number);
        self.numbers.remove(&set.id);
        self.changed.remove(&number);
        if let Some(selector) = set.selector {
            let of_selector = self.by_selector.entry(selector).or_default();
            of_selector.retain(|other| *other != number);
            if of_selector.is_empty() {
                self.by_selector.remove(&selector);
            }
            self.everybody.unwatch(selector);
        }
        self.gone.insert(set.id);
    }

    fn refresh(&mut self, records: impl Fn(&Holds) -> Option<Vec<Record>>) {
        for (number, set) in &mut self.sets {
            if let Some(records) = records(&set.holds) {
                set.become_all(records);
                self.changed.insert(number);
            }
        }
    }
}

impl Set {
    fn add(&mut self, record: Record) {
        if self.members.contains_key(&record) {
            *self.more.entry(record).or_default() += 1;
        } else {
            self.members.insert(record, ());
        }
    }

    fn take(&mut self, record: Record) {
        match self.more.get_mut(&record) {
            None => drop(self.members.remove(&record)),
            Some(1) => drop(self.more.remove(&record)),
            Some(more) => *more -= 1,
        }
    }

    /// Of sets that are not followed member by member.
    fn become_all(&mut self, records: Vec<Record>) {
        self.members.become_like(records.into_iter().map(|record| (record, ())).collect());
    }
}

/// What a member makes of a set's members.
fn records(holds: &Holds, object: &Resource) -> Vec<Record> {
    match holds {
        Holds::Selected(_) => nets(object).iter().copied().map(Record::Net).collect(),
        Holds::NamedPort(_, protocol, wanted) => {
            let ports = ports(object).filter(|(name, of, _)| *name == wanted && of == protocol);
            let nets = nets(object);
            // Only single addresses have ports.
            let hosts = || nets.iter().filter(|net| net.is_host());
            ports
                .flat_map(|(_, of, port)| hosts().map(move |host| Record::Port(host.addr(), of, port)))
                .collect()
        }
        Holds::Nodes(_) | Holds::Backends(..) | Holds::BackendAddresses(..) => Vec::new(),
    }
}

fn nets(object: &Resource) -> Cow<'_, [Cidr]> {
    match object {
        Resource::WorkloadEndpoint(endpoint) => Cow::Borrowed(&endpoint.spec.ip_networks),
        Resource::HostEndpoint(host) => host.spec.expected_ips.iter().copied().map(Cidr::host).collect(),
        Resource::NetworkSet(set) => Cow::Borrowed(&set.spec.nets),
        Resource::GlobalNetworkSet(set) => Cow::Borrowed(&set.spec.nets),
        _ => Cow::Borrowed(&[]),
    }
}

fn ports(object: &Resource) -> impl Iterator<Item = (&str, Protocol, u16)> {
    let (workloads, hosts) = match object {
        Resource::WorkloadEndpoint(endpoint) => (&endpoint.spec.ports[..], &[][..]),
        Resource::HostEndpoint(host) => (&[][..], &host.spec.ports[..]),
        _ => (&[][..], &[][..]),
    };
    let workloads = workloads.iter().map(|port| (port.name.as_str(), port.protocol, port.port));
    workloads.chain(hosts.iter().map(|port| (port.name.as_str(), port.protocol, port.port)))
}
