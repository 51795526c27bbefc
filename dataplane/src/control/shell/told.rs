//! Flows that somebody reads about.

use super::Shell;
use crate::control::State;
use crate::control::flow_log::FlowRings;
use crate::control::ports::FlowMemory;
use crate::net::WorkerId;
use crate::nodes::Logs;
use std::sync::Arc;
use tokio::sync::watch;

/// What did not reach those who read.
#[derive(Default)]
pub(super) struct Losses {
    /// Of the newest reader, and of those before whose rings workers have not put down yet.
    rings: Vec<FlowRings>,
    /// Of rings that are gone.
    gone: Lost,
}

/// Records that found no room on their way from workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Of flows.
    pub flows: u64,
    /// Of refused attempts.
    pub refusals: u64,
}

impl Losses {
    /// Since the process began.
    pub fn lost(&mut self) -> Lost {
        // Nobody else has it: nothing more is lost there.
        for gone in self.rings.extract_if(.., |ring| Arc::strong_count(&ring.flows) == 1) {
            self.gone = self.gone.and(&gone);
        }
        self.rings.iter().fold(self.gone, Lost::and)
    }
}

impl Lost {
    fn and(self, ring: &FlowRings) -> Self {
        Self { flows: self.flows + ring.flows.lost(), refusals: self.refusals + ring.refusals.lost() }
    }
}

impl Shell {
    /// Every worker's flow table: what [`Self::tell_of_flows`] needs logs for.
    pub fn flow_tables(&self) -> Vec<(WorkerId, FlowMemory)> {
        self.ports.workers().iter().map(|worker| (worker.id, worker.flow_table)).collect()
    }

    /// Has workers tell of flows to a new reader, who is given a number and sees when it is not the newest any more;
    /// else says why not. The reader before is told no more.
    pub fn tell_of_flows(
        &mut self,
        logs: Vec<Logs>,
        rings: Vec<FlowRings>,
    ) -> Result<(u64, watch::Receiver<u64>), &'static str> {
        if !self.ports.take_commands() {
            return Err("a worker does not take commands; is it overloaded?");
        }
        self.ports.tell_of_flows(logs.into_iter().map(Some));
        // What was lost by those who read before is kept, their rings are not.
        self.losses.lost();
        self.losses.rings.extend(rings);
        let number = *self.flow_reader.borrow() + 1;
        self.flow_reader.send_replace(number);
        Ok((number, self.flow_reader.subscribe()))
    }

    /// The reader of this number is gone.
    pub fn stop_telling_of_flows(&mut self, number: u64) {
        if *self.flow_reader.borrow() == number {
            self.ports.tell_of_flows(std::iter::repeat_with(|| None));
        }
    }

    /// The sans-IO heart.
    pub fn state(&self) -> &State {
        &self.state
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_earlier_readers_lost_is_still_counted_when_their_rings_are_gone() {
        let mut losses = Losses::default();
        let (first, second) = (FlowRings::new(WorkerId(0)), FlowRings::new(WorkerId(0)));
        first.flows.lose(3);
        losses.rings = vec![first.clone(), second.clone()];
        assert_eq!(losses.lost(), Lost { flows: 3, refusals: 0 });
        // The worker has not heard yet that somebody else reads.
        first.refusals.lose(1);
        drop(first);
        second.flows.lose(4);
        assert_eq!(losses.lost(), Lost { flows: 7, refusals: 1 });
        assert_eq!((losses.rings.len(), losses.lost()), (1, Lost { flows: 7, refusals: 1 }));
    }
}
