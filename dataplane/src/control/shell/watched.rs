//! Packets that somebody watches.

use super::Shell;
use crate::conntrack::{Filter, FilterError};
use crate::control::story::{Clock, Story};
use crate::control::watch::Watching;
use crate::control::{FieldError, flows, probe};
use crate::nodes::Probe;
use crate::worker::ticks;
use margay_api::dataplane::v1 as pb;
use std::time::{SystemTime, UNIX_EPOCH};

impl Shell {
    /// Reads a filter of packets that may name endpoints.
    pub fn packet_filter(&self, text: &str) -> Result<Filter, FilterError> {
        flows::packet_filter(&self.state, text)
    }

    /// A packet that is made up.
    pub fn probe(&self, asked: &pb::Probe) -> Result<Probe, FieldError> {
        probe::probe(&self.state, asked)
    }

    /// Has packets watched; else says why not.
    pub fn watch(&mut self, watching: Watching) -> Result<(), &'static str> {
        if self.watched {
            return Err("somebody else traces or captures; try again when they are done");
        }
        if !self.ports.take_commands() {
            return Err("a worker does not take commands; is it overloaded?");
        }
        let Watching { watchers, probe, .. } = watching;
        self.ports.watch(watchers.into_iter().map(Some));
        self.watched = true;
        if probe.is_some_and(|probe| !self.ports.probe(probe)) {
            self.unwatch();
            return Err(
                "the interface that the packet would come in by is not served; see margayctl dp interfaces",
            );
        }
        Ok(())
    }

    /// Nobody watches any more.
    pub fn unwatch(&mut self) {
        self.ports.watch(std::iter::repeat_with(|| None));
        self.watched = false;
    }

    /// Stories as the API has them.
    pub fn tell(&self, stories: &[Story], request: &pb::WatchRequest) -> Vec<pb::WatchedPacket> {
        let elapsed = self.started.elapsed().as_secs_f64().max(1e-9);
        let ticks = ticks();
        let clock = Clock {
            ticks,
            unix_nanos: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64,
            hz: ticks.wrapping_sub(self.started_ticks) as f64 / elapsed,
        };
        stories.iter().map(|story| story.tell(&self.state, clock, self.now(), request)).collect()
    }
}
