//! Many packets: ordered by length, and handed to the kernel in groups.

use super::lane::{Lane, Packet};
use super::{GROUP, Kernel};
use arrayvec::ArrayVec;

/// Packets ordered at a time.
pub const BATCH: usize = 256;

/// Sixteen bytes each; longer texts share the last.
const LENGTHS: usize = 1024;

/// Where packets are sealed and opened: a worker has one. Allocates only when it is made.
pub struct Batch {
    kernel: Kernel,
    order: Box<[u16; BATCH]>,
    /// Of each length, first how many there are, then where the next goes.
    places: Box<[u16; LENGTHS]>,
}

impl Batch {
    /// With the kernel of choice.
    pub fn new(kernel: Kernel) -> Self {
        Self { kernel, order: Box::new([0; BATCH]), places: Box::new([0; LENGTHS]) }
    }

    /// Encrypts all texts and writes their tags.
    pub fn seal(&mut self, packets: &mut [Packet<'_>]) {
        for packets in packets.chunks_mut(BATCH) {
            self.sort(packets);
            for group in self.order[..packets.len()].chunks(GROUP) {
                if let Some(vectors) = self.kernel.vectors(group.len(), longest(packets, group)) {
                    vectors.seal(&lanes(packets, group));
                    continue;
                }
                for at in group {
                    let packet = &mut packets[usize::from(*at)];
                    packet.key().seal(packet);
                }
            }
        }
    }

    /// Checks all tags, and decrypts the texts of genuine packets. Others' texts mean nothing afterwards.
    ///
    /// # Panics
    /// Without a place in `genuine` for each packet.
    pub fn open(&mut self, packets: &mut [Packet<'_>], genuine: &mut [bool]) {
        assert_eq!(packets.len(), genuine.len(), "a verdict for each packet");
        for (packets, genuine) in packets.chunks_mut(BATCH).zip(genuine.chunks_mut(BATCH)) {
            self.sort(packets);
            for group in self.order[..packets.len()].chunks(GROUP) {
                if let Some(vectors) = self.kernel.vectors(group.len(), longest(packets, group)) {
                    let verdicts = vectors.open(&lanes(packets, group));
                    for (at, verdict) in group.iter().zip(verdicts) {
                        genuine[usize::from(*at)] = verdict;
                    }
                    continue;
                }
                for at in group {
                    let packet = &mut packets[usize::from(*at)];
                    genuine[usize::from(*at)] = packet.key().open(packet);
                }
            }
        }
    }

    /// Fills in `order`, shortest first: a counting sort.
    fn sort(&mut self, packets: &[Packet<'_>]) {
        let place = |packet: &Packet<'_>| packet.len().div_ceil(16).min(LENGTHS - 1);
        let (mut first, mut last) = (LENGTHS, 0);
        for packet in packets {
            (first, last) = (first.min(place(packet)), last.max(place(packet)));
        }
        if first >= last {
            for (at, place) in (0..).zip(self.order.iter_mut().take(packets.len())) {
                *place = at;
            }
            return;
        }
        let places = &mut self.places[first..=last];
        places.fill(0);
        for packet in packets {
            places[place(packet) - first] += 1;
        }
        let mut next = 0;
        for place in places.iter_mut() {
            (*place, next) = (next, next + *place);
        }
        for (at, packet) in (0..).zip(packets) {
            let place = &mut places[place(packet) - first];
            self.order[usize::from(*place)] = at;
            *place += 1;
        }
    }
}

/// Bytes of the longest text of a group, which is its last.
fn longest(packets: &[Packet<'_>], group: &[u16]) -> usize {
    group.last().map_or(0, |at| packets[usize::from(*at)].len())
}

/// The packets of a group.
fn lanes<'a>(packets: &'a mut [Packet<'_>], group: &[u16]) -> ArrayVec<Lane<'a>, GROUP> {
    let packets = packets.as_mut_ptr();
    // SAFETY: the numbers of a group are below the number of packets, and no two are alike: they are
    // part of an order of all. So no packet is in two lanes, and all live as long as the slice.
    group.iter().map(|at| Lane::new(unsafe { &mut *packets.add(usize::from(*at)) })).collect()
}
