//! What a transaction changes, found without a look at what it leaves alone.

use super::desired::{Desired, Endpoint, EndpointId};
use super::route::Target;
use super::services::ServiceId;
use super::written::{Policy, Profile, Written};
use crate::net::{self, Prefix};
use crate::policy::{IpSet, PolicyId};
use crate::service::Definition;
use std::sync::Arc;

type Differences<'a, K, T> = Vec<net::Difference<'a, K, Arc<T>>>;

/// What differs between what is desired and what comes next.
pub struct Difference<'a> {
    /// What comes next.
    pub next: &'a Desired,
    /// IP sets, by name.
    pub ip_sets: Differences<'a, Arc<str>, IpSet>,
    /// Policies.
    pub policies: Differences<'a, PolicyId, Policy>,
    /// Staged ones.
    pub staged: Differences<'a, PolicyId, Policy>,
    /// Profiles, by name.
    pub profiles: Differences<'a, Arc<str>, Profile>,
    /// Workloads.
    pub endpoints: Differences<'a, EndpointId, Endpoint>,
    /// Routes, by destination.
    pub routes: Vec<net::Difference<'a, Prefix, Target>>,
    /// Whether any pool differs, or how what leaves them is translated, or to whom it is not.
    pub masquerade: bool,
    /// Whether any host endpoint differs, or a failsafe port, or whether the host's traffic comes by
    /// way of us for the sake of what leaves with its address.
    pub hosts: bool,
    /// Whether any end of a tunnel differs.
    pub tunnels: bool,
    /// Services.
    pub services: Differences<'a, ServiceId, Definition>,
}

impl<'a> Difference<'a> {
    /// From `old` to `next`.
    pub fn between(old: &'a Desired, next: &'a Desired) -> Self {
        // Named one by one, so that nothing new is forgotten here. The settings are cheap: every
        // snapshot has them anew.
        let Desired {
            ip_sets,
            policies,
            staged,
            profiles,
            endpoints,
            routes,
            host_endpoints,
            failsafe,
            services,
            service_settings: _,
            established: _,
            tracking: _,
            endpoint_to_host: _,
            pools,
            masquerade,
            overlay,
            far_ends,
            wireguard_peers,
            hosts,
        } = old;
        Self {
            next,
            ip_sets: next.ip_sets.since(ip_sets),
            policies: next.policies.since(policies),
            staged: next.staged.since(staged),
            profiles: next.profiles.since(profiles),
            endpoints: next.endpoints.since(endpoints),
            routes: next.routes.since(routes),
            masquerade: !next.pools.since(pools).is_empty()
                || next.masquerade != *masquerade
                || next.masquerade.excludes_hosts && !next.hosts.since(hosts).is_empty(),
            hosts: !next.host_endpoints.since(host_endpoints).is_empty()
                || next.failsafe != *failsafe
                || next.leads_hosts() != old.leads_hosts(),
            tunnels: next.overlay != *overlay
                || !next.far_ends.since(far_ends).is_empty()
                || !next.wireguard_peers.since(wireguard_peers).is_empty(),
            services: next.services.since(services),
        }
    }

    /// Of each policy and profile that differs, each direction as it was and as it is.
    pub fn written(&self) -> impl Iterator<Item = [Option<&'a Written>; 2]> {
        let policies = self.policies.iter().chain(&self.staged).map(|d| [d.old, d.new]);
        let policies = policies.flat_map(|both| {
            [both.map(|policy| policy.map(|p| &p.inbound)), both.map(|policy| policy.map(|p| &p.outbound))]
        });
        let profiles = self.profiles.iter().map(|d| [d.old, d.new]).flat_map(|both| {
            [
                both.map(|profile| profile.map(|p| &p.inbound)),
                both.map(|profile| profile.map(|p| &p.outbound)),
            ]
        });
        policies.chain(profiles)
    }

    /// The rules that judge an endpoint may be others.
    pub fn concerns(&self, endpoint: &Endpoint) -> bool {
        let policy = |id: &PolicyId| self.policies.binary_search_by(|policy| policy.key.cmp(id)).is_ok();
        let profile =
            |name: &Arc<str>| self.profiles.binary_search_by(|profile| profile.key.cmp(name)).is_ok();
        self.endpoints.binary_search_by(|other| other.key.cmp(&endpoint.id)).is_ok()
            || endpoint.tiers.iter().any(|tier| tier.ingress.iter().chain(&tier.egress).any(policy))
            || endpoint.profiles.iter().any(profile)
    }

    /// Policies and profiles in force say what they said.
    pub fn leaves_policies(&self) -> bool {
        self.policies.is_empty() && self.profiles.is_empty()
    }

    /// The same endpoints are judged by the same rules; the members of sets may differ.
    pub fn leaves_rules(&self) -> bool {
        self.leaves_policies() && self.endpoints.is_empty() && !self.hosts
    }

    /// So does what staged policies would make of it.
    pub fn leaves_staged(&self) -> bool {
        self.leaves_rules() && self.staged.is_empty()
    }

    /// Interfaces and routes stay as they are.
    pub fn leaves_forwarding(&self) -> bool {
        self.endpoints.is_empty() && self.routes.is_empty() && !self.tunnels && !self.hosts
    }
}
