use super::{BATCH, Batch, Kernel, Key, MAX_TEXT, Packet, TAG, reference};
use crate::wireguard::tests::{Seeded, hex};
use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

/// One message, sealed by the library: nonce, encrypted text and tag.
struct Sealed {
    key: usize,
    nonce: [u8; 12],
    plain: Vec<u8>,
    bytes: Vec<u8>,
}

/// Of keys of its own, and never by the code under test.
struct Keys(Vec<(Key, LessSafeKey)>);

impl Keys {
    fn new(keys: impl IntoIterator<Item = [u8; 32]>) -> Self {
        let library = |key: &[u8; 32]| LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key).unwrap());
        Self(keys.into_iter().map(|key| (Key::new(&key), library(&key))).collect())
    }

    fn sealed(&self, key: usize, nonce: [u8; 12], plain: Vec<u8>) -> Sealed {
        let mut bytes = plain.clone();
        let nonce_of = Nonce::assume_unique_for_key(nonce);
        self.0[key].1.seal_in_place_append_tag(nonce_of, Aad::empty(), &mut bytes).unwrap();
        Sealed { key, nonce, plain, bytes }
    }

    fn packet<'a>(&'a self, message: &Sealed, bytes: &'a mut [u8]) -> Packet<'a> {
        Packet::with_nonce(&self.0[message.key].0, message.nonce, bytes).unwrap()
    }
}

/// Seals all at once by each kernel, and by the reference, and compares.
fn seals_all(keys: &Keys, messages: &[Sealed], what: &str) {
    let unsealed = |message: &Sealed| [&message.plain[..], &[0xa5; TAG]].concat();
    for kernel in Kernel::all() {
        let mut bytes: Vec<_> = messages.iter().map(unsealed).collect();
        let packets = messages.iter().zip(&mut bytes).map(|(message, bytes)| keys.packet(message, bytes));
        Batch::new(kernel).seal(&mut packets.collect::<Vec<_>>());
        for (at, (message, bytes)) in messages.iter().zip(&bytes).enumerate() {
            assert_eq!(*bytes, message.bytes, "{what}, {}: message {at}", kernel.name());
        }
    }
    for message in messages {
        let mut bytes = unsealed(message);
        reference::seal(&mut keys.packet(message, &mut bytes));
        assert_eq!(bytes, message.bytes, "{what}, reference");
    }
}

/// Opens all at once by each kernel, and by the reference: of genuine ones the plain text comes out.
fn opens_all(keys: &Keys, messages: &[(Sealed, bool)], what: &str) {
    for kernel in Kernel::all() {
        let mut bytes: Vec<_> = messages.iter().map(|(message, _)| message.bytes.clone()).collect();
        let packets =
            messages.iter().zip(&mut bytes).map(|((message, _), bytes)| keys.packet(message, bytes));
        let mut genuine = vec![false; messages.len()];
        Batch::new(kernel).open(&mut packets.collect::<Vec<_>>(), &mut genuine);
        for (at, ((message, expected), bytes)) in messages.iter().zip(&bytes).enumerate() {
            assert_eq!(genuine[at], *expected, "{what}, {}: message {at}", kernel.name());
            if *expected {
                assert_eq!(
                    bytes[..message.plain.len()],
                    message.plain,
                    "{what}, {}: message {at}",
                    kernel.name()
                );
            }
        }
    }
    for (message, expected) in messages {
        let mut bytes = message.bytes.clone();
        assert_eq!(reference::open(&mut keys.packet(message, &mut bytes)), *expected, "{what}, reference");
    }
}

#[test]
fn the_example_of_the_rfc() {
    // RFC 8439 §2.4.2: the stream begins with block 1, as it does here.
    let key = std::array::from_fn(|at| at as u8);
    let text = b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would be it.";
    let encrypted = hex("6e2e359a2568f98041ba0728dd0d6981e97e7aec1d4360c20a27afccfd9fae0b
        f91b65c5524733ab8f593dabcd62b3571639d624e65152ab8f530c359f0861d8
        07ca0dbf500d6a6156a38e088a22b65e52bc514d16ccf806818ce91ab7793736
        5af90bbf74a35be6b40b8eedf2785e42874d");
    let mut nonce = [0; 12];
    nonce[7] = 0x4a;
    let keys = Keys::new([key]);
    for kernel in Kernel::all() {
        let mut bytes = vec![[&text[..], &[0; TAG]].concat(); 16];
        let packets = bytes.iter_mut().map(|bytes| Packet::with_nonce(&keys.0[0].0, nonce, bytes).unwrap());
        Batch::new(kernel).seal(&mut packets.collect::<Vec<_>>());
        assert!(bytes.iter().all(|bytes| bytes[..text.len()] == encrypted), "{}", kernel.name());
    }
    seals_all(&keys, &[keys.sealed(0, nonce, text.to_vec())], "RFC 8439 §2.4.2");
}

#[test]
fn wycheproof() {
    let path =
        concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data/wireguard/chacha20_poly1305_test.json");
    let Ok(text) = std::fs::read_to_string(path) else {
        eprintln!("SKIPPED: wycheproof: shared data not found");
        return;
    };
    let vectors: serde_json::Value = serde_json::from_str(&text).unwrap();
    let mut messages = vec![];
    let mut keys = vec![];
    for group in vectors["testGroups"].as_array().unwrap() {
        for test in group["tests"].as_array().unwrap() {
            let field = |name: &str| hex(test[name].as_str().unwrap());
            let (Ok(nonce), Ok(key), []) =
                (field("iv").try_into(), field("key").try_into(), &field("aad")[..])
            else {
                continue;
            };
            let bytes = [field("ct"), field("tag")].concat();
            messages.push((
                Sealed { key: keys.len(), nonce, plain: field("msg"), bytes },
                test["result"] == "valid",
            ));
            keys.push(key);
        }
    }
    assert!(messages.len() >= 45, "{} messages", messages.len());
    let keys = Keys::new(keys);
    opens_all(&keys, &messages, "Wycheproof");
    let valid: Vec<_> =
        messages.into_iter().filter(|(_, valid)| *valid).map(|(message, _)| message).collect();
    seals_all(&keys, &valid, "Wycheproof");
}

/// Every length to well beyond two blocks, alone in its group and beside longer ones.
#[test]
fn every_length() {
    let mut random = Seeded(1);
    let keys = Keys::new((0..4).map(|_| random.bytes()));
    let mut message =
        |len: usize| keys.sealed(len % 4, random.bytes(), (0..len).map(|_| random.bits() as u8).collect());
    let each: Vec<_> = (0..300).map(&mut message).collect();
    seals_all(&keys, &each, "each length");
    for len in (0..200).step_by(3) {
        let alike: Vec<_> = (0..16).map(|_| message(len)).collect();
        seals_all(&keys, &alike, "one length");
    }
    for count in 1..40 {
        let few: Vec<_> = (0..count).map(|at| message(97 * at % 500)).collect();
        seals_all(&keys, &few, "so many");
    }
    seals_all(
        &keys,
        &[message(MAX_TEXT), message(0), message(9_000), message(64), message(1)],
        "the longest",
    );
}

/// What the limbs of a sum carry: texts that are all ones or zeros once encrypted.
#[test]
fn extreme_sums() {
    let mut random = Seeded(2);
    let keys = Keys::new((0..8).map(|_| random.bytes()));
    let patterns: [fn(usize) -> u8; 6] = [
        |_| 0xff,
        |_| 0,
        |at| if at % 16 == 15 { 0xff } else { 0 },
        |at| if at % 16 < 8 { 0xff } else { 0xfe },
        |at| if at % 16 == 0 { 0xfb } else { 0xff },
        |at| if at / 16 % 2 == 0 { 0xff } else { 0 },
    ];
    let mut messages = vec![];
    for at in 0..600 {
        let len = if at < 300 { 16 * (at % 30) } else { random.index(500) };
        let (key, nonce) = (random.index(8), random.bytes());
        // Sealing is its own inverse but for the tag.
        let encrypted: Vec<_> = (0..len).map(patterns[at % patterns.len()]).collect();
        let plain = keys.sealed(key, nonce, encrypted).bytes[..len].to_vec();
        messages.push((keys.sealed(key, nonce, plain), true));
    }
    opens_all(&keys, &messages, "extreme sums");
}

/// Batches of any size, lengths and keys; of some packets a bit is turned. With `AEAD_BATCHES=1000000`
/// that many, for some hours.
#[test]
fn random_batches_with_forgeries() {
    let batches = std::env::var("AEAD_BATCHES").map_or(300, |count| count.parse().unwrap());
    let mut random = Seeded(3);
    for batch in 0..batches {
        let keys = Keys::new((0..=random.index(20)).map(|_| random.bytes()));
        let most = [65, 300, 1_500, 100][random.index(4)];
        let alike = random.index(3) == 0;
        let len = random.index(most);
        let count = if random.index(50) == 0 { BATCH + random.index(40) } else { 1 + random.index(40) };
        let messages: Vec<_> = (0..count)
            .map(|_| {
                let len = if alike { len } else { random.index(most) };
                let plain = (0..len).map(|_| random.bits() as u8).collect();
                keys.sealed(random.index(keys.0.len()), random.bytes(), plain)
            })
            .collect();
        seals_all(&keys, &messages, &format!("batch {batch}"));
        let rate = [0, 1, 10, 100][random.index(4)];
        let forged = messages.into_iter().map(|mut message| {
            let forge = random.index(100) < rate;
            if forge {
                let at = random.index(message.bytes.len());
                message.bytes[at] ^= 1 << random.index(8);
            }
            (message, !forge)
        });
        opens_all(&keys, &forged.collect::<Vec<_>>(), &format!("batch {batch}"));
    }
}

#[test]
fn bytes_without_room_for_a_tag_are_no_packet() {
    let key = Key::new(&[7; 32]);
    assert!(Packet::new(&key, 0, &mut [0; TAG - 1]).is_err());
    assert!(Packet::new(&key, 0, &mut [0; TAG]).is_ok());
    let mut long = vec![0; MAX_TEXT + TAG + 1];
    assert!(Packet::new(&key, 0, &mut long).is_err());
}

#[test]
fn a_key_does_not_show_itself() {
    assert_eq!(format!("{:?}", Key::new(&[7; 32])), "Key");
}
