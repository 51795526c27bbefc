//! What others may see of the control thread's things.

use super::Shell;
use crate::conntrack::{Filter, FilterError, PacketLike};
use crate::control::{FieldError, ShowError, State, show};
use crate::control::{
    explain, flows, metrics, routes_view, services_view, tunnels_view, view, wireguard_view,
};
use crate::net::WorkerId;
use crate::worker::{FlowSeen, ticks};
use margay_api::dataplane::v1 as pb;
use margay_api::metrics::Families;

impl Shell {
    /// How far the dataplane has got.
    pub fn status(&mut self) -> pb::Status {
        let uptime = self.started.elapsed().as_secs();
        let status = view::status(&mut self.state, &self.ports, self.agent_connected, uptime);
        pb::Status {
            last_refused: self.last_refused.clone(),
            wireguard_problem: self.keyless.clone(),
            ..status
        }
    }

    /// Every interface.
    pub fn interfaces(&self) -> Vec<pb::Interface> {
        view::interfaces(&self.state, &self.ports, &self.reasons)
    }

    /// The cost of nodes.
    pub fn runtime(&self) -> pb::Runtime {
        view::runtime(&self.ports, self.tsc_hz())
    }

    /// How vectors were spread.
    pub fn histograms(&self) -> pb::GetHistogramsResponse {
        view::histograms(&self.ports, self.tsc_hz())
    }

    /// Ticks a second.
    fn tsc_hz(&self) -> f64 {
        let cycles = ticks().wrapping_sub(self.started_ticks) as f64;
        cycles / self.started.elapsed().as_secs_f64().max(1e-9)
    }

    /// Reasons of drops.
    pub fn drops(&self) -> Vec<pb::Drop> {
        view::drops(&self.state, &self.ports, &self.denials)
    }

    /// What a scrape sees.
    pub fn metrics(&mut self) -> Families {
        let sources = metrics::Sources {
            status: self.status(),
            lost: self.losses.lost(),
            interfaces: self.interfaces(),
            denials: &mut self.denials,
            timings: &self.timings,
            endpoints: &self.statuses,
            uptime: self.started.elapsed(),
        };
        metrics::families(&self.state, &self.ports, sources)
    }

    /// The service of this name, or all where it is empty.
    pub fn services(&self, name: &str) -> Vec<pb::ServedService> {
        services_view::served(&self.state, name)
    }

    /// Tunnels to other nodes.
    pub fn tunnels(&self) -> Vec<pb::Tunnel> {
        tunnels_view::tunnels(&self.state)
    }

    /// Where packets to an address go.
    pub fn lookup_route(
        &self,
        request: &pb::LookupRouteRequest,
    ) -> Result<pb::LookupRouteResponse, FieldError> {
        routes_view::lookup(&self.state, request)
    }

    /// Routes, and whether there are more.
    pub fn routes(&self, request: &pb::ListRoutesRequest) -> Result<(Vec<pb::ShownRoute>, bool), FieldError> {
        routes_view::list(&self.state, request)
    }

    /// Every adjacency.
    pub fn adjacencies(&self) -> Vec<pb::ShownAdjacency> {
        routes_view::adjacencies(&self.state)
    }

    /// Every neighbour.
    pub fn neighbours(&self) -> Vec<pb::ShownNeighbour> {
        routes_view::neighbours(&self.state, self.now())
    }

    /// Encrypted tunnels.
    pub fn wireguard(&self) -> Vec<pb::WireguardInterface> {
        wireguard_view::wireguard(&self.state)
    }

    /// What staged policies would have changed.
    pub fn staged(&self) -> pb::ListStagedResponse {
        self.differences.report(&self.state, self.now())
    }

    /// Judges a packet that nobody sent.
    pub fn explain(&self, request: &pb::ExplainRequest) -> Result<pb::ExplainResponse, FieldError> {
        explain::explain(&self.state, request, self.now())
    }

    /// What applies to an endpoint.
    pub fn show(&self, request: &pb::GetEndpointPolicyRequest) -> Result<pb::EndpointPolicy, ShowError> {
        show(&self.state, request)
    }

    /// As the API has what the workers said of a packet's flow; `more`: and more than that.
    pub fn conntrack(&self, like: &PacketLike, found: &[(WorkerId, FlowSeen)], more: bool) -> pb::Conntrack {
        flows::conntrack(&self.state, like, found, more)
    }

    /// The workers.
    pub fn workers(&self) -> Vec<WorkerId> {
        self.ports.workers().iter().map(|worker| worker.id).collect()
    }

    /// Reads a filter of flows that may name endpoints.
    pub fn filter(&self, text: &str) -> Result<Filter, FilterError> {
        flows::filter(&self.state, text)
    }

    /// What is in force, for whoever has more time than this thread.
    pub fn aside(&self) -> State {
        self.state.aside()
    }

    /// Whose addresses are whose.
    pub fn names(&self) -> flows::Names {
        flows::Names::of(&self.state)
    }
}
