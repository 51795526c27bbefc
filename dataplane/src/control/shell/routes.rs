//! The kernel's tables of routes, followed.

use super::Shell;
use crate::control::kernel_routes::Follow;
use crate::io::netlink::Link;
use crate::net::Prefix;

impl Shell {
    /// The kernel takes routes away without a word when their link or their source address goes.
    pub(super) fn link_moved(&mut self, before: Option<&Link>, after: Option<&Link>) {
        let facts = |link: &Link| (link.name.clone(), link.up);
        if before.map(facts) != after.map(facts) {
            self.ask_routes();
        }
        if before != after {
            self.tell_links();
        }
    }

    /// Has the state know what the kernel's interfaces take.
    pub(super) fn tell_links(&mut self) {
        let up = self.links.values().filter(|link| link.up);
        self.state.set_links(up.map(|link| (link.name.as_str().into(), link.mtu)).collect());
    }

    /// Has all routes asked for, after the news at hand.
    pub(super) fn ask_routes(&mut self) {
        self.routes_unclear = self.kernel_routes.tables().next().is_some();
    }

    /// Does what news of a route asks for.
    pub(super) fn follow_route(&mut self, follow: Follow) {
        match follow {
            Follow::Nothing => {}
            Follow::Prefix(table, prefix) => self.route_moved(table, prefix),
            Follow::Ask => self.ask_routes(),
        }
    }

    /// Asks for all routes, if that was to be done.
    pub(super) async fn survey_routes(&mut self) -> Result<(), crate::io::netlink::NetlinkError> {
        if !std::mem::take(&mut self.routes_unclear) {
            return Ok(());
        }
        for table in self.kernel_routes.tables() {
            let routes = self.netlink.routes(table).await?;
            for prefix in self.kernel_routes.replace(table, routes) {
                self.route_moved(table, prefix);
            }
        }
        tracing::debug!(routes = self.kernel_routes.len(), "the kernel's routes are mirrored");
        Ok(())
    }

    fn route_moved(&mut self, number: u32, prefix: Prefix) {
        let Some(table) = self.kernel_routes.table(number) else { return };
        let uplink = |link: u32| self.state.uplink(&self.links.get(&link)?.name);
        let target = self.kernel_routes.target(number, prefix, uplink);
        self.state.set_kernel_route(table, prefix, target);
    }
}
