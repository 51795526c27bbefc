//! Filters that libpcap compiles say here what they say there: of random frames our verdicts are those of `tcpdump -r`.
#![allow(missing_docs)]

use margay_dataplane::net::{Instruction, Program};
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

/// What libpcap compiles, from all corners of pcap-filter(7).
const FILTERS: &[&str] = &[
    "tcp",
    "not tcp",
    "ip6",
    "arp",
    "sctp or esp",
    "icmp[icmptype] == icmp-echo",
    "host 10.0.0.5",
    "src or dst 10.0.0.5",
    "src 10.0.0.5 and dst 10.0.1.9",
    "host 2001:db8::1",
    "net 10.0",
    "src net 10.0.0.0/16",
    "net 10.0.0.0 mask 255.0.0.0",
    "dst net 2001:db8::/32",
    "arp net 10.0.0.0/8",
    "port 80",
    "port (80 or 443)",
    "tcp and dst port 443 and not src net 10.0.0.0/8",
    "udp dst port 53",
    "portrange 1000-2000",
    "tcp dst portrange 22-80",
    "not (host 10.0.0.5 or port 22)",
    "ether host ff:ff:ff:ff:ff:ff",
    "ether multicast",
    "ip broadcast or ip multicast",
    "vlan",
    "vlan 50 and ip",
    "vlan 100 and tcp port 80",
    "less 64",
    "greater 64",
    "len % 3 == 1",
    "ip[8] < 64",
    "ip[1] & 0xfc == 0xb8",
    "ip[0] & 0xf != 5",
    "ip[6:2] & 0x1fff = 0",
    "ip[2:2] > 500 and tcp",
    "tcp[tcpflags] & (tcp-syn|tcp-ack) == tcp-syn",
    "tcp[0:2] = 80",
    "udp[4:2] > 100",
    "ip6[6] = 6",
    "ether[12:2] / 256 = 8",
    "tcp port 80 and (((ip[2:2] - ((ip[0]&0xf)<<2)) - ((tcp[12]&0xf0)>>2)) != 0)",
    "ip[8] / ip[1] > 2",
    "(ip[8] ^ ip[9]) << 4 > 0x100",
];
const FRAMES: u32 = 4000;

/// Seeded.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % sides
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.roll(of.len())]
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.roll(256) as u8).collect()
    }
}

const ADDRESSES: [[u8; 4]; 5] = [[10, 0, 0, 5], [10, 0, 1, 9], [192, 168, 1, 1], [224, 0, 0, 5], [255; 4]];
const ADDRESSES_6: [[u8; 16]; 3] = [
    [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
    [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2],
    [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
];
const PROTOCOLS: [u8; 9] = [6, 6, 17, 17, 1, 58, 132, 50, 47];
const PORTS: [u16; 8] = [80, 443, 53, 22, 1000, 2000, 2048, 65535];

/// Headers as they come, and as they should not.
fn frame(dice: &mut Dice) -> Vec<u8> {
    let mut frame = if dice.roll(4) == 0 { vec![0xff; 6] } else { dice.bytes(6) };
    frame.extend(dice.bytes(6));
    if dice.roll(8) == 0 {
        frame.extend([0x81, 0, 0, dice.one(&[50, 100, 7])]);
    }
    match dice.roll(8) {
        0..4 => {
            let words = if dice.roll(4) == 0 { 5 + dice.roll(3) } else { 5 };
            let mut header = vec![0; words * 4];
            header[0] = 0x40 | words as u8;
            (header[1], header[8]) = (dice.one(&[0, 0xb8, 3]), dice.roll(256) as u8);
            header[2..4].copy_from_slice(&(dice.roll(1500) as u16).to_be_bytes());
            if dice.roll(5) == 0 {
                header[6..8].copy_from_slice(&(dice.roll(0x4000) as u16).to_be_bytes());
            }
            header[9] = dice.one(&PROTOCOLS);
            header[12..16].copy_from_slice(&dice.one(&ADDRESSES));
            header[16..20].copy_from_slice(&dice.one(&ADDRESSES));
            frame.extend([8, 0]);
            frame.extend(header);
        }
        4..7 => {
            let mut header = vec![0; 40];
            (header[0], header[6]) = (0x60, if dice.roll(6) == 0 { 44 } else { dice.one(&PROTOCOLS) });
            header[8..24].copy_from_slice(&dice.one(&ADDRESSES_6));
            header[24..40].copy_from_slice(&dice.one(&ADDRESSES_6));
            if header[6] == 44 {
                header.extend([dice.one(&PROTOCOLS), 0, 0, dice.roll(2) as u8, 0, 0, 0, 1]);
            }
            frame.extend([0x86, 0xdd]);
            frame.extend(header);
        }
        _ => {
            frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
            for _ in 0..2 {
                frame.extend(dice.bytes(6));
                frame.extend(dice.one(&ADDRESSES));
            }
        }
    }
    for _ in 0..2 {
        frame.extend(dice.one(&PORTS).to_be_bytes());
    }
    let more = dice.roll(60);
    frame.extend(dice.bytes(more));
    if frame.len() > 47 && dice.roll(2) == 0 {
        frame[47] = dice.one(&[2, 0x12, 0x10]);
    }
    if dice.roll(10) == 0 {
        let left = 1 + dice.roll(frame.len() - 1);
        frame.truncate(left);
    }
    frame
}

/// A pcap file. The second of each frame's time is its number.
fn save(frames: &[Vec<u8>], path: &Path) {
    let mut file = vec![];
    for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65535, 1] {
        file.extend(word.to_ne_bytes());
    }
    for (number, frame) in (0_u32..).zip(frames) {
        let length = frame.len() as u32;
        for word in [number, 0, length, length] {
            file.extend(word.to_ne_bytes());
        }
        file.extend(frame);
    }
    fs::write(path, file).unwrap();
}

/// The numbers of the frames that tcpdump takes from the file.
fn chosen(filter: &str, path: &Path) -> Vec<u32> {
    let path = path.to_str().unwrap();
    let ran = Command::new("tcpdump").args(["-r", path, "-w", "-", "--", filter]).output().unwrap();
    assert!(ran.status.success(), "{filter}: {}", String::from_utf8_lossy(&ran.stderr));
    let mut rest = &ran.stdout[24..];
    let mut numbers = vec![];
    while let Some((header, behind)) = rest.split_at_checked(16) {
        let word = |at: usize| u32::from_ne_bytes(header[at..at + 4].try_into().unwrap());
        numbers.push(word(0));
        rest = &behind[word(8) as usize..];
    }
    numbers
}

fn compiled(filter: &str) -> Program {
    let ran = Command::new("tcpdump").args(["-ddd", "-y", "EN10MB", "--", filter]).output().unwrap();
    assert!(ran.status.success(), "{filter}: {}", String::from_utf8_lossy(&ran.stderr));
    let text = String::from_utf8(ran.stdout).unwrap();
    let read = |line: &str| {
        let numbers: Vec<u32> = line.split(' ').map(|number| number.parse().unwrap()).collect();
        let [code, jt, jf, k] = numbers[..] else { panic!("{line}") };
        Instruction { code: code as u16, jt: jt as u8, jf: jf as u8, k }
    };
    Program::check(&text.lines().skip(1).map(read).collect::<Vec<_>>()).unwrap()
}

#[test]
fn our_verdicts_are_libpcaps() {
    if Command::new("tcpdump").arg("--version").output().is_err() {
        let _ = writeln!(std::io::stderr(), "SKIPPED: tcpdump is not installed (apt install tcpdump)");
        return;
    }
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let frames: Vec<_> = (0..FRAMES).map(|_| frame(&mut dice)).collect();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("frames.pcap");
    save(&frames, &path);
    for filter in FILTERS {
        let program = compiled(filter);
        let ours: Vec<u32> = (0..)
            .zip(&frames)
            .filter(|(_, frame)| program.accepts(frame, frame.len() as u32))
            .map(|(number, _)| number)
            .collect();
        let theirs = chosen(filter, &path);
        assert_eq!(ours, theirs, "{filter}");
        assert!(!theirs.is_empty() && theirs.len() < frames.len(), "{filter} tells no frames apart");
    }
}
