//! Traffic between two stations, checked: datagrams, streams, pings of every size.
#![allow(dead_code, missing_docs)]

use super::namespace::{PATIENCE, Station};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::time::Instant;

/// More than a window of TCP, and no multiple of anything.
const BYTES: usize = 1_000_003;

/// Datagrams until one is answered: by then every link is up and every neighbour known.
pub fn reaches(from: &Station, to: SocketAddr) {
    from.there(move || {
        let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any).unwrap();
        socket.set_read_timeout(Some(std::time::Duration::from_millis(50))).unwrap();
        let deadline = Instant::now() + PATIENCE;
        let mut room = [0; 64];
        while socket.recv(&mut room).is_err() {
            assert!(Instant::now() < deadline, "{to} does not answer");
            let _ = socket.send_to(b"?", to);
        }
    });
}

pub fn answers(at: &Station, own: SocketAddr) {
    let socket = at.there(move || UdpSocket::bind(own).unwrap());
    std::thread::spawn(move || {
        let mut room = [0; 64];
        while let Ok((len, from)) = socket.recv_from(&mut room) {
            let _ = socket.send_to(&room[..len], from);
        }
    });
}

/// A stream in each direction, checked byte by byte.
pub fn streams(from: &Station, to: &Station, own: SocketAddr) {
    let listener = to.there(move || TcpListener::bind(own).unwrap());
    let pattern = || (0..BYTES).map(|n| (n * 7 + n / 251) as u8).collect::<Vec<u8>>();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut got = vec![0; BYTES];
        stream.read_exact(&mut got).unwrap();
        stream.write_all(&got).unwrap();
    });
    from.there(move || {
        let mut stream = TcpStream::connect_timeout(&own, PATIENCE).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let sent = pattern();
        stream.write_all(&sent).unwrap();
        let mut got = vec![0; BYTES];
        stream.read_exact(&mut got).unwrap();
        assert!(got == sent, "the bytes come back as they were");
    });
    server.join().unwrap();
}

pub fn ping(from: &Station, arguments: &str) -> (bool, String) {
    let arguments = arguments.to_owned();
    from.there(move || {
        let mut command = Command::new("ping");
        command.args(["-c", "3", "-i", "0.2", "-W", "5"]).args(arguments.split(' '));
        let output = command.output().expect("ping (package iputils-ping)");
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned())
    })
}

/// Everything between two stations, the far one being `to`.
pub fn all_passes(from: &Station, to: &Station, far: [&'static str; 2], mtus: [usize; 2]) {
    for (n, far) in far.into_iter().enumerate() {
        let at = |port| SocketAddr::new(far.parse().unwrap(), port);
        answers(to, at(5300));
        reaches(from, at(5300));
        streams(from, to, at(8000));
        // In fragments, which are cut again where IPv4 lets them be.
        let whole = mtus[n] - if n == 0 { 28 } else { 48 };
        let (passed, text) = ping(from, &format!("-s {whole} -M do {far}"));
        assert!(passed, "{text}");
        let (passed, text) = ping(from, &format!("-s {} -M do {far}", whole + 1));
        assert!(!passed && text.to_lowercase().contains(&format!("mtu={}", mtus[n])), "{text}");
        let (passed, text) = ping(from, &format!("-s 3000 -M dont {far}"));
        assert!(passed, "{text}");
    }
}
