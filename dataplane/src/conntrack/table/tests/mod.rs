//! The table as a whole: against its twin, and where it must not be merely equal but right.

mod full;
mod idle;
mod keys;
mod reference;
mod twin;

use super::*;
use crate::conntrack::{Exchange, TcpFlags, TcpSegment, Timeouts};
use crate::net::{Addr, Icmp};

/// A connection in which nothing is said: each end's numbers begin at 0, and its SYN and FIN count.
const fn tcp(flags: u8, seq: u32, ack: u32) -> Segment {
    let flags = TcpFlags(flags);
    Segment::Tcp(TcpSegment { seq, ack, payload: 0, window: 1_000, flags, scale: None })
}

const SYN: Segment = tcp(0x02, 0, 0);
const SYN_ACK: Segment = tcp(0x12, 0, 1);
const ACK: Segment = tcp(0x10, 1, 1);
const FIN_ACK: Segment = tcp(0x11, 1, 1);
const LAST_ACK: Segment = tcp(0x10, 2, 2);
const RST: Segment = tcp(0x04, 1, 0);

const START: Nanos = Nanos::from_secs(1_000_000);

fn at(seconds: u64) -> Nanos {
    START.plus(Nanos::from_secs(seconds))
}

fn table(sessions: u32) -> Table {
    let settings = Settings { sessions, ..Settings::default() };
    Table::new(settings, FlowHasher::new([1, 2, 3, 4])).unwrap()
}

/// The n-th client of one server.
fn key(n: u32, proto: Proto) -> FlowKey {
    FlowKey {
        src: Addr::v4((0x0a41_0000 | n >> 8).to_be_bytes()),
        dst: Addr::v4([10, 65, 255, 1]),
        sport: 1_024 + (n & 0xff) as u16,
        dport: 80,
        proto,
    }
}

fn open_as(
    t: &mut Table,
    key: FlowKey,
    reply_key: FlowKey,
    state: State,
    segment: Segment,
    now: Nanos,
) -> Result<FlowRef, InsertError> {
    let new = session(t, [key, reply_key], state, segment, 10);
    t.insert(new, now)
}

fn session(
    t: &Table,
    [key, reply_key]: [FlowKey; 2],
    state: State,
    segment: Segment,
    way: u32,
) -> NewSession {
    let (hash, reply_hash) = (t.hash(&key), t.hash(&reply_key));
    let (judged, bound) = (Generation(1), Generation(1));
    NewSession { key, hash, reply_key, reply_hash, state, segment, judged, way, bound }
}

fn open(t: &mut Table, key: FlowKey, segment: Segment, now: Nanos) -> Result<FlowRef, InsertError> {
    let Admit::New(state) = t.admit(key.proto, segment) else { panic!("{key} {segment:?} is invalid") };
    open_as(t, key, key.reversed(), state, segment, now)
}

/// By each way that there is, which must all find the same.
fn lookup(t: &Table, key: &FlowKey, now: Nanos) -> Option<FlowRef> {
    let hash = t.hash(key);
    let found = t.lookup(key, hash, now);
    let guess = t.guess(hash).or_else(|| t.guess_again(hash)).unwrap_or(FlowRef(u32::MAX));
    match Key4::of(key) {
        Some(short) => assert_eq!(t.lookup4(short, hash, guess, now), found, "{key}"),
        None => {
            let short = Key6::of(key);
            assert_eq!((t.hash6(&short), t.lookup6(&short, hash, guess, now)), (hash, found), "{key}");
        }
    }
    found
}

fn establish(t: &mut Table, key: FlowKey, now: Nanos) -> FlowRef {
    let flow = open(t, key, SYN, now).unwrap();
    assert_eq!(t.observe(flow.opposite(), SYN_ACK, now), Observed::Ok);
    assert_eq!(t.observe(flow, ACK, now), Observed::Ok);
    flow
}
