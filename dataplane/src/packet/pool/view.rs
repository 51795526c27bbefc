//! A packet as a node sees it: its bytes, from the link header on, and what is known of it.

use super::HEADROOM;
use crate::net::FlowKey;
use crate::net::Proto;
use crate::packet::{Gso, Meta, PacketFlags};
use crate::wire::segment::{self, Super};

/// One packet, borrowed for as long as a node looks at it.
pub struct Packet<'p> {
    /// What is known of it.
    pub meta: &'p mut Meta,
    pub(super) key: &'p mut FlowKey,
    pub(super) frame: &'p mut [u8],
}

impl<'p> Packet<'p> {
    /// `len` bytes of the frame from offset `at` on, for as long as the packet is borrowed.
    pub fn into_part(self, at: u16, len: usize) -> Option<&'p mut [u8]> {
        self.frame.get_mut(usize::from(at)..)?.get_mut(..len)
    }
}

impl Packet<'_> {
    /// The same packet for a shorter while. Where nearly all packets pass, one that takes another way is lent like this
    /// to what is called for it: then a packet is in registers, and only that one is written to memory for the call.
    #[inline(always)]
    pub fn reborrow(&mut self) -> Packet<'_> {
        Packet { meta: self.meta, key: self.key, frame: self.frame }
    }

    /// The flow key it came with, where its headers do not say it, or not any more: a later
    /// fragment has no ports, and some were translated on their way.
    #[inline]
    pub fn key(&self) -> Option<FlowKey> {
        self.meta.flags.has(PacketFlags::KEYED).then_some(*self.key)
    }

    /// Notes the flow key it came with, from now on its key whatever its headers say.
    #[inline]
    pub fn set_key(&mut self, key: FlowKey) {
        *self.key = key;
        self.meta.flags.set(PacketFlags::KEYED);
    }

    /// The bytes from `data` on, a super-frame's too: its large buffer is its frame.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        self.from(self.meta.data)
    }

    /// [`bytes`](Self::bytes), to change.
    #[inline]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let (start, end) = (usize::from(self.meta.data), self.end());
        self.frame.get_mut(start..end).unwrap_or_default()
    }

    /// The bytes from the IP header on.
    #[inline]
    pub fn l3(&self) -> &[u8] {
        self.from(self.meta.l3)
    }

    /// [`l3`](Self::l3), to change.
    #[inline]
    pub fn l3_mut(&mut self) -> &mut [u8] {
        let (start, end) = (usize::from(self.meta.l3), self.end());
        self.frame.get_mut(start..end).unwrap_or_default()
    }

    /// The bytes behind the IP header and its extensions.
    #[inline]
    pub fn l4(&self) -> &[u8] {
        self.from(self.meta.l4)
    }

    #[inline]
    fn from(&self, start: u16) -> &[u8] {
        self.frame.get(usize::from(start)..self.end()).unwrap_or_default()
    }

    #[inline]
    fn end(&self) -> usize {
        (usize::from(self.meta.data) + self.meta.len as usize).min(self.frame.len())
    }

    /// `N` bytes of the frame from offset `at` on, whether the packet reaches that far or not:
    /// lengths are the caller's to check.
    #[inline(always)]
    pub fn window<const N: usize>(&self, at: u16) -> Option<&[u8; N]> {
        self.frame.get(usize::from(at)..usize::from(at) + N)?.first_chunk()
    }

    /// [`window`](Self::window), to change.
    #[inline(always)]
    pub fn window_mut<const N: usize>(&mut self, at: u16) -> Option<&mut [u8; N]> {
        self.frame.get_mut(usize::from(at)..usize::from(at) + N)?.first_chunk_mut()
    }

    /// Bytes of the packet that are in the frame.
    #[inline(always)]
    pub fn len_in_frame(&self) -> usize {
        self.end().saturating_sub(usize::from(self.meta.data))
    }

    /// Bytes from the IP header to the packet's end, those beyond the frame included.
    #[inline]
    pub fn l3_len(&self) -> usize {
        (usize::from(self.meta.data) + self.meta.len as usize).saturating_sub(usize::from(self.meta.l3))
    }

    /// How many packets it stands for: of a super-frame, its segments, as soon as `l4` is known.
    #[inline(always)]
    pub fn count(&self) -> u64 {
        if self.meta.gso == Gso::None { 1 } else { self.segments() }
    }

    #[cold]
    fn segments(&self) -> u64 {
        let header = match self.meta.gso {
            Gso::Udp => 8,
            _ => self.window::<13>(self.meta.l4).map_or(20, |head| u32::from(head[12] >> 4) * 4),
        };
        let end = u32::from(self.meta.data) + self.meta.len;
        let payload = end.saturating_sub(u32::from(self.meta.l4) + header);
        u64::from(payload.div_ceil(self.meta.gso_size.max(1).into()).max(1))
    }

    /// The transport protocol of a super-frame's kind.
    pub fn gso_proto(&self) -> Option<Proto> {
        match self.meta.gso {
            Gso::None => None,
            Gso::Tcp => Some(Proto::TCP),
            Gso::Udp => Some(Proto::UDP),
        }
    }

    /// The super-frame that it is, ready to be cut. `None`: it is none, or contradicts itself or what is said of it.
    pub fn as_super(&self) -> Option<Super<'_>> {
        let (l4, proto) = self.segmented()?;
        Super::new(self.l3(), l4, proto, self.meta.gso_size)
    }

    /// Makes a super-frame its own first segment, for whoever quotes it, and returns that one's length from the IP header
    /// on. `None`, and nothing done, as for [`as_super`](Self::as_super).
    pub fn make_first_segment(&mut self) -> Option<usize> {
        let ((l4, proto), size) = (self.segmented()?, self.meta.gso_size);
        segment::into_first(self.l3_mut(), l4, proto, size)
    }

    /// Of a super-frame, where in its IP packet the transport header begins, and of which protocol that is.
    fn segmented(&self) -> Option<(usize, Proto)> {
        let proto = self.gso_proto().filter(|proto| *proto == self.meta.proto)?;
        Some((usize::from(self.meta.l4 - self.meta.l3), proto))
    }

    /// Puts `header` right in front of the IP header, as the packet's new beginning.
    /// `false`, and nothing done, when there is no room.
    #[inline]
    pub fn set_link_header(&mut self, header: &[u8]) -> bool {
        let l3 = usize::from(self.meta.l3);
        let Some(start) = l3.checked_sub(header.len()) else { return false };
        let Some(room) = self.frame.get_mut(start..l3) else { return false };
        match (room, header) {
            (
                [a, b, c, d, e, f, g, h, i, j, k, l, m, n],
                &[o, p, q, r, s, t, u, v, w, x, y, z, kind, code],
            ) => {
                // Nearly always, and then a few moves, not a call.
                [*a, *b, *c, *d, *e, *f, *g, *h] = [o, p, q, r, s, t, u, v];
                [*i, *j, *k, *l] = [w, x, y, z];
                [*m, *n] = [kind, code];
            }
            (room, header) => room.copy_from_slice(header),
        }
        self.meta.len = (usize::from(self.meta.data) + self.meta.len as usize - start) as u32;
        self.meta.data = start as u16;
        true
    }

    /// The packet becomes the `len` bytes that begin `before` its IP header, and so does what is called its IP header;
    /// where it had none, they are whatever the frame has. `false`, and nothing done, when there is no room.
    pub fn stretch(&mut self, before: u16, len: u32) -> bool {
        let Some(start) = self.meta.l3.checked_sub(before) else { return false };
        if usize::from(start) + len as usize > self.frame.len() {
            return false;
        }
        (self.meta.data, self.meta.l3, self.meta.len) = (start, start, len);
        true
    }

    /// Replaces the packet by `bytes`, behind the usual headroom. Metadata other than position
    /// and length stays. `false`, and nothing done, when it does not fit.
    pub fn fill(&mut self, bytes: &[u8]) -> bool {
        let Some(room) = self.frame.get_mut(HEADROOM..HEADROOM + bytes.len()) else { return false };
        room.copy_from_slice(bytes);
        self.meta.data = HEADROOM as u16;
        self.meta.len = bytes.len() as u32;
        true
    }

    /// `N` bytes of headroom right in front of the packet, for a device's own header; `None`: there is less.
    pub fn before_mut<const N: usize>(&mut self) -> Option<&mut [u8; N]> {
        self.window_mut(self.meta.data.checked_sub(N as u16)?)
    }

    /// The packet's bytes and the `before` bytes of headroom in front of them.
    pub fn behind(&self, before: usize) -> &[u8] {
        self.frame.get(usize::from(self.meta.data).saturating_sub(before)..self.end()).unwrap_or_default()
    }

    /// The frame from a place on, whatever of the packet is there: for devices that copy into a frame.
    pub fn place(&self, at: usize) -> &[u8] {
        self.frame.get(at..).unwrap_or_default()
    }

    /// [`place`](Self::place), to write.
    pub fn place_mut(&mut self, at: usize) -> &mut [u8] {
        self.frame.get_mut(at..).unwrap_or_default()
    }

    /// All that can be written from the usual headroom on, for devices that copy into a frame.
    /// Set `meta.data` to [`HEADROOM`] and `meta.len` afterwards.
    pub fn room_mut(&mut self) -> &mut [u8] {
        &mut self.frame[HEADROOM..]
    }

    /// Cuts the packet's tail off, down to `len` bytes.
    #[inline]
    pub fn truncate(&mut self, len: u32) {
        self.meta.len = self.meta.len.min(len);
    }
}
