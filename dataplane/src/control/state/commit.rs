//! A transaction of the agent: checked against everything there is, then applied whole.

use super::publication::Touched;
use super::{Owners, Purpose, State, tunnels};
use crate::conntrack::Masquerade;
use crate::conntrack::nat::Pool;
use crate::control::convert::FieldError;
use crate::control::desired::{Desired, Endpoint, EndpointId, ObjectError};
use crate::control::difference::Difference;
use crate::fib::TunnelKind;
use crate::net::{self, Nanos, Prefix};
use crate::worker::Forgotten;
use margay_api::dataplane::v1 as pb;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

impl State {
    /// A new stream begins: it will say everything again.
    pub fn begin(&mut self) {
        self.fresh = Some(Desired::default());
    }

    /// Applies a transaction whole, or refuses it whole and leaves everything as it was.
    pub fn commit(
        &mut self,
        changes: &[pb::Change],
        commit: &pb::Commit,
        now: Nanos,
    ) -> Result<(), Vec<ObjectError>> {
        let (mut next, mut fresh, mut sets) = (self.desired.clone(), self.fresh.clone(), self.sets.clone());
        let mut errors = vec![];
        for change in changes {
            let Some(change) = &change.change else { continue };
            if let Some(fresh) = &mut fresh
                && let Err(error) = fresh.apply(change, &mut sets)
            {
                errors.push(error);
                continue;
            }
            // Before the stream is in sync a delta may be about a set that only it has.
            if let Err(error) = next.apply(change, &mut sets)
                && fresh.is_none()
            {
                errors.push(error);
            }
        }
        if commit.in_sync
            && let Some(mut whole) = fresh.take()
        {
            whole.reuse(&self.desired);
            next = whole;
        }
        let old = self.desired.clone();
        let difference = Difference::between(&old, &next);
        let owners = self.owners(&difference).unwrap_or_else(|conflicts| {
            errors.extend(conflicts);
            Owners::default()
        });
        errors.extend(self.unprotectable(&difference));
        errors.extend(Self::misnamed(&difference));
        if !errors.is_empty() {
            return Err(errors);
        }
        let stands_for = sets.settle(&difference);
        let numbered = self.numbered(&difference);
        let hosts = self.numbered_hosts(&difference, &numbered);
        let (policy, retired) =
            self.policy_table(&difference, stands_for, &numbered, &hosts).map_err(|error| vec![error])?;
        let policy = Arc::new(policy);
        let shadow =
            self.shadow_of(&difference, &policy, (&numbered, &hosts), now).map_err(|error| vec![error])?;
        let services = self.next_services(&difference)?;
        // From here on nothing is refused.
        let forwards_anew = !difference.leaves_forwarding();
        self.retired_trees.extend(retired);
        if !difference.leaves_rules() {
            self.pending.note(now);
        }
        (self.policy, self.shadow) = (policy, shadow);
        if difference.masquerade {
            let pool = |(cidr, masquerade): (&Prefix, &bool)| Pool { cidr: *cidr, masquerade: *masquerade };
            let pools: Vec<Pool> = difference.next.pools.iter().map(pool).collect();
            let hosts = difference.next.hosts.values().flatten().flatten().copied();
            self.masquerade = Arc::new(Masquerade::new(&pools, hosts, difference.next.masquerade));
        }
        self.forget_flows(&difference);
        let left = left(&difference);
        let came: Vec<Arc<Endpoint>> =
            difference.endpoints.iter().filter_map(|endpoint| endpoint.new.cloned()).collect();
        self.hold_services(services, &difference);
        self.follow_routes(&difference.routes);
        self.named_routes.moved(difference.endpoints.iter().map(|endpoint| endpoint.key));
        if difference.hosts || difference.tunnels {
            self.touched = Touched::All;
        }
        (self.desired, self.fresh, self.sets, self.endpoints) = (next, fresh, sets, numbered);
        (self.host_lists, self.owners) = (hosts, owners);
        self.committed = commit.generation;
        if forwards_anew {
            self.follow_desired(&left, &came, now);
            self.dirty = true;
        }
        self.judges_anew = true;
        self.publish();
        Ok(())
    }

    /// Flows that are to be forgotten, once.
    pub fn take_forgotten(&mut self) -> Forgotten {
        Forgotten { addresses: std::mem::take(&mut self.forgotten), stale: self.take_stale() }
    }

    /// Notes the addresses that no endpoint has any more, or another one has.
    fn forget_flows(&mut self, difference: &Difference<'_>) {
        for endpoint in &difference.endpoints {
            let nets = |endpoint: Option<&'_ Arc<Endpoint>>| endpoint.map_or(vec![], |e| e.nets.clone());
            let still = nets(endpoint.new);
            self.forgotten.extend(nets(endpoint.old).into_iter().filter(|net| !still.contains(net)));
        }
    }

    /// Who has which interface after `difference`; or the endpoints whose interface is another's, or that
    /// are too many.
    fn owners(&self, difference: &Difference<'_>) -> Result<Owners, Vec<ObjectError>> {
        let mut owners = self.owners.clone();
        let mut left: Vec<_> = left(difference).into_iter().map(|interface| (interface, None)).collect();
        left.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        owners.apply(&left);
        let on = TunnelKind::ALL.into_iter().filter(|kind| difference.next.overlay.near(*kind).is_some());
        let tunnels: Vec<Arc<str>> = on.map(|kind| tunnels::interface_name(kind).into()).collect();
        let fixed: BTreeSet<&Arc<str>> = self
            .slots
            .values()
            .filter(|slot| !matches!(slot.purpose, Purpose::Workload(_)))
            .map(|slot| &slot.name)
            .chain(&tunnels)
            .collect();
        let refuse = |endpoint: &Endpoint, why: String| ObjectError {
            object: format!("workload endpoint {}", endpoint.name),
            error: FieldError::new("interface_name", why),
        };
        let name = |id: &EndpointId| difference.next.endpoints.get(id).map_or("", |endpoint| &*endpoint.name);
        let mut new: BTreeMap<Arc<str>, EndpointId> = BTreeMap::new();
        let mut errors = vec![];
        let taken = difference.endpoints.iter().filter_map(|endpoint| Some((endpoint.old, endpoint.new?)));
        for (_, endpoint) in taken.filter(|(old, new)| old.is_none_or(|old| old.interface != new.interface)) {
            let used = fixed.len() + owners.len() + new.len();
            let interface = &endpoint.interface;
            let other = match owners.get(interface).or_else(|| new.get(interface)) {
                _ if fixed.contains(interface) => Some("an uplink or the host port"),
                other => other.map(name),
            };
            if used >= usize::from(self.max_interfaces) {
                errors.push(refuse(endpoint, format!("no room: {used} interfaces are in use")));
            } else if let Some(other) = other {
                errors.push(refuse(endpoint, format!("{interface} belongs to {other} already")));
            } else {
                new.insert(interface.clone(), endpoint.id.clone());
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let new: Vec<_> = new.into_iter().map(|(interface, id)| (interface, Some(id))).collect();
        owners.apply(&new);
        Ok(owners)
    }
}

/// The interfaces that their endpoints do not have any more.
fn left(difference: &Difference<'_>) -> Vec<Arc<str>> {
    let still = |of: &net::Difference<'_, EndpointId, Arc<Endpoint>>, old: &Endpoint| {
        of.new.is_some_and(|new| new.interface == old.interface)
    };
    let old = difference.endpoints.iter().filter_map(|of| of.old.filter(|old| !still(of, old)));
    old.map(|endpoint| endpoint.interface.clone()).collect()
}
