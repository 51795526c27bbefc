//! What each node has cost: written by one worker, read by anyone.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// False only in the build that `bench/instructions --counting` compares with, to show what counting costs.
pub const COUNTED: bool = !cfg!(feature = "uncounted");

/// Counters of all nodes of one graph.
pub struct NodeCounters {
    names: Vec<&'static str>,
    cells: Vec<[AtomicU64; 3]>,
}

/// One node's counts since the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeCount {
    /// The node.
    pub name: &'static str,
    /// Times it was called.
    pub vectors: u64,
    /// Packets it judged.
    pub packets: u64,
    /// Ticks of the counter the graph was built with.
    pub cycles: u64,
}

impl NodeCounters {
    pub(super) fn new(names: Vec<&'static str>) -> Self {
        let cells = names.iter().map(|_| Default::default()).collect();
        Self { names, cells }
    }

    /// Called by the graph's one thread: a load and a store, no locked instruction.
    #[inline]
    pub(super) fn add(&self, id: usize, packets: u64, cycles: u64) {
        if !COUNTED {
            return;
        }
        for (cell, more) in self.cells[id].iter().zip([1, packets, cycles]) {
            cell.store(cell.load(Relaxed).wrapping_add(more), Relaxed);
        }
    }

    /// A copy of the counts. Each is exact; together they may be a vector apart.
    pub fn read(&self) -> Vec<NodeCount> {
        let of = |(name, cell): (&&'static str, &[AtomicU64; 3])| NodeCount {
            name,
            vectors: cell[0].load(Relaxed),
            packets: cell[1].load(Relaxed),
            cycles: cell[2].load(Relaxed),
        };
        self.names.iter().zip(&self.cells).map(of).collect()
    }
}
