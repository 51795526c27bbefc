//! Connections whose ends say whatever they like: the flow table and a second opinion, which shares no code with it,
//! agree about every segment.
#![no_main]

#[path = "../../../dataplane/tests/tracker/mod.rs"]
mod tracker;

use libfuzzer_sys::fuzz_target;

/// Bytes that a segment takes at most.
const SEGMENT: usize = 24;

fuzz_target!(|input: &[u8]| {
    let mut bytes = input.iter().copied();
    let mut dice = |below: u32| {
        let taken = if below > 256 { 4 } else { 1 };
        (0..taken).fold(0, |n, _| n << 8 | u32::from(bytes.next().unwrap_or(0))) % below
    };
    tracker::agree(&mut tracker::table(), 1 + input.len() / SEGMENT, &mut dice);
});
