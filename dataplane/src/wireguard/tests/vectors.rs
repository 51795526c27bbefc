//! What others computed: whole handshakes, and each primitive.

use super::*;
use crate::wire::wireguard::{Initiation, Response};
use crate::wireguard::cookie::{Macs, Signer};
use crate::wireguard::noise::{Claimed, Initiated, PeerKeys, TransportKeys};
use crate::wireguard::{crypto, session};
use serde_json::Value;

/// Gives what it is told, once.
struct Scripted(Vec<u8>);

impl Random for Scripted {
    fn fill(&mut self, bytes: &mut [u8]) {
        bytes.copy_from_slice(&self.0.drain(..bytes.len()).collect::<Vec<_>>());
    }
}

fn shared(name: &str) -> Option<Value> {
    let path = format!("{}/../../shared/data/wireguard/{name}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path);
    if text.is_err() {
        eprintln!("SKIPPED: {name}: shared data not found");
    }
    text.ok().map(|text| serde_json::from_str(&text).unwrap())
}

fn bytes<const N: usize>(value: &Value) -> [u8; N] {
    hex(value.as_str().unwrap()).try_into().unwrap()
}

/// Transcripts computed from the paper alone, both ends byte for byte: initiation, response, keys, packets, cookies.
#[test]
fn transcripts() {
    let Some(vectors) = shared("wireguard_handshake_kat.json") else { return };
    let cases = vectors["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 8);
    for case in cases {
        let [i, r] = ["static_i_priv", "static_r_priv"].map(|name| KeyPair::new(&bytes(&case[name])));
        assert_eq!(
            [i.public().0, r.public().0],
            [bytes(&case["static_i_pub"]), bytes(&case["static_r_pub"])]
        );
        let preshared = Secret::new(bytes(&case["psk"]));
        let to_r = PeerKeys::new(&i, r.public(), preshared.clone()).unwrap();
        let to_i = PeerKeys::new(&r, i.public(), preshared).unwrap();
        let mut ephemerals = Scripted(
            [hex(case["eph_i_priv"].as_str().unwrap()), hex(case["eph_r_priv"].as_str().unwrap())].concat(),
        );
        let name = |field: &str| u32::from_le_bytes(bytes(&case[field]));
        let timestamp = bytes(&case["timestamp"]);

        let (initiated, initiation) =
            Initiated::new(&i, &to_r, name("index_i"), &timestamp, &mut ephemerals).unwrap();
        let mut signer = Signer::new(&r.public());
        let mut datagram = initiation.emit();
        signer.sign(&mut datagram, Nanos(0));
        assert_eq!(datagram, bytes(&case["initiation"]));
        let mut macs = Macs::new(&r.public());
        assert!(macs.is_for_us(&datagram));

        let claimed = Claimed::read(&r, &parsed::<Initiation>(&datagram)).unwrap();
        assert_eq!(claimed.from, i.public());
        let (proven, at) = claimed.proven(&to_i).unwrap();
        assert_eq!(at, timestamp);
        let (response, theirs) = proven.respond(&to_i, name("index_r"), &mut ephemerals).unwrap();
        let mut answer = response.emit();
        Signer::new(&i.public()).sign(&mut answer, Nanos(0));
        assert_eq!(answer, bytes(&case["response"]));
        let ours = initiated.finish(&i, &to_r, &parsed::<Response>(&answer)).unwrap();
        for (keys, send, receive) in [(&ours, "key_i2r", "key_r2i"), (&theirs, "key_r2i", "key_i2r")] {
            assert_eq!([*keys.send, *keys.receive], [bytes(&case[send]), bytes(&case[receive])]);
        }
        packets(case, &ours, &theirs, [name("index_i"), name("index_r")]);

        let cookie = &case["cookie"];
        let address: [u8; 6] = bytes(&cookie["src_addr_port_be"]);
        let from = SocketAddr::from((
            [address[0], address[1], address[2], address[3]],
            u16::from_be_bytes([address[4], address[5]]),
        ));
        // The nonce is drawn before the first secret.
        let mut random = Scripted(
            [hex(cookie["nonce"].as_str().unwrap()), hex(cookie["secret"].as_str().unwrap())].concat(),
        );
        let reply = macs.reply(&datagram, initiation.sender, from, Nanos(0), &mut random);
        assert_eq!(reply.emit(), bytes(&cookie["reply"]));
        assert!(!macs.has_cookie(&datagram, from, Nanos(0), &mut random));
        assert!(signer.accept(&reply, Nanos(0)));
        let mut again = initiation.emit();
        signer.sign(&mut again, Nanos(0));
        assert_eq!(again, bytes(&cookie["initiation_with_mac2"]));
        assert!(macs.has_cookie(&again, from, Nanos(0), &mut random));
        let elsewhere = SocketAddr::new(from.ip(), from.port() ^ 1);
        assert!(
            !macs.has_cookie(&again, elsewhere, Nanos(0), &mut random),
            "a cookie is for address and port"
        );
    }
}

trait Parsed: Sized {
    fn of(message: Message<'_>) -> Option<Self>;
}

impl Parsed for Initiation {
    fn of(message: Message<'_>) -> Option<Self> {
        if let Message::Initiation(message) = message { Some(message) } else { None }
    }
}

impl Parsed for Response {
    fn of(message: Message<'_>) -> Option<Self> {
        if let Message::Response(message) = message { Some(message) } else { None }
    }
}

fn parsed<M: Parsed>(datagram: &[u8]) -> M {
    M::of(Message::parse(datagram).unwrap()).unwrap()
}

/// Sealed here they are the same, and they open.
fn packets(case: &Value, initiator: &TransportKeys, responder: &TransportKeys, [i, r]: [u32; 2]) {
    let ours = session::Session::new(i, r, true, initiator, Nanos(0));
    let theirs = session::Session::new(r, i, false, responder, Nanos(0));
    let mut batch = Batch::new(Kernel::best());
    for packet in case["transport"].as_array().unwrap() {
        let (from, to) = if packet["dir"] == "i2r" { (&ours, &theirs) } else { (&theirs, &ours) };
        let counter = packet["counter"].as_str().unwrap().parse().unwrap();
        let plain = hex(packet["plaintext"].as_str().unwrap());
        let expected = hex(packet["packet"].as_str().unwrap());
        let mut datagram = vec![0xa5; sealed_len(padded_len(plain.len(), usize::MAX))];
        datagram[TRANSPORT_HEADER..][..plain.len()].copy_from_slice(&plain);
        batch.seal(&mut [from
            .outgoing(counter, plain.len(), padded_len(plain.len(), usize::MAX), &mut datagram)
            .unwrap()]);
        assert_eq!(datagram, expected);
        let mut genuine = [false];
        batch.open(&mut [to.incoming(counter, &mut datagram[TRANSPORT_HEADER..]).unwrap()], &mut genuine);
        assert!(genuine[0]);
        assert_eq!(datagram[TRANSPORT_HEADER..][..plain.len()], plain);
    }
}

#[test]
fn x25519_of_wycheproof() {
    let Some(vectors) = shared("x25519_test.json") else { return };
    let mut count = 0;
    for test in
        vectors["testGroups"].as_array().unwrap().iter().flat_map(|group| group["tests"].as_array().unwrap())
    {
        let shared: [u8; 32] = bytes(&test["shared"]);
        let agreed = KeyPair::new(&bytes(&test["private"])).agree(&PublicKey(bytes(&test["public"])));
        assert_eq!(
            agreed.map(|secret| *secret),
            Some(shared).filter(|shared| *shared != [0; 32]),
            "{}",
            test["tcId"]
        );
        count += 1;
    }
    assert!(count > 500);
}

#[test]
fn xchacha_of_wycheproof() {
    let Some(vectors) = shared("xchacha20_poly1305_test.json") else { return };
    let mut count = 0;
    for group in vectors["testGroups"].as_array().unwrap() {
        if group["ivSize"] != 192 || group["keySize"] != 256 || group["tagSize"] != 128 {
            continue;
        }
        for test in group["tests"].as_array().unwrap() {
            let field = |name: &str| hex(test[name].as_str().unwrap());
            let (key, nonce) = (bytes(&test["key"]), bytes(&test["iv"]));
            let (plain, sealed) = (field("msg"), [field("ct"), field("tag")].concat());
            let mut opened = vec![0; sealed.len() - 16];
            let genuine = crypto::xopen(&key, &nonce, &field("aad"), &sealed, &mut opened);
            assert_eq!(genuine, test["result"] == "valid", "{}", test["tcId"]);
            if genuine {
                assert_eq!(opened, plain);
                let mut again = vec![0; sealed.len()];
                crypto::xseal(&key, &nonce, &field("aad"), &plain, &mut again);
                assert_eq!(again, sealed);
            }
            count += 1;
        }
    }
    assert!(count > 200);
}

#[test]
fn blake2s_of_python() {
    let Some(vectors) = shared("blake2s_kat.json") else { return };
    let mut seen = [0; 2];
    for vector in vectors["vectors"].as_array().unwrap() {
        let [key, data, out] = ["key", "data", "out"].map(|name| hex(vector[name].as_str().unwrap()));
        match (key.len(), out.len()) {
            (0, 32) => assert_eq!(crypto::hash(&data, &[])[..], out),
            (1.., 16) => assert_eq!(crypto::mac(&key, &data)[..], out),
            _ => continue,
        }
        seen[usize::from(key.is_empty())] += 1;
    }
    assert!(seen[0] > 10 && seen[1] > 10, "{seen:?}");
}

#[test]
fn key_derivation_of_wireguard_go() {
    let Some(vectors) = shared("wireguard_go_vectors.json") else { return };
    for vector in vectors["kdf"].as_array().unwrap() {
        let [key, input] = ["key", "input"].map(|name| hex(vector[name].as_str().unwrap()));
        let keys: [Secret; 3] = crypto::kdf(&key, &input);
        assert_eq!(keys.map(|key| *key), ["t0", "t1", "t2"].map(|name| bytes(&vector[name])));
    }
}
