//! Any file: refused with a reason, or every packet of it is received, and what is recorded of
//! that replays as the same packets.
#![no_main]

use libfuzzer_sys::fuzz_target;
use margay_dataplane::io::Device;
use margay_dataplane::io::pcap::{Directions, Pace, Record, Replay};
use margay_dataplane::net::Nanos;
use margay_dataplane::packet::{Frames, Pool, VECTOR, Vector};

fuzz_target!(|file: &[u8]| {
    for pace in [Pace::AtOnce, Pace::AsRecorded] {
        let Ok(replay) = Replay::new(file, pace) else { return };
        let packets = replay.left() as u64;
        let mut record = Record::new(replay, Vec::new(), Directions::Received).expect("into memory");
        // Longer than any time stamp goes.
        let first = drain(&mut record, Nanos::from_secs(1 << 33));
        let counters = record.counters();
        assert_eq!(counters.rx_packets + counters.kernel.rx_dropped, packets);
        assert_eq!(counters.rx_packets, first.len() as u64);
        assert_eq!(counters.rx_bytes, first.iter().map(|packet| packet.len() as u64).sum::<u64>());

        let (_, copy) = record.into_parts();
        let mut again = Replay::new(&copy[..], Pace::AtOnce).expect("a file of our own");
        assert_eq!(drain(&mut again, Nanos(0)), first);
    }
});

/// Everything the device receives now and at `end`.
fn drain(device: &mut dyn Device, end: Nanos) -> Vec<Vec<u8>> {
    let mut pool = Pool::new(Frames::new(512, 2048, false).expect("sizes within bounds"), 512);
    let mut vector = Vector::default();
    let mut packets = vec![];
    for now in [Nanos(0), end] {
        while device.receive(&mut pool, &mut vector, VECTOR, now) > 0 {
            packets.extend((0..vector.len()).map(|k| pool.nth(&mut vector, k).bytes().to_vec()));
            pool.free_all(&mut vector);
        }
    }
    assert_eq!(pool.held() + pool.frames().in_depot(), 512, "no frame is lost");
    packets
}
