//! Super-frames of any bytes: cutting them neither panics nor loses, adds or mixes up a byte of payload, every segment says
//! the truth of its length, and what is put together of the segments comes apart into the same again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use margay_dataplane::net::Proto;
use margay_dataplane::wire::coalesce::Run;
use margay_dataplane::wire::segment::{Super, into_first};

fuzz_target!(|input: &[u8]| {
    let [l4, size_high, size_low, proto, packet @ ..] = input else { return };
    let (l4, size) = (usize::from(l4 % 96), u16::from_be_bytes([*size_high, *size_low]));
    let proto = if proto % 2 == 0 { Proto::TCP } else { Proto::UDP };
    let Some(cut) = Super::new(packet, l4, proto, size) else {
        assert_eq!(into_first(&mut packet.to_vec(), l4, proto, size), None);
        return;
    };
    let headers = l4 + if proto == Proto::TCP { usize::from(packet[l4 + 12] >> 4) * 4 } else { 8 };
    let (mut segments, mut payload) = (vec![], vec![]);
    for n in 0..cut.count() {
        let mut out = vec![0; packet.len()];
        let len = cut.write(n, &mut out).expect("there is room for any");
        out.truncate(len);
        assert!(len <= cut.longest() && len > headers);
        let said = match packet[0] >> 4 {
            4 => usize::from(u16::from_be_bytes([out[2], out[3]])),
            _ => 40 + usize::from(u16::from_be_bytes([out[4], out[5]])),
        };
        assert_eq!(said, len);
        payload.extend_from_slice(&out[headers..]);
        segments.push(out);
    }
    assert_eq!(cut.write(cut.count(), &mut vec![0; packet.len()]), None);
    assert_eq!(payload, packet[headers..]);
    let Some(mut run) = Run::begin(&segments[0]) else { return };
    let mut whole = segments[0].clone();
    let (l4, payload) = run.headers();
    let more = segments[1..].iter().take_while(|segment| {
        let taken = run.add(&segments[0], segment);
        if taken {
            whole.extend_from_slice(&segment[payload..]);
        }
        taken
    });
    let count = 1 + more.count();
    if count > 1 {
        run.finish(&mut whole[..payload]);
        let again = Super::new(&whole, l4, Proto::TCP, run.size()).expect("it is a super-frame");
        assert_eq!(again.count(), count);
        for (n, segment) in segments[..count].iter().enumerate() {
            let mut out = vec![0; segment.len()];
            assert_eq!(again.write(n, &mut out), Some(segment.len()));
            assert_eq!(out, *segment);
        }
    }
});
