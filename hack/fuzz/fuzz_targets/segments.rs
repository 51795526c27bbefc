//! Super-frames of any bytes: cutting them neither panics nor loses, adds or mixes up a byte of payload, and every segment
//! is one that says the truth of its length.
#![no_main]

use libfuzzer_sys::fuzz_target;
use margay_dataplane::net::Proto;
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
    let (mut out, mut payload) = (vec![0; packet.len()], vec![]);
    for n in 0..cut.count() {
        let len = cut.write(n, &mut out).expect("there is room for any");
        assert!(len <= cut.longest() && len > headers);
        let said = match packet[0] >> 4 {
            4 => usize::from(u16::from_be_bytes([out[2], out[3]])),
            _ => 40 + usize::from(u16::from_be_bytes([out[4], out[5]])),
        };
        assert_eq!(said, len);
        payload.extend_from_slice(&out[headers..len]);
    }
    assert_eq!(cut.write(cut.count(), &mut out), None);
    assert_eq!(payload, packet[headers..]);
});
