//! What a driver says that it can do with XDP: the kernel's generic netlink family `netdev` (Linux 6.3,
//! Documentation/netlink/specs/netdev.yaml).

use std::{io, os::fd::AsRawFd as _};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};

/// Of `GENL_ID_CTRL`, where families are asked for by name.
const CONTROL: u16 = 16;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;

const DEVICE_GET: u8 = 1;
const IFINDEX: u16 = 1;
const XDP_FEATURES: u16 = 3;

const REQUEST: u16 = 1;
/// The type of an answer that says why there is none.
const ERROR: u16 = 2;

/// Of netlink's header, and of generic netlink's behind it.
const HEADER: usize = 16;
const GENERIC: usize = 4;

/// What a driver can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features(pub u64);

impl Features {
    /// XDP programs run in the driver.
    pub fn native(self) -> bool {
        self.0 & 1 != 0
    }

    /// They may send packets on to AF_XDP sockets.
    pub fn redirect(self) -> bool {
        self.0 & 2 != 0
    }

    /// Those take packets without a copy.
    pub fn zero_copy(self) -> bool {
        self.0 & 8 != 0
    }
}

/// Asks the kernel.
///
/// # Errors
/// It has no such family, or no such interface.
pub fn features(ifindex: u32) -> io::Result<Features> {
    let family = ask(&request(CONTROL, GET_FAMILY, FAMILY_NAME, b"netdev\0"))?;
    let family =
        attribute(&family, FAMILY_ID).and_then(|value| Some(u16::from_ne_bytes(value.try_into().ok()?)));
    let family = family.ok_or_else(|| io::Error::other("the kernel names no family netdev"))?;
    let device = ask(&request(family, DEVICE_GET, IFINDEX, &ifindex.to_ne_bytes()))?;
    let features =
        attribute(&device, XDP_FEATURES).and_then(|value| Some(u64::from_ne_bytes(value.try_into().ok()?)));
    features.map(Features).ok_or_else(|| io::Error::other("the kernel names no features"))
}

/// One question; returns the attributes of the answer.
fn ask(request: &[u8]) -> io::Result<Vec<u8>> {
    let socket =
        socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkGeneric)?;
    sendto(socket.as_raw_fd(), request, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let mut answer = vec![0; 16 << 10];
    let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    answer.truncate(length);
    body(&answer)
}

/// A message with one attribute.
fn request(family: u16, command: u8, kind: u16, value: &[u8]) -> Vec<u8> {
    let attribute = 4 + value.len();
    let padded = attribute.next_multiple_of(4);
    let length = (HEADER + GENERIC + padded) as u32;
    let mut message = Vec::with_capacity(length as usize);
    message.extend(length.to_ne_bytes());
    message.extend(family.to_ne_bytes());
    message.extend(REQUEST.to_ne_bytes());
    // A number of this question, which is the only one, and no port.
    message.extend([0; 8]);
    message.extend([command, 1, 0, 0]);
    message.extend((attribute as u16).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(value);
    message.resize(length as usize, 0);
    message
}

/// The attributes of an answer.
fn body(message: &[u8]) -> io::Result<Vec<u8>> {
    let cut = || io::Error::from(io::ErrorKind::UnexpectedEof);
    let kind = message.get(4..6).ok_or_else(cut)?;
    if kind == ERROR.to_ne_bytes() {
        let number =
            message.get(HEADER..HEADER + 4).and_then(|bytes| bytes.try_into().ok()).ok_or_else(cut)?;
        return Err(io::Error::from_raw_os_error(-i32::from_ne_bytes(number)));
    }
    message.get(HEADER + GENERIC..).map(<[u8]>::to_vec).ok_or_else(cut)
}

/// The value of the first attribute of a kind.
fn attribute(mut attributes: &[u8], kind: u16) -> Option<&[u8]> {
    loop {
        let half = |at: usize| Some(u16::from_ne_bytes(attributes.get(at..at + 2)?.try_into().ok()?));
        let (length, of) = (usize::from(half(0)?), half(2)?);
        let value = attributes.get(4..length)?;
        // Above are flags: nested, of network byte order.
        if of & 0x3fff == kind {
            return Some(value);
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_as_long_as_it_says_and_an_answer_is_read_to_its_end_and_not_beyond() {
        let message = request(16, 3, 2, b"netdev\0");
        assert_eq!(message.len(), 32);
        assert_eq!(message[..4], 32u32.to_ne_bytes());
        assert_eq!(attribute(&body(&message).unwrap(), 2), Some(&b"netdev\0"[..]));
        assert_eq!(attribute(&body(&message).unwrap(), 1), None);
        for cut in 0..message.len() {
            let _ = body(&message[..cut]).map(|body| attribute(&body, 2).map(<[u8]>::len));
        }
        // An attribute that says it is shorter than its own head.
        assert_eq!(attribute(&[0, 0, 2, 0, 0, 0, 0, 0], 2), None);
        let mut refusal = message;
        refusal[4..6].copy_from_slice(&ERROR.to_ne_bytes());
        refusal[16..20].copy_from_slice(&(-2i32).to_ne_bytes());
        assert_eq!(body(&refusal).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn bits_are_those_of_the_kernels_specification() {
        let all = |bits| [Features(bits).native(), Features(bits).redirect(), Features(bits).zero_copy()];
        assert_eq!((all(0), all(3), all(8)), ([false; 3], [true, true, false], [false, false, true]));
    }
}
