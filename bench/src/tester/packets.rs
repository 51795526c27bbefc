//! Where the packets come from that are sent.

use super::frame::Maker;
use super::recording::Recording;
use margay_dataplane::packet::Packet;

/// Packets without end.
pub enum Packets {
    /// Of flows, each with the moment it was sent at.
    Made(Maker),
    /// Those of a file, again and again.
    Recorded(Recording),
}

impl Packets {
    /// The next packet, sent at `nanos`. `false`: it does not fit.
    pub fn write(&mut self, packet: &mut Packet<'_>, nanos: u64) -> bool {
        match self {
            Self::Made(maker) => maker.write(packet, nanos),
            Self::Recorded(recording) => recording.write(packet),
        }
    }
}
