//! Flows that somebody reads about.

use super::Shell;
use crate::conntrack::FlowLog;
use crate::control::State;
use crate::control::flow_log::FlowRings;
use crate::nodes::{Logs, Refusals};

impl Shell {
    /// Has workers tell of flows to a new reader, who is given a number and the rings; else says why not. The reader
    /// before is told no more.
    pub fn tell_of_flows(&mut self) -> Result<(u64, Vec<FlowRings>), &'static str> {
        if !self.ports.take_commands() {
            return Err("a worker does not take commands; is it overloaded?");
        }
        let workers = self.ports.workers();
        let rings: Vec<_> = workers.iter().map(|worker| FlowRings::new(worker.id)).collect();
        let logs = workers.iter().zip(&rings).map(|(worker, ring)| {
            let memory = worker.flow_table;
            let flows = FlowLog::new(memory.capacity, memory.hugepages, ring.flows.clone());
            Some(Logs { flows: Box::new(flows), refusals: Box::new(Refusals::new(ring.refusals.clone())) })
        });
        self.ports.tell_of_flows(logs);
        self.flow_reader.0 += 1;
        self.flow_reader.1 = true;
        Ok((self.flow_reader.0, rings))
    }

    /// The reader of this number is the newest.
    pub fn tells_of_flows(&self, number: u64) -> bool {
        self.flow_reader == (number, true)
    }

    /// The reader of this number is gone.
    pub fn stop_telling_of_flows(&mut self, number: u64) {
        if self.tells_of_flows(number) {
            self.ports.tell_of_flows(std::iter::repeat_with(|| None));
            self.flow_reader.1 = false;
        }
    }

    /// The sans-IO heart.
    pub fn state(&self) -> &State {
        &self.state
    }
}
