//! Looking on while packets go through the graph.

use crate::packet::Packet;

/// What a node did with one packet of a vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The node's name.
    pub node: &'static str,
    /// The name of the arc that the packet leaves by; empty: its way ends here.
    pub arc: &'static str,
    /// When the vector was through, or for a sink, when it came: ticks of the graph's counter.
    pub ticks: u64,
    /// What the node took for the whole vector; 0 for a sink, which is yet to begin.
    pub cycles: u64,
    /// Packets of the vector.
    pub packets: u16,
}

/// A world that may want to see what happens to packets.
pub trait Watch {
    /// It wants to. Asked once a vector, which is all that it costs while it does not.
    #[inline(always)]
    fn is_watching(&self) -> bool {
        false
    }

    /// A packet was judged, or is about to end in a sink.
    fn see(&mut self, _: Step, _: Packet<'_>) {}
}
