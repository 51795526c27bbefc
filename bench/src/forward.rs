//! Two AF_XDP ports and nothing between them: what comes in by one goes out by the other with the next
//! station's addresses. No packet path in user space can do less, so this is the ceiling that others are
//! measured against.

use crate::tester::{Place, mac, open};
use anyhow::Result;
use clap::Args;
use margay_dataplane::io::Device as _;
use margay_dataplane::io::af_xdp::AfXdp;
use margay_dataplane::net::{Mac, Nanos};
use margay_dataplane::packet::{Frames, Pool, VECTOR, Vector};

/// Packet buffers for both ports.
const FRAMES: u32 = 16_384;

/// Command line.
#[derive(Args, Debug)]
pub struct Options {
    /// Where packets come in
    #[arg(long = "in", value_name = "[NETNS:]IFACE")]
    from: Place,
    /// Where they go out
    #[arg(long = "out", value_name = "[NETNS:]IFACE")]
    to: Place,
    /// Ethernet address of the next station
    #[arg(long, value_name = "MAC", value_parser = mac)]
    next: Mac,
}

/// Forwards until killed.
pub fn run(options: &Options) -> Result<()> {
    let frames = Frames::new(FRAMES, 2048, false)?;
    let (mut from, mut to) = (open(&options.from, &frames)?, open(&options.to, &frames)?);
    let mut pool = Pool::new(frames, FRAMES as usize);
    let mut vector = Vector::default();
    println!("forwarding from {} to {}", options.from, options.to);
    loop {
        step(&mut from, &mut to, &mut pool, &mut vector, options.next);
    }
}

fn step(from: &mut AfXdp, to: &mut AfXdp, pool: &mut Pool, vector: &mut Vector, next: Mac) {
    from.receive(pool, vector, VECTOR, Nanos(0));
    for position in 0..vector.len() {
        let mut packet = pool.nth(vector, position);
        if let Some(link) = packet.bytes_mut().first_chunk_mut::<12>() {
            let ours = [link[0], link[1], link[2], link[3], link[4], link[5]];
            link[..6].copy_from_slice(&next.0);
            link[6..].copy_from_slice(&ours);
        }
    }
    to.transmit(pool, vector, Nanos(0));
    pool.free_all(vector);
    // What the next station says is of no interest.
    to.receive(pool, vector, VECTOR, Nanos(0));
    pool.free_all(vector);
    to.settle(pool);
    from.settle(pool);
}
