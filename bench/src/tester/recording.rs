//! Packets of a file, as tcpdump or `margayctl dp capture` wrote it.

use anyhow::{Context as _, Result, bail, ensure};
use margay_dataplane::net::Mac;
use margay_dataplane::packet::Packet;
use pcap_parser::{Block, Linktype, PcapBlockOwned, PcapError, create_reader};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Bytes of a frame that is sent, without its check sequence.
const LONGEST: usize = 1514;
/// Bytes of all frames together.
const MOST: usize = 1 << 30;
/// Bytes that are read at once, more than any record has.
const BUFFER: usize = 1 << 20;
/// Bytes of an Ethernet header.
const LINK: usize = 14;
/// What does not go on as it began.
const CUT_OFF: &str = "it ends in the middle of a packet, or is no capture after all: cut it at a packet";

/// Frames in their order, for one station.
pub struct Recording {
    bytes: Vec<u8>,
    /// Where each frame ends.
    ends: Vec<usize>,
    next: usize,
    gateway: Mac,
}

impl Recording {
    /// Reads a file of pcap or pcapng.
    pub fn open(path: &Path, gateway: Mac) -> Result<Self> {
        let file = File::open(path).with_context(|| path.display().to_string())?;
        Self::read(file, gateway).with_context(|| path.display().to_string())
    }

    fn read(file: impl Read + Send + 'static, gateway: Mac) -> Result<Self> {
        let mut recording = Self { bytes: vec![], ends: vec![], next: 0, gateway };
        let mut other = 0;
        let mut reader = create_reader(BUFFER, file).map_err(|_| not_a_capture())?;
        // Kinds of links, of the file or by its interfaces.
        let mut links = vec![];
        loop {
            let (length, block) = match reader.next() {
                Ok(next) => next,
                Err(PcapError::Eof) => break,
                Err(PcapError::Incomplete(_)) => {
                    ensure!(!reader.reader_exhausted(), CUT_OFF);
                    reader.refill().map_err(|_| not_a_capture())?;
                    continue;
                }
                Err(_) => bail!(CUT_OFF),
            };
            let (link, data) = match block {
                PcapBlockOwned::LegacyHeader(header) => {
                    links = vec![header.network];
                    (None, &[][..])
                }
                PcapBlockOwned::NG(Block::SectionHeader(_)) => {
                    links.clear();
                    (None, &[][..])
                }
                PcapBlockOwned::NG(Block::InterfaceDescription(interface)) => {
                    links.push(interface.linktype);
                    (None, &[][..])
                }
                PcapBlockOwned::Legacy(packet) => (links.first(), cut(packet.data, packet.caplen)),
                PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => {
                    (links.get(packet.if_id as usize), cut(packet.data, packet.caplen))
                }
                PcapBlockOwned::NG(Block::SimplePacket(packet)) => {
                    (links.first(), cut(packet.data, packet.origlen))
                }
                PcapBlockOwned::NG(_) => (None, &[][..]),
            };
            if let Some(link) = link {
                ensure!(
                    *link == Linktype::ETHERNET,
                    "its packets are not of Ethernet ({link:?}), and could not be sent as they are"
                );
                if (LINK..=LONGEST).contains(&data.len()) {
                    recording.add(data)?;
                } else {
                    other += 1;
                }
            }
            reader.consume(length);
        }
        if other > 0 {
            eprintln!("{other} packets are left out: of less than {LINK} bytes, or more than {LONGEST}");
        }
        ensure!(!recording.ends.is_empty(), "there is no packet in it that could be sent");
        Ok(recording)
    }

    fn add(&mut self, frame: &[u8]) -> Result<()> {
        ensure!(self.bytes.len() + frame.len() <= MOST, "it is larger than 1 GiB: take a part of it");
        self.bytes.extend_from_slice(frame);
        self.ends.push(self.bytes.len());
        Ok(())
    }

    /// The next frame, after the last the first. `false`: it does not fit.
    pub fn write(&mut self, packet: &mut Packet<'_>) -> bool {
        let begin = if self.next == 0 { 0 } else { self.ends[self.next - 1] };
        let filled = packet.fill(&self.bytes[begin..self.ends[self.next]]);
        self.next = (self.next + 1) % self.ends.len();
        if let Some(to) = packet.bytes_mut().first_chunk_mut::<6>() {
            *to = self.gateway.0;
        }
        filled
    }
}

/// What was captured of a packet, without what fills the record up.
fn cut(data: &[u8], length: u32) -> &[u8] {
    data.get(..length as usize).unwrap_or(data)
}

fn not_a_capture() -> anyhow::Error {
    anyhow::anyhow!("it is neither pcap nor pcapng: give what `tcpdump -w` or `margayctl dp capture` wrote")
}

#[cfg(test)]
mod tests {
    use super::*;
    use margay_dataplane::packet::{Frames, Pool};
    use std::io::Cursor;

    const GATEWAY: Mac = Mac([4; 6]);

    fn pcap(link: u32, frames: &[Vec<u8>]) -> Vec<u8> {
        let mut file = vec![0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0];
        file.extend([0; 8]);
        file.extend(65_535u32.to_le_bytes());
        file.extend(link.to_le_bytes());
        for frame in frames {
            file.extend([0; 8]);
            file.extend((frame.len() as u32).to_le_bytes());
            file.extend((frame.len() as u32).to_le_bytes());
            file.extend(frame);
        }
        file
    }

    fn block(kind: u32, body: &[u8]) -> Vec<u8> {
        let length = (12 + body.len()) as u32;
        [&kind.to_le_bytes()[..], &length.to_le_bytes(), body, &length.to_le_bytes()].concat()
    }

    /// With options behind the packet, as our own captures have them.
    fn pcapng(frames: &[Vec<u8>]) -> Vec<u8> {
        let mut file =
            block(0x0a0d_0d0a, &[&0x1a2b_3c4du32.to_le_bytes()[..], &[1, 0, 0, 0], &[0xff; 8]].concat());
        file.extend(block(1, &[1, 0, 0, 0, 0, 0, 0, 0]));
        for frame in frames {
            let length = (frame.len() as u32).to_le_bytes();
            let fill = vec![0; frame.len().next_multiple_of(4) - frame.len()];
            let comment = [&[1, 0, 5, 0][..], b"allow", &[0; 3], &[0; 4]].concat();
            file.extend(block(6, &[&[0; 12][..], &length, &length, frame, &fill, &comment].concat()));
        }
        file
    }

    fn written(recording: &mut Recording, count: usize) -> Vec<Vec<u8>> {
        let mut pool = Pool::new(Frames::new(64, 2048, false).unwrap(), 64);
        let mut idx = pool.alloc().unwrap();
        let mut frames = vec![];
        for _ in 0..count {
            let mut packet = pool.get(&mut idx);
            assert!(recording.write(&mut packet));
            frames.push(packet.bytes().to_vec());
        }
        pool.free(idx);
        frames
    }

    #[test]
    fn frames_of_both_kinds_of_files_are_sent_in_their_order_to_the_gateway() {
        let frames: Vec<Vec<u8>> =
            [60, 61, 1514].iter().map(|length| (0..*length).map(|n| n as u8).collect()).collect();
        let too_long = vec![7; 1515];
        let with = |frames: &[Vec<u8>]| [frames, std::slice::from_ref(&too_long)].concat();
        for file in [pcap(1, &with(&frames)), pcapng(&with(&frames))] {
            let mut recording = Recording::read(Cursor::new(file), GATEWAY).unwrap();
            let sent = written(&mut recording, 7);
            for (sent, frame) in sent.iter().zip(frames.iter().cycle()) {
                assert_eq!((&sent[..6], &sent[6..]), (&GATEWAY.0[..], &frame[6..]));
            }
        }
    }

    #[test]
    fn what_is_no_capture_of_ethernet_is_refused_with_the_reason() {
        let frame = vec![vec![0; 60]];
        let whole = pcap(1, &frame);
        for (file, reason) in [
            (vec![], "neither pcap nor pcapng"),
            (
                b"GIF89a, which is a picture and no capture of packets at all".to_vec(),
                "neither pcap nor pcapng",
            ),
            (pcap(101, &frame), "not of Ethernet"),
            (pcap(1, &[]), "no packet"),
            (pcap(1, &[vec![0; 13]]), "no packet"),
            (whole[..whole.len() - 1].to_vec(), "in the middle of a packet"),
        ] {
            let error = Recording::read(Cursor::new(file), GATEWAY).err().map(|error| error.to_string());
            assert!(error.as_ref().is_some_and(|error| error.contains(reason)), "{reason}: {error:?}");
        }
    }
}
