//! AF_XDP and tap devices against the real kernel. Needs root.

mod namespace;

use margay_dataplane::io::af_xdp::ifreq::Interface;
use margay_dataplane::io::af_xdp::{
    AfXdp, Attachment, OpenError, Options, Ours, Program, ProgramError, RingSizes, Role,
};
use margay_dataplane::io::{Device, tap::Tap};
use margay_dataplane::net::{Mac, Nanos, Proto};
use margay_dataplane::packet::{Frames, L4Checksum, Pool, VECTOR, Vector};
use namespace::{PATIENCE, in_namespace, ip};
use nix::poll::{PollFd, PollFlags, PollTimeout};
use std::net::UdpSocket;
use std::sync::Arc;
use std::time::{Duration, Instant};

#[test]
fn every_frame_is_forwarded_between_two_interfaces() {
    in_namespace(|| forward_between_two_interfaces(1, false));
}

#[test]
fn every_frame_is_forwarded_on_four_queues() {
    in_namespace(|| forward_between_two_interfaces(4, false));
}

#[test]
fn every_frame_is_forwarded_with_the_program_in_the_stack() {
    in_namespace(|| forward_between_two_interfaces(1, true));
}

/// left1 ─ left0 ─ (forwarder) ─ right0 ─ right1, with a device at each of the four ends. The
/// forwarder puts a VLAN tag into every frame, so each leaves from another start than it came at.
fn forward_between_two_interfaces(queues: u32, generic: bool) {
    const PER_QUEUE: usize = 3000;
    const IN_FLIGHT: usize = 200;
    quiet();
    veth("left", queues);
    veth("right", queues);
    let mut memory = Memory::new(16384);
    let open = |name: &str| {
        let program = Program::attach(name, Role::Workload, generic).unwrap();
        let expected = if generic { Attachment::Generic } else { Attachment::Native };
        assert_eq!(program.attachment(), expected);
        assert_eq!(program.queues(), queues);
        (0..queues).map(|queue| memory.open(&program, queue)).collect::<Vec<_>>()
    };
    let (mut source, mut near) = (open("left1"), open("left0"));
    let (mut far, mut sink) = (open("right0"), open("right1"));
    let pool = &mut memory.pool;
    for device in [&mut source, &mut near, &mut far, &mut sink].into_iter().flatten() {
        device.settle(pool);
    }

    let mut sent = vec![0; queues as usize];
    let mut seen = vec![vec![false; PER_QUEUE]; queues as usize];
    let mut arrived = 0;
    let mut vector = Vector::default();
    let deadline = Deadline::new();
    while arrived < PER_QUEUE * queues as usize {
        deadline.check(&format!("{arrived} frames arrived"));
        for queue in 0..queues as usize {
            let done = seen[queue].iter().filter(|seen| **seen).count();
            while sent[queue] < PER_QUEUE && sent[queue] - done < IN_FLIGHT && vector.room() > 0 {
                let mut frame = ethernet(Mac::BROADCAST, 0x88b5);
                frame.extend([queue as u8, 0]);
                frame.extend((sent[queue] as u32).to_be_bytes());
                frame.resize(60, 0);
                push(pool, &mut vector, &frame);
                sent[queue] += 1;
            }
            source[queue].transmit(pool, &mut vector, Nanos(0));
            assert!(vector.is_empty());
            source[queue].settle(pool);

            near[queue].receive(pool, &mut vector, VECTOR, Nanos(0));
            for position in 0..vector.len() {
                let mut packet = pool.nth(&mut vector, position);
                assert_eq!(packet.meta.checksum, L4Checksum::MaybePartial);
                packet.meta.l3 = packet.meta.data + 14;
                let header = [&packet.bytes()[..12], &[0x81, 0, 0, 7], &packet.bytes()[12..14]].concat();
                assert!(packet.set_link_header(&header));
            }
            far[queue].transmit(pool, &mut vector, Nanos(0));
            assert!(vector.is_empty());
            far[queue].settle(pool);
            near[queue].settle(pool);

            sink[queue].receive(pool, &mut vector, VECTOR, Nanos(0));
            for position in 0..vector.len() {
                let packet = pool.nth(&mut vector, position);
                let bytes = packet.bytes();
                assert_eq!(bytes.len(), 64);
                assert_eq!(bytes[12..18], [0x81, 0, 0, 7, 0x88, 0xb5]);
                assert_eq!(usize::from(bytes[18]), queue, "the queue stays");
                let number = u32::from_be_bytes(bytes[20..24].try_into().unwrap()) as usize;
                assert!(!std::mem::replace(&mut seen[queue][number], true), "{number} came twice");
                arrived += 1;
            }
            pool.free_all(&mut vector);
            sink[queue].settle(pool);
        }
    }
    for (devices, rx, tx) in [(&source, 0, 1), (&near, 1, 0), (&far, 0, 1), (&sink, 1, 0)] {
        for device in devices {
            let counters = device.counters();
            assert_eq!(counters.rx_packets, rx * PER_QUEUE as u64);
            assert_eq!(counters.tx_packets, tx * PER_QUEUE as u64);
            assert_eq!(counters.kernel, Default::default());
        }
    }
    memory.close(source.into_iter().chain(near).chain(far).chain(sink));
}

#[test]
fn a_queue_grows_with_bursts_and_what_it_loses_is_counted() {
    const BURST: usize = 200;
    in_namespace(|| {
        quiet();
        veth("left", 1);
        let mut memory = Memory::new(4096);
        let [near, far] =
            ["left0", "left1"].map(|name| Program::attach(name, Role::Workload, false).unwrap());
        let mut source = memory.open(&near, 0);
        let rings = RingSizes { rx: 1024, tx: 64 };
        let options = Options { rings, frames: 64, ..Options::default() };
        let mut sink = AfXdp::open(&far, 0, &memory.frames, &options).unwrap();
        let pool = &mut memory.pool;
        source.settle(pool);
        sink.settle(pool);
        let mut vector = Vector::default();
        let (mut received, mut lost) = (0, 0);
        for fits in [64, 128, BURST, BURST] {
            let before = (received, received + lost);
            let frame = ethernet(Mac::BROADCAST, 0x88b5);
            send(pool, &mut source, &[&frame[..]; BURST]);
            settled(pool, &mut source);
            // The worker has not looked: nothing is given to the kernel meanwhile.
            let deadline = Deadline::new();
            while received + lost < before.1 + BURST {
                deadline.check(&format!("{received} received and {lost} lost"));
                received += sink.receive(pool, &mut vector, VECTOR, Nanos(0));
                pool.free_all(&mut vector);
                lost = sink.counters().kernel.lost() as usize;
            }
            assert_eq!((received, received + lost), (before.0 + fits, before.1 + BURST));
            sink.settle(pool);
        }
        memory.close([source, sink]);
    });
}

#[test]
fn opening_and_closing_under_traffic_leaks_no_frame() {
    in_namespace(|| {
        quiet();
        veth("left", 1);
        let mut memory = Memory::new(4096);
        for round in 0..6 {
            let [mut a, mut b] = ["left0", "left1"]
                .map(|name| memory.open(&Program::attach(name, Role::Workload, false).unwrap(), 0));
            let mut vector = Vector::default();
            a.settle(&mut memory.pool);
            b.settle(&mut memory.pool);
            let deadline = Deadline::new();
            let mut received = Vector::default();
            // Some rounds end with packets in the rings, in either direction.
            while received.is_empty() {
                deadline.check("a frame arrives");
                for _ in 0..100 {
                    push(&mut memory.pool, &mut vector, &[round; 60]);
                }
                a.transmit(&mut memory.pool, &mut vector, Nanos(0));
                memory.pool.free_all(&mut vector);
                if round % 2 == 0 {
                    a.settle(&mut memory.pool);
                    b.receive(&mut memory.pool, &mut received, 10, Nanos(0));
                } else {
                    break;
                }
            }
            memory.pool.free_all(&mut received);
            assert!(a.lent() > 0 && b.lent() > 0);
            memory.close([a, b]);
        }
    });
}

#[test]
fn an_interface_that_goes_away_leaves_the_others_working() {
    in_namespace(|| {
        quiet();
        veth("left", 1);
        veth("right", 1);
        let mut memory = Memory::new(4096);
        // The first one opened is the one to go.
        let mut devices = ["left0", "right0", "right1"]
            .map(|name| memory.open(&Program::attach(name, Role::Workload, false).unwrap(), 0));
        for device in &mut devices {
            device.settle(&mut memory.pool);
        }
        ip("link del left0");
        let [gone, mut from, mut to] = devices;
        assert!(gone.lent() > 0);
        let held = memory.frames.in_depot();
        let lent = gone.lent();
        drop(gone);
        assert_eq!(memory.frames.in_depot(), held + lent);
        send(&mut memory.pool, &mut from, &[&[7; 60]]);
        assert_eq!(receive(&mut memory.pool, &mut [&mut to, &mut from], |_| true, 1), [vec![7; 60]]);
        memory.close([from, to]);
    });
}

#[test]
fn an_uplink_gives_us_only_what_is_ours() {
    in_namespace(|| {
        quiet();
        veth("up", 1);
        ip("addr add 10.9.0.1/24 dev up0");
        let host = Interface::named("up0").unwrap().mac().unwrap();
        let mut memory = Memory::new(4096);
        let program = Program::attach("up0", Role::Uplink, false).unwrap();
        program.set_ours(&to_prefixes(&["10.64.0.0/16", "10.65.0.0/16", "fd65::/64"])).unwrap();
        let mut ours = memory.open(&program, 0);
        let mut wire = memory.open(&Program::attach("up1", Role::Workload, false).unwrap(), 0);
        ours.settle(&mut memory.pool);
        wire.settle(&mut memory.pool);
        let stack = UdpSocket::bind("10.9.0.1:9000").unwrap();
        stack.set_read_timeout(Some(PATIENCE)).unwrap();

        let mine = [
            tagged(host, &[], &udp4([10, 65, 1, 2], b"v4")),
            tagged(host, &[], &udp6("fd65::7", b"v6")),
            tagged(host, &[(0x8100, 5)], &udp4([10, 65, 255, 255], b"tag")),
            tagged(host, &[(0x88a8, 5), (0x8100, 6)], &udp6("fd65::8", b"two tags")),
        ];
        let not_mine = [
            tagged(host, &[], &udp4([10, 66, 0, 0], b"")),
            tagged(host, &[], &udp6("fd65:0:0:1::", b"")),
            tagged(host, &[(0x8100, 1), (0x8100, 2), (0x8100, 3)], &udp4([10, 65, 1, 2], b"")),
            tagged(host, &[], &udp4([10, 65, 1, 2], b"cut"))[..33].to_vec(),
            tagged(host, &[], &udp6("fd65::7", b"cut"))[..53].to_vec(),
        ];
        let mut arp = ethernet(Mac::BROADCAST, 0x0806);
        arp.extend([0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 9, 10, 9, 0, 9, 0, 0, 0, 0, 0, 0, 10, 9, 0, 1]);
        let to_host = tagged(host, &[], &udp4([10, 9, 0, 1], b"for the host"));
        let frames: Vec<&[u8]> =
            not_mine.iter().chain(&mine).chain([&arp, &to_host]).map(Vec::as_slice).collect();
        send(&mut memory.pool, &mut wire, &frames);

        let got = receive(&mut memory.pool, &mut [&mut ours, &mut wire], |_| true, mine.len());
        assert_eq!(got, mine);
        // What came last has arrived, so all before it has, and none more of it is ours.
        assert_eq!(datagram(&stack), b"for the host");
        assert_eq!(ours.counters().rx_packets, mine.len() as u64);
        let is_reply = |frame: &[u8]| frame[12..14] == [8, 6] && frame[21] == 2;
        let replies = receive(&mut memory.pool, &mut [&mut wire, &mut ours], is_reply, 1);
        assert_eq!(replies[0][28..32], [10, 9, 0, 1], "the kernel answered ARP");

        program.set_ours(&to_prefixes(&["10.64.0.0/16", "10.66.0.0/16"])).unwrap();
        send(&mut memory.pool, &mut wire, &[&mine[0], &mine[1], &not_mine[0], &to_host]);
        assert_eq!(
            receive(&mut memory.pool, &mut [&mut ours, &mut wire], |_| true, 1),
            [not_mine[0].clone()]
        );
        assert_eq!(datagram(&stack), b"for the host");
        assert_eq!(ours.counters().rx_packets, mine.len() as u64 + 1);

        // A service at the host's address: its port, and no other.
        let socket = |proto, port| ("10.9.0.1".parse().unwrap(), proto, port);
        let at = |sockets: [_; 2]| Ours { sockets: sockets.into(), ..Ours::default() };
        program.set_ours(&at([socket(Proto::UDP, 9000), socket(Proto::TCP, 9001)])).unwrap();
        send(&mut memory.pool, &mut wire, &[&mine[0], &to_host]);
        assert_eq!(
            receive(&mut memory.pool, &mut [&mut ours, &mut wire], |_| true, 1),
            std::slice::from_ref(&to_host)
        );
        program.set_ours(&at([socket(Proto::TCP, 9000), socket(Proto::UDP, 9001)])).unwrap();
        send(&mut memory.pool, &mut wire, &[&to_host]);
        assert_eq!(datagram(&stack), b"for the host");
        memory.close([ours, wire]);
    });
}

#[test]
fn without_a_socket_workload_traffic_is_dropped_and_without_the_program_all_is_the_kernels() {
    in_namespace(|| {
        quiet();
        veth("up", 1);
        ip("addr add 10.9.0.1/24 dev up0");
        let host = Interface::named("up0").unwrap().mac().unwrap();
        let mut memory = Memory::new(1024);
        let mut wire = memory.open(&Program::attach("up1", Role::Workload, false).unwrap(), 0);
        wire.settle(&mut memory.pool);
        let stack = UdpSocket::bind("10.9.0.1:9000").unwrap();
        stack.set_read_timeout(Some(PATIENCE)).unwrap();
        let to_host = |text| tagged(host, &[], &udp4([10, 9, 0, 1], text));

        let uplink = Program::attach("up0", Role::Uplink, false).unwrap();
        uplink.set_ours(&to_prefixes(&["10.9.0.1/32"])).unwrap();
        send(&mut memory.pool, &mut wire, &[&to_host(b"ours: dropped")]);
        settled(&mut memory.pool, &mut wire);
        uplink.set_ours(&Ours::default()).unwrap();
        send(&mut memory.pool, &mut wire, &[&to_host(b"the host's")]);
        assert_eq!(datagram(&stack), b"the host's");
        drop(uplink);

        let workload = Program::attach("up0", Role::Workload, false).unwrap();
        send(&mut memory.pool, &mut wire, &[&to_host(b"a workload's: dropped")]);
        settled(&mut memory.pool, &mut wire);
        drop(workload);
        send(&mut memory.pool, &mut wire, &[&to_host(b"no program")]);
        assert_eq!(datagram(&stack), b"no program");
        memory.close([wire]);
    });
}

#[test]
fn what_cannot_be_had_is_refused_with_the_remedy() {
    in_namespace(|| {
        quiet();
        veth("left", 1);
        let memory = Memory::new(1024);
        let open = |program: &Arc<Program>, queue, options: Options| {
            AfXdp::open(program, queue, &memory.frames, &options).err().map(|e| (e.to_string(), e))
        };
        assert!(matches!(
            Program::attach("nowhere", Role::Uplink, false),
            Err(ProgramError::Interface { .. })
        ));
        let program = Program::attach("left0", Role::Workload, false).unwrap();
        assert!(matches!(Program::attach("left0", Role::Workload, false), Err(ProgramError::Taken { .. })));

        let (text, error) =
            open(&program, 0, Options { require_zerocopy: true, ..Options::default() }).unwrap();
        assert!(matches!(error, OpenError::NoZerocopy { .. }), "{text}");
        assert!(text.contains("left0") && text.contains("--require-zerocopy"), "{text}");
        let (text, error) = open(&program, 1, Options::default()).unwrap();
        assert!(matches!(error, OpenError::Queue { queue: 1, queues: 1, .. }), "{text}");
        let rings = RingSizes { rx: 100, tx: 64 };
        let (text, error) = open(&program, 0, Options { rings, ..Options::default() }).unwrap();
        assert!(matches!(error, OpenError::RingSize(100)), "{text}");

        ip("link set left0 mtu 1771");
        let (text, error) = open(&program, 0, Options::default()).unwrap();
        assert!(matches!(error, OpenError::Mtu { mtu: 1771, fits: 1770, .. }), "{text}");
        ip("link set left0 mtu 1770");
        let _holder = memory.open(&program, 0);
        let (text, error) = open(&program, 0, Options::default()).unwrap();
        assert!(matches!(error, OpenError::Busy { queue: 0, .. }), "{text}");
    });
}

#[test]
fn a_tap_carries_packets_both_ways() {
    in_namespace(|| {
        quiet();
        let mut memory = Memory::new(256);
        let mac = Mac([2, 0, 0, 0, 0, 0x77]);
        let mut tap = Tap::open("margay0", &memory.frames).unwrap();
        tap.set_mac(mac).unwrap();
        assert_eq!(tap.mac().unwrap(), mac);
        ip("addr add 10.9.0.1/24 dev margay0");
        ip("neigh add 10.9.0.2 lladdr 02:00:00:00:00:09 dev margay0");
        let stack = UdpSocket::bind("10.9.0.1:9000").unwrap();
        stack.set_read_timeout(Some(PATIENCE)).unwrap();

        send(&mut memory.pool, &mut tap, &[&tagged(mac, &[], &udp4([10, 9, 0, 1], b"inwards"))]);
        assert_eq!(datagram(&stack), b"inwards");
        stack.send_to(b"outwards", "10.9.0.2:9").unwrap();
        let got = receive(&mut memory.pool, &mut [&mut tap], |frame| frame[12..14] == [8, 0], 1);
        assert!(got[0].ends_with(b"outwards"));
        assert_eq!(got[0][..6], [2, 0, 0, 0, 0, 9]);
        assert_eq!(tap.counters().tx_packets, 1);
        memory.close([tap]);
    });
}

/// Fails a test that waits for too long.
struct Deadline(Instant);

impl Deadline {
    fn new() -> Self {
        Self(Instant::now() + PATIENCE)
    }

    fn check(&self, what: &str) {
        assert!(Instant::now() < self.0, "waited in vain: {what}");
    }
}

/// Keeps the kernel from speaking IPv6 by itself, so that frames can be counted.
fn quiet() {
    for which in ["all", "default"] {
        let path = format!("/proc/sys/net/ipv6/conf/{which}/disable_ipv6");
        std::fs::write(path, "1").unwrap();
    }
}

/// A pair of interfaces, `name`0 and `name`1, both up.
fn veth(name: &str, queues: u32) {
    let queues = format!("numtxqueues {queues} numrxqueues {queues}");
    ip(&format!("link add {name}0 {queues} type veth peer name {name}1 {queues}"));
    ip(&format!("link set {name}0 up"));
    ip(&format!("link set {name}1 up"));
}

/// Packet memory and one pool of it.
struct Memory {
    frames: Arc<Frames>,
    pool: Pool,
}

impl Memory {
    fn new(count: u32) -> Self {
        let frames = Frames::new(count, 2048, false).unwrap();
        let pool = Pool::new(frames.clone(), 512);
        Self { frames, pool }
    }

    fn open(&self, program: &Arc<Program>, queue: u32) -> AfXdp {
        let options = Options { rings: RingSizes { rx: 256, tx: 256 }, ..Options::default() };
        let device = AfXdp::open(program, queue, &self.frames, &options).unwrap();
        assert!(!device.granted().zerocopy, "a veth has none");
        device
    }

    /// Closes the devices as a worker and control do, after which no frame may be missing.
    fn close<D: Device>(&mut self, devices: impl IntoIterator<Item = D>) {
        for mut device in devices {
            device.close(&mut self.pool);
        }
        assert_eq!(self.pool.held() + self.frames.in_depot(), self.frames.count() as usize);
    }
}

fn push(pool: &mut Pool, vector: &mut Vector, bytes: &[u8]) {
    let mut idx = pool.alloc().expect("a free frame");
    assert!(pool.get(&mut idx).fill(bytes));
    vector.push(idx);
}

fn send(pool: &mut Pool, device: &mut impl Device, frames: &[&[u8]]) {
    let mut vector = Vector::default();
    for frame in frames {
        push(pool, &mut vector, frame);
    }
    device.transmit(pool, &mut vector, Nanos(0));
    assert!(vector.is_empty(), "the device took all");
    device.settle(pool);
}

/// Polls until the kernel has given back all frames that were to be sent.
fn settled(pool: &mut Pool, device: &mut AfXdp) {
    let deadline = Deadline::new();
    while device.sending() > 0 {
        deadline.check("all is sent");
        device.settle(pool);
    }
}

/// Receives from the first of `devices`, settling all, until `count` frames were `wanted`.
fn receive<D: Device>(
    pool: &mut Pool,
    devices: &mut [&mut D],
    wanted: impl Fn(&[u8]) -> bool,
    count: usize,
) -> Vec<Vec<u8>> {
    let mut got = Vec::new();
    let mut vector = Vector::default();
    let deadline = Deadline::new();
    while got.len() < count {
        deadline.check(&format!("{count} frames; so far {got:x?}"));
        for device in devices.iter_mut() {
            device.settle(pool);
        }
        devices[0].receive(pool, &mut vector, VECTOR, Nanos(0));
        for position in 0..vector.len() {
            let frame = pool.nth(&mut vector, position).bytes().to_vec();
            if wanted(&frame) {
                got.push(frame);
            }
        }
        pool.free_all(&mut vector);
        readable(&*devices[0], Duration::from_millis(10));
    }
    got
}

/// Waits until the device has something to receive, or for `at_most`.
fn readable(device: &impl Device, at_most: Duration) {
    let fd = device.wait_fd().expect("can be waited for");
    let timeout = PollTimeout::try_from(at_most).unwrap();
    nix::poll::poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], timeout).unwrap();
}

fn datagram(socket: &UdpSocket) -> Vec<u8> {
    let mut buffer = [0; 64];
    let len = socket.recv(&mut buffer).expect("a datagram in time");
    buffer[..len].to_vec()
}

fn to_prefixes(prefixes: &[&str]) -> Ours {
    Ours { prefixes: prefixes.iter().map(|prefix| prefix.parse().unwrap()).collect(), ..Ours::default() }
}

fn ethernet(to: Mac, ether_type: u16) -> Vec<u8> {
    [&to.0[..], &[2, 0, 0, 0, 0, 9], &ether_type.to_be_bytes()].concat()
}

/// An Ethernet frame with VLAN tags (type, id) around an IP packet.
fn tagged(to: Mac, tags: &[(u16, u16)], ip: &[u8]) -> Vec<u8> {
    let ether_type: u16 = if ip[0] >> 4 == 4 { 0x0800 } else { 0x86dd };
    let mut frame = ethernet(to, ether_type);
    frame.truncate(12);
    for (tag_type, id) in tags {
        frame.extend(tag_type.to_be_bytes());
        frame.extend(id.to_be_bytes());
    }
    frame.extend(ether_type.to_be_bytes());
    frame.extend(ip);
    frame
}

/// A UDP datagram from 10.9.0.9 to port 9000, without UDP checksum.
fn udp4(to: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let len = 28 + payload.len() as u16;
    let mut packet = vec![0x45, 0];
    packet.extend(len.to_be_bytes());
    packet.extend([0, 0, 0, 0, 64, 17, 0, 0, 10, 9, 0, 9]);
    packet.extend(to);
    let sum: u32 = packet.chunks(2).map(|c| u32::from(u16::from_be_bytes([c[0], c[1]]))).sum();
    let checksum = !((sum & 0xffff) + (sum >> 16)) as u16;
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    packet.extend([0x23, 0x28, 0x23, 0x28]);
    packet.extend((8 + payload.len() as u16).to_be_bytes());
    packet.extend([0, 0]);
    packet.extend(payload);
    packet
}

/// A UDP datagram from fd09::9 to port 9000, its checksum left out: nobody looks at it.
fn udp6(to: &str, payload: &[u8]) -> Vec<u8> {
    let len = 8 + payload.len() as u16;
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(len.to_be_bytes());
    packet.extend([17, 64]);
    packet.extend("fd09::9".parse::<std::net::Ipv6Addr>().unwrap().octets());
    packet.extend(to.parse::<std::net::Ipv6Addr>().unwrap().octets());
    packet.extend([0x23, 0x28, 0x23, 0x28]);
    packet.extend(len.to_be_bytes());
    packet.extend([0, 0]);
    packet.extend(payload);
    packet
}
