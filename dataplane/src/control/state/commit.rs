//! A transaction of the agent: checked against everything there is, then applied whole.

use super::Purpose;
use super::State;
use crate::conntrack::Masquerade;
use crate::conntrack::nat::Pool;
use crate::control::convert::FieldError;
use crate::control::desired::{Desired, Endpoint, ObjectError};
use crate::control::difference::Difference;
use crate::net::{Nanos, Prefix};
use crate::worker::Forgotten;
use margay_api::dataplane::v1 as pb;
use std::collections::BTreeMap;
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
        errors.extend(self.conflicts(&difference));
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
            self.masquerade = Arc::new(Masquerade::new(&pools, difference.next.masquerade));
        }
        self.forget_flows(&difference);
        self.hold_services(services, &difference);
        (self.desired, self.fresh, self.sets, self.endpoints) = (next, fresh, sets, numbered);
        self.host_lists = hosts;
        self.committed = commit.generation;
        if forwards_anew {
            self.follow_desired(now);
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

    /// Endpoints whose interface is another's, or that are too many.
    fn conflicts(&self, difference: &Difference<'_>) -> Vec<ObjectError> {
        if difference.endpoints.is_empty() {
            return vec![];
        }
        let refuse = |endpoint: &Endpoint, why: String| ObjectError {
            object: format!("workload endpoint {}", endpoint.name),
            error: FieldError::new("interface_name", why),
        };
        let fixed = self.slots.values().filter(|slot| !matches!(slot.purpose, Purpose::Workload(_)));
        let mut taken: BTreeMap<Arc<str>, Arc<str>> =
            fixed.map(|slot| (slot.name.clone(), "an uplink or the host port".into())).collect();
        let mut errors = vec![];
        for endpoint in difference.next.endpoints.values() {
            if taken.len() >= usize::from(self.max_interfaces) {
                errors.push(refuse(endpoint, format!("no room: {} interfaces are in use", taken.len())));
            } else if let Some(other) = taken.insert(endpoint.interface.clone(), endpoint.name.clone()) {
                errors.push(refuse(endpoint, format!("{} belongs to {other} already", endpoint.interface)));
            }
        }
        errors
    }
}
