//! Writing pcapng files (draft-ietf-opsawg-pcapng-02): packets of several interfaces, with nanoseconds, direction
//! and a comment each.
//!
//! The crates that write this format are at a release candidate or years behind on their dependencies; what we need
//! of it are four kinds of blocks.

use std::io::{self, Write};

const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const STATISTICS: u32 = 5;
const PACKET: u32 = 6;

const OPT_END: u16 = 0;
const OPT_COMMENT: u16 = 1;
const IF_NAME: u16 = 2;
const IF_RESOLUTION: u16 = 9;
const EPB_FLAGS: u16 = 2;
const SHB_APPLICATION: u16 = 4;
const ISB_DROPPED: u16 = 5;

/// A file, or a pipe.
pub struct Pcapng<W> {
    to: W,
    interfaces: Vec<String>,
    written: u64,
}

/// A packet to write.
pub struct Packet<'p> {
    /// It went by.
    pub interface: &'p str,
    /// Since 1970.
    pub unix_nanos: u64,
    /// Came in, else went out; `None`: neither.
    pub inbound: Option<bool>,
    /// Before it was cut.
    pub length: u32,
    /// Its bytes.
    pub data: &'p [u8],
    /// For people.
    pub comment: &'p str,
}

impl<W: Write> Pcapng<W> {
    /// Begins a file.
    pub fn begin(to: W) -> io::Result<Self> {
        let mut file = Self { to, interfaces: vec![], written: 0 };
        let mut body = 0x1a2b_3c4d_u32.to_le_bytes().to_vec();
        body.extend([1, 0, 0, 0]);
        // Of a length that is not known.
        body.extend(u64::MAX.to_le_bytes());
        option(&mut body, SHB_APPLICATION, concat!("margayctl ", env!("CARGO_PKG_VERSION")).as_bytes());
        option(&mut body, OPT_END, &[]);
        file.block(SECTION, &body)?;
        Ok(file)
    }

    /// Bytes so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// One more packet.
    pub fn packet(&mut self, packet: &Packet<'_>) -> io::Result<()> {
        let interface = match self.interfaces.iter().position(|known| known == packet.interface) {
            Some(known) => known,
            None => self.interface(packet.interface)?,
        };
        let mut body = Vec::with_capacity(64 + packet.data.len() + packet.comment.len());
        body.extend((interface as u32).to_le_bytes());
        body.extend(((packet.unix_nanos >> 32) as u32).to_le_bytes());
        body.extend((packet.unix_nanos as u32).to_le_bytes());
        body.extend((packet.data.len() as u32).to_le_bytes());
        body.extend(packet.length.max(packet.data.len() as u32).to_le_bytes());
        body.extend(packet.data);
        pad(&mut body);
        let direction = packet.inbound.map_or(0u32, |inbound| if inbound { 1 } else { 2 });
        option(&mut body, EPB_FLAGS, &direction.to_le_bytes());
        option(&mut body, OPT_COMMENT, packet.comment.as_bytes());
        option(&mut body, OPT_END, &[]);
        self.block(PACKET, &body)
    }

    /// Says how many packets there would have been besides, and ends.
    pub fn end(&mut self, lost: u64, unix_nanos: u64) -> io::Result<()> {
        for interface in 0..self.interfaces.len() as u32 {
            let mut body = interface.to_le_bytes().to_vec();
            body.extend(((unix_nanos >> 32) as u32).to_le_bytes());
            body.extend((unix_nanos as u32).to_le_bytes());
            // Nobody knows by which interface they came: it is said once.
            let lost = if interface == 0 { lost } else { 0 };
            option(&mut body, ISB_DROPPED, &lost.to_le_bytes());
            option(&mut body, OPT_END, &[]);
            self.block(STATISTICS, &body)?;
        }
        self.to.flush()
    }

    /// For who reads along.
    pub fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }

    fn interface(&mut self, name: &str) -> io::Result<usize> {
        // Ethernet, of any length.
        let mut body = vec![1, 0, 0, 0, 0, 0, 0, 0];
        option(&mut body, IF_NAME, name.as_bytes());
        // Nanoseconds: ten to the minus ninth.
        option(&mut body, IF_RESOLUTION, &[9]);
        option(&mut body, OPT_END, &[]);
        self.block(INTERFACE, &body)?;
        self.interfaces.push(name.to_owned());
        Ok(self.interfaces.len() - 1)
    }

    fn block(&mut self, kind: u32, body: &[u8]) -> io::Result<()> {
        let length = (body.len() + 12) as u32;
        let block = [&kind.to_le_bytes()[..], &length.to_le_bytes(), body, &length.to_le_bytes()].concat();
        self.to.write_all(&block)?;
        self.written += u64::from(length);
        Ok(())
    }
}

fn option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    // A comment is cut, not refused.
    let value = &value[..value.len().min(u16::MAX.into())];
    body.extend(code.to_le_bytes());
    body.extend((value.len() as u16).to_le_bytes());
    body.extend(value);
    pad(body);
}

fn pad(body: &mut Vec<u8>) {
    body.resize(body.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_block_says_its_length_twice_and_ends_on_a_word() {
        let mut file = Pcapng::begin(Vec::new()).unwrap();
        for (interface, data) in [("eth0", &[1u8, 2, 3][..]), ("cali1", &[4, 5, 6, 7]), ("eth0", &[])] {
            let packet = Packet {
                interface,
                unix_nanos: 1 << 40,
                inbound: Some(true),
                length: 1500,
                data,
                comment: "verdict: pass",
            };
            file.packet(&packet).unwrap();
        }
        file.end(7, 1 << 41).unwrap();
        let (written, mut rest, mut kinds) = (file.written(), &file.to[..], vec![]);
        assert_eq!(written, rest.len() as u64);
        let word = |bytes: &[u8]| u32::from_le_bytes(*bytes.first_chunk().unwrap());
        while !rest.is_empty() {
            let (kind, length) = (word(rest), word(&rest[4..]) as usize);
            assert!(length.is_multiple_of(4) && word(&rest[length - 4..]) as usize == length);
            kinds.push(kind);
            rest = &rest[length..];
        }
        assert_eq!(kinds, [SECTION, INTERFACE, PACKET, INTERFACE, PACKET, PACKET, STATISTICS, STATISTICS]);
    }
}
