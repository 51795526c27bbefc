#![doc = include_str!("README.md")]

mod counters;
mod node;
mod watch;

pub use counters::{COUNTED, NodeCount, NodeCounters};
pub use node::{NEAR, Next, Node, Sink, one_by_one};
pub use watch::{Step, Watch};

use crate::packet::{Pool, VECTOR, Vector};
use node::AnyNode;
use std::fmt::Write as _;
use std::marker::PhantomData;
use std::sync::Arc;

/// Declares a node's arcs: an enum, a name for each, in the order of their numbers.
#[macro_export]
macro_rules! arcs {
    ($(#[$meta:meta])* $vis:vis enum $name:ident { $($(#[$doc:meta])* $arc:ident = $label:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        $vis enum $name { $($(#[$doc])* $arc),+ }

        impl $crate::graph::Next for $name {
            const ARCS: &'static [&'static str] = &[$($label),+];
            #[inline(always)]
            fn index(self) -> u8 {
                self as u8
            }
        }
    };
}

/// A node's place in the graph. Knows the node's type, so that it takes only its arcs.
pub struct At<N>(u8, PhantomData<fn() -> N>);

impl<N> Clone for At<N> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<N> Copy for At<N> {}

/// Why a graph could not be built.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// An arc leads nowhere.
    #[error("node {node}: arc {arc} is not connected")]
    Dangling {
        /// The node's name.
        node: &'static str,
        /// The arc's name.
        arc: &'static str,
    },
    /// More nodes than a run can schedule.
    #[error("{0} nodes: at most 64 fit one graph")]
    TooMany(usize),
}

/// Collects nodes and arcs.
pub struct Builder<W> {
    nodes: Vec<Box<dyn AnyNode<W>>>,
    arcs: Vec<Vec<Option<u8>>>,
}

impl<W: 'static> Default for Builder<W> {
    fn default() -> Self {
        Self { nodes: vec![], arcs: vec![] }
    }
}

impl<W: 'static> Builder<W> {
    /// Adds a node. Add in topological order: a node behind those that lead to it.
    pub fn node<N: Node<W>>(&mut self, node: N) -> At<N> {
        self.push(Box::new(node::Judge(node)), N::Next::ARCS.len())
    }

    /// Adds a sink.
    pub fn sink<S: Sink<W>>(&mut self, sink: S) -> At<S> {
        self.push(Box::new(node::End(sink)), 0)
    }

    fn push<N>(&mut self, node: Box<dyn AnyNode<W>>, arcs: usize) -> At<N> {
        let at = self.nodes.len() as u8;
        self.nodes.push(node);
        self.arcs.push(vec![None; arcs]);
        At(at, PhantomData)
    }

    /// Leads `arc` of `from` to `to`.
    pub fn connect<N: Node<W>, M>(&mut self, from: At<N>, arc: N::Next, to: At<M>) -> &mut Self {
        self.arcs[usize::from(from.0)][usize::from(arc.index())] = Some(to.0);
        self
    }

    /// Checks that every arc leads somewhere. `ticks` reads a counter for the cost of nodes.
    pub fn build(self, ticks: fn() -> u64) -> Result<Graph<W>, BuildError> {
        let count = self.nodes.len();
        if count > 64 {
            return Err(BuildError::TooMany(count));
        }
        let mut arcs = Vec::with_capacity(count);
        for (node, row) in self.nodes.iter().zip(self.arcs) {
            let row: Result<Vec<u8>, _> = row
                .into_iter()
                .enumerate()
                .map(|(k, to)| to.ok_or(BuildError::Dangling { node: node.name(), arc: node.arcs()[k] }))
                .collect();
            arcs.push(row?);
        }
        let names = self.nodes.iter().map(|n| n.name()).collect();
        Ok(Graph {
            nodes: self.nodes,
            arcs,
            inboxes: (0..count).map(|_| Vector::default()).collect(),
            current: Box::default(),
            nexts: [0; VECTOR],
            pending: 0,
            ticks,
            counters: Arc::new(NodeCounters::new(names)),
        })
    }
}

/// A built graph, with what is on its way through it.
pub struct Graph<W> {
    nodes: Vec<Box<dyn AnyNode<W>>>,
    /// `arcs[node][arc]` is the node behind it.
    arcs: Vec<Vec<u8>>,
    inboxes: Vec<Vector>,
    current: Box<Vector>,
    nexts: [u8; VECTOR],
    /// A bit a node with packets in its inbox.
    pending: u64,
    ticks: fn() -> u64,
    counters: Arc<NodeCounters>,
}

impl<W: Watch + 'static> Graph<W> {
    /// Puts packets before a node. At most [`VECTOR`] may be in the graph at once.
    #[inline]
    pub fn inject<N>(&mut self, at: At<N>, packets: &mut Vector) {
        if !packets.is_empty() {
            self.inboxes[usize::from(at.0)].append(packets);
            self.pending |= 1 << at.0;
        }
    }

    /// Runs until every packet has reached a sink.
    pub fn run(&mut self, world: &mut W, pool: &mut Pool) {
        let mut before = (self.ticks)();
        while self.pending != 0 {
            let id = self.pending.trailing_zeros() as usize;
            self.pending &= self.pending - 1;
            // Swapped out, not borrowed: a node may lead back to itself (a tunnel in a tunnel).
            std::mem::swap(&mut *self.current, &mut self.inboxes[id]);
            let packets = self.current.len();
            if world.is_watching() {
                self.run_watched(id, world, pool);
            } else {
                self.nodes[id].run(world, pool, &mut self.current, &mut self.nexts);
            }
            self.scatter(id);
            if COUNTED {
                let after = (self.ticks)();
                self.counters.add(id, packets as u64, after.wrapping_sub(before));
                before = after;
            }
        }
    }

    /// Runs a node, and shows the world what it did; a sink is shown before, for it keeps nothing.
    #[cold]
    fn run_watched(&mut self, id: usize, world: &mut W, pool: &mut Pool) {
        let node = &mut self.nodes[id];
        let (name, arcs, packets) = (node.name(), node.arcs(), self.current.len());
        let before = (self.ticks)();
        if !arcs.is_empty() {
            node.run(world, pool, &mut self.current, &mut self.nexts);
        }
        let ticks = (self.ticks)();
        let cycles = if arcs.is_empty() { 0 } else { ticks.wrapping_sub(before) };
        for position in 0..packets {
            let arc = arcs.get(usize::from(self.nexts[position])).copied().unwrap_or_default();
            let step = Step { node: name, arc, ticks, cycles, packets: packets as u16 };
            world.see(step, pool.nth(&mut self.current, position));
        }
        if arcs.is_empty() {
            self.nodes[id].run(world, pool, &mut self.current, &mut self.nexts);
        }
    }

    #[inline]
    fn scatter(&mut self, id: usize) {
        let count = self.current.len();
        if count == 0 {
            return;
        }
        let row = &self.arcs[id][..];
        let first = self.nexts[0];
        let differ = self.nexts[..count].iter().fold(0, |differ, &next| differ | (next ^ first));
        if differ == 0 {
            let to = row[usize::from(first)];
            self.inboxes[usize::from(to)].append(&mut self.current);
            self.pending |= 1 << to;
        } else {
            let (nexts, mut pending) = (&self.nexts, 0);
            self.current.scatter(&mut self.inboxes, |position| {
                let to = row[usize::from(nexts[position])];
                pending |= 1 << to;
                usize::from(to)
            });
            self.pending |= pending;
        }
    }

    /// What each node has cost so far; may be read from any thread.
    pub fn counters(&self) -> &Arc<NodeCounters> {
        &self.counters
    }

    /// The wiring as Graphviz text.
    pub fn dot(&self) -> String {
        let mut out = String::from("digraph margay {\n  rankdir=LR;\n  node [shape=box];\n");
        for (node, row) in self.nodes.iter().zip(&self.arcs) {
            for (arc, &to) in node.arcs().iter().zip(row) {
                // Writing to a string cannot fail.
                let _ = writeln!(
                    out,
                    "  \"{}\" -> \"{}\" [label=\"{arc}\"];",
                    node.name(),
                    self.nodes[usize::from(to)].name()
                );
            }
        }
        out + "}\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{Frames, Packet};

    #[derive(Default)]
    struct World {
        even: Vec<u8>,
        odd: Vec<u8>,
        watching: bool,
        seen: Vec<(&'static str, &'static str, u8)>,
    }

    impl Watch for World {
        fn is_watching(&self) -> bool {
            self.watching
        }

        fn see(&mut self, step: Step, packet: Packet<'_>) {
            self.seen.push((step.node, step.arc, packet.bytes()[0]));
        }
    }

    arcs! {
        enum Parity { Even = "even", Odd = "odd", Again = "again" }
    }
    struct Split;
    impl Node<World> for Split {
        type Next = Parity;
        const NAME: &'static str = "split";
        fn packet(&mut self, _: &mut World, packet: Packet<'_>) -> Parity {
            match (packet.meta.gso_size, packet.bytes()[0] % 2) {
                (0, 0) if packet.bytes()[0] == 100 => {
                    packet.meta.gso_size = 1;
                    Parity::Again
                }
                (_, 0) => Parity::Even,
                _ => Parity::Odd,
            }
        }
    }
    struct Even;
    impl Sink<World> for Even {
        const NAME: &'static str = "even";
        fn take(&mut self, world: &mut World, pool: &mut Pool, packets: &mut Vector) {
            for position in 0..packets.len() {
                world.even.push(pool.nth(packets, position).bytes()[0]);
            }
            pool.free_all(packets);
        }
    }
    struct Odd;
    impl Sink<World> for Odd {
        const NAME: &'static str = "odd";
        fn take(&mut self, world: &mut World, pool: &mut Pool, packets: &mut Vector) {
            for position in 0..packets.len() {
                world.odd.push(pool.nth(packets, position).bytes()[0]);
            }
            pool.free_all(packets);
        }
    }

    #[test]
    fn every_packet_takes_its_arc_in_order() {
        let mut builder = Builder::default();
        let split = builder.node(Split);
        let even = builder.sink(Even);
        let odd = builder.sink(Odd);
        builder.connect(split, Parity::Even, even).connect(split, Parity::Odd, odd);
        builder.connect(split, Parity::Again, split);
        let mut graph = builder.build(|| 0).unwrap();

        let mut pool = Pool::new(Frames::new(256, 2048, false).unwrap(), 0);
        let mut packets = Vector::default();
        for n in 0..=200u8 {
            let mut idx = pool.alloc().unwrap();
            pool.get(&mut idx).fill(&[n]);
            packets.push(idx);
        }
        let mut world = World::default();
        graph.inject(split, &mut packets);
        graph.run(&mut world, &mut pool);

        assert_eq!(world.odd, (0..=200).filter(|n| n % 2 == 1).collect::<Vec<u8>>());
        let mut even: Vec<u8> = (0..=200).filter(|n| n % 2 == 0 && *n != 100).collect();
        even.push(100);
        assert_eq!(world.even, even);
        assert_eq!(pool.held() + pool.frames().in_depot(), 256);
        let counts = graph.counters().read();
        assert_eq!((counts[0].name, counts[0].vectors, counts[0].packets), ("split", 2, 202));
        assert!(graph.dot().contains("\"split\" -> \"split\" [label=\"again\"]"));
    }

    #[test]
    fn a_world_that_watches_sees_each_step_and_each_end() {
        let mut builder = Builder::default();
        let split = builder.node(Split);
        let (even, odd) = (builder.sink(Even), builder.sink(Odd));
        builder.connect(split, Parity::Even, even).connect(split, Parity::Odd, odd);
        builder.connect(split, Parity::Again, split);
        let mut graph = builder.build(|| 0).unwrap();
        let mut pool = Pool::new(Frames::new(64, 2048, false).unwrap(), 0);
        let mut world = World { watching: true, ..World::default() };
        let mut packets = Vector::default();
        for n in [100, 7] {
            let mut idx = pool.alloc().unwrap();
            pool.get(&mut idx).fill(&[n]);
            packets.push(idx);
        }
        graph.inject(split, &mut packets);
        graph.run(&mut world, &mut pool);
        let (again, odd) = (("split", "again", 100), ("split", "odd", 7));
        assert_eq!(world.seen, [again, odd, ("split", "even", 100), ("even", "", 100), ("odd", "", 7)]);
        assert_eq!((world.even, world.odd), (vec![100], vec![7]), "and nothing is changed by it");
    }

    #[test]
    fn a_forgotten_arc_is_named() {
        let mut builder = Builder::<World>::default();
        let split = builder.node(Split);
        let even = builder.sink(Even);
        builder.connect(split, Parity::Even, even).connect(split, Parity::Again, split);
        let error = builder.build(|| 0).err().unwrap();
        assert_eq!(error, BuildError::Dangling { node: "split", arc: "odd" });
    }
}
