//! What would follow from other policy, compiled beside what is in force.

use super::{State, consolidation, publication, routes};
use crate::control::desired::{Desired, ObjectError};
use crate::net::Nanos;
use crate::snapshot::{Publisher, Snapshot};
use margay_api::dataplane::v1 as pb;
use std::collections::BTreeMap;

impl State {
    /// All this state judges by, for itself: nothing that is done to it reaches a worker. Compiled
    /// policy is shared.
    pub fn aside(&self) -> Self {
        let current = self.publisher.current();
        let snapshot = Snapshot {
            generation: current.generation,
            ways: current.ways,
            committed: current.committed,
            fib: current.fib.clone(),
            interfaces: current.interfaces.clone(),
            overlay: current.overlay.clone(),
            // Nobody seals or opens here.
            keyring: Default::default(),
            services: current.services.clone(),
            policy: current.policy.clone(),
            shadow: None,
            masquerade: self.masquerade.clone(),
            // Nobody counts here.
            quotas: Default::default(),
            established: current.established,
            tracking: current.tracking,
            endpoint_to_host: current.endpoint_to_host,
            protection: current.protection.clone(),
        };
        Self {
            desired: self.desired.clone(),
            sets: self.sets.clone(),
            fresh: None,
            slots: self.slots.clone(),
            names: self.names.clone(),
            endpoints: self.endpoints.clone(),
            owners: self.owners.clone(),
            waiting: self.waiting.clone(),
            first_free: self.first_free,
            host_lists: self.host_lists.clone(),
            host_addresses: self.host_addresses.clone(),
            neighbours: self.neighbours.clone(),
            links: self.links.clone(),
            path_mtus: self.path_mtus.clone(),
            unannounced: BTreeMap::new(),
            rib: None,
            named_routes: routes::Named::default(),
            touched: publication::Touched::All,
            wireguard: None,
            keyring: Default::default(),
            unsent: vec![],
            publisher: Publisher::new(snapshot),
            policy: self.policy.clone(),
            shadow: None,
            masquerade: self.masquerade.clone(),
            services: self.services.aside(),
            committed: self.committed,
            max_interfaces: self.max_interfaces,
            retiring: self.retiring.clone(),
            forgotten: vec![],
            retired_trees: vec![],
            pending: consolidation::Pending::default(),
            deny: self.deny.clone(),
            moved: false,
            dirty: false,
            judges_anew: false,
        }
    }

    /// Replaces all that judges packets: IP sets, policies, profiles, endpoints and the node's settings.
    /// The rest, such as routes, stays.
    pub fn judge_by(&mut self, changes: Vec<pb::Change>) -> Result<(), Vec<ObjectError>> {
        let Desired { ip_sets, policies, staged, profiles, endpoints, host_endpoints, .. } =
            Desired::default();
        let rest = self.desired.clone();
        self.fresh = Some(Desired { ip_sets, policies, staged, profiles, endpoints, host_endpoints, ..rest });
        let commit = pb::Commit { generation: self.committed + 1, in_sync: true };
        self.commit(&changes, &commit, Nanos(0))
    }
}
