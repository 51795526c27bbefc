//! Flows that somebody reads about.

use super::Shell;
use crate::control::State;
use crate::control::ports::FlowMemory;
use crate::net::WorkerId;
use crate::nodes::Logs;
use tokio::sync::watch;

impl Shell {
    /// Every worker's flow table: what [`Self::tell_of_flows`] needs logs for.
    pub fn flow_tables(&self) -> Vec<(WorkerId, FlowMemory)> {
        self.ports.workers().iter().map(|worker| (worker.id, worker.flow_table)).collect()
    }

    /// Has workers tell of flows to a new reader, who is given a number and sees when it is not the newest any more;
    /// else says why not. The reader before is told no more.
    pub fn tell_of_flows(&mut self, logs: Vec<Logs>) -> Result<(u64, watch::Receiver<u64>), &'static str> {
        if !self.ports.take_commands() {
            return Err("a worker does not take commands; is it overloaded?");
        }
        self.ports.tell_of_flows(logs.into_iter().map(Some));
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
