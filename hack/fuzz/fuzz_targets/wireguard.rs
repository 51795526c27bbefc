//! WireGuard's messages: any bytes, and genuine ones that were changed. Nothing is forged, and nothing panics.
#![no_main]

use libfuzzer_sys::fuzz_target;
use margay_dataplane::net::Nanos;
use margay_dataplane::wire::wireguard::{Message, Transport};
use margay_dataplane::wireguard::aead::{Batch, Kernel};
use margay_dataplane::wireguard::{Event, Interface, KeyPair, Moment, PeerSettings, Random, Secret};
use std::net::SocketAddr;
use std::time::Duration;

/// Not random at all: a run is the same each time.
struct Counting(u64);

impl Random for Counting {
    fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            *byte = (self.0 >> 56) as u8;
        }
    }
}

const HERE: ([u8; 4], u16) = ([192, 0, 2, 1], 51_820);
const THERE: ([u8; 4], u16) = ([192, 0, 2, 2], 51_820);

fuzz_target!(|input: &[u8]| {
    let Some((&which, bytes)) = input.split_first() else { return };
    let moment = Moment { now: Nanos::from_secs(1), unix: Duration::from_secs(1_700_000_000) };
    let mut random = Counting(1);
    let [mut ours, mut theirs] = [1, 2].map(|key| Interface::new(KeyPair::new(&[key; 32])));
    for (interface, public, endpoint) in
        [(&mut ours, theirs.public(), THERE), (&mut theirs, KeyPair::new(&[1; 32]).public(), HERE)]
    {
        let settings =
            PeerSettings { public, preshared: Secret::default(), endpoint: Some(endpoint.into()), keepalive: None };
        interface.set_peer(&settings, moment.now).expect("a peer like any other");
    }
    let (us, them): (SocketAddr, SocketAddr) = (HERE.into(), THERE.into());
    if which.is_multiple_of(5) {
        emits_what_it_parses(bytes);
        assert!(ours.receive(bytes, them, moment, &mut random).is_err(), "forged out of nothing");
        return;
    }
    ours.want_session(theirs.public(), moment, &mut random);
    let initiation = sent(&mut ours).remove(0);
    if which % 5 == 1 {
        let changed = changed(&initiation, bytes);
        let taken = theirs.receive(&changed, us, moment, &mut random).is_ok();
        // Without load nobody looks at the second code.
        assert_eq!(taken, changed[..132] == initiation[..132]);
        return;
    }
    if which % 5 == 2 {
        // Under load: it has come too often.
        for _ in 0..1_001 {
            let _ = theirs.receive(&initiation, us, moment, &mut random);
        }
        let cookie = sent(&mut theirs).pop().expect("load is answered by a cookie");
        let changed = changed(&cookie, bytes);
        let taken = ours.receive(&changed, them, moment, &mut random).is_ok();
        assert_eq!(taken, changed == cookie);
        return;
    }
    theirs.receive(&initiation, us, moment, &mut random).expect("it is genuine");
    let response = sent(&mut theirs).remove(0);
    if which % 5 == 3 {
        let changed = changed(&response, bytes);
        let taken = ours.receive(&changed, them, moment, &mut random).is_ok();
        assert_eq!(taken, changed[..76] == response[..76]);
        return;
    }
    ours.receive(&response, them, moment, &mut random).expect("it is genuine");
    // A packet of the session, changed.
    let session = ours.current(theirs.public(), moment.now).expect("the handshake is done").clone();
    let mut datagram = [0; 16 + 64 + 16];
    let mut batch = Batch::new(Kernel::best());
    batch.seal(&mut [session.outgoing(0, 60, 64, &mut datagram).expect("there is room")]);
    let changed = changed(&datagram, bytes);
    let Ok(Message::Transport(Transport { receiver, counter, packet })) = Message::parse(&changed) else { return };
    let Some(session) = theirs.session(receiver) else { return };
    let mut genuine = [false];
    batch.open(&mut [session.incoming(counter, &mut packet.to_vec()).expect("it has a tag")], &mut genuine);
    assert_eq!(genuine[0], changed == datagram);
});

/// `message` with the bytes of `changes` mixed in from where their first says.
fn changed(message: &[u8], changes: &[u8]) -> Vec<u8> {
    let mut changed = message.to_vec();
    if let Some((&from, changes)) = changes.split_first() {
        for (byte, change) in changed.iter_mut().skip(from.into()).zip(changes) {
            *byte ^= change;
        }
    }
    changed
}

fn sent(interface: &mut Interface) -> Vec<Vec<u8>> {
    let message = |event| if let Event::Send { message, .. } = event { Some(message) } else { None };
    interface.events().filter_map(message).collect()
}

fn emits_what_it_parses(bytes: &[u8]) {
    let Ok(message) = Message::parse(bytes) else { return };
    let emitted = match message {
        Message::Initiation(initiation) => initiation.emit().to_vec(),
        Message::Response(response) => response.emit().to_vec(),
        Message::CookieReply(reply) => reply.emit().to_vec(),
        Message::Transport(Transport { receiver, counter, packet }) => {
            [&Transport::header(receiver, counter)[..], packet].concat()
        }
    };
    assert_eq!(emitted, bytes);
}
