//! Workloads that speak to each other: real sockets in their namespaces, and somebody who answers.

use std::{
    io::{self, ErrorKind},
    net::{IpAddr, SocketAddr, UdpSocket as StdUdpSocket},
    time::Duration,
};

use margay_cni::netns::Netns;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket, TcpStream, UdpSocket},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

/// What is said, and has to come back.
const WORDS: &[u8; 8] = b"connect?";

/// Between two datagrams that nothing came back for.
const AGAIN: Duration = Duration::from_millis(200);

/// Where ICMP's own header ends.
const ECHO: usize = 8;

/// How one speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Opens a connection to this port, says something, and reads it back.
    Tcp(u16),
    /// The same by datagrams.
    Udp(u16),
    /// Asks for an echo.
    Icmp,
}

/// Whoever answers, until dropped.
pub struct Answering(#[expect(dead_code, reason = "tasks end with it")] JoinSet<()>);

/// Repeats what comes to these ports of addresses, which are in the namespace.
pub fn answer(netns: &Netns, addresses: &[IpAddr], ports: &[u16]) -> io::Result<Answering> {
    let mut answering = JoinSet::new();
    for at in addresses.iter().flat_map(|addr| ports.iter().map(|port| SocketAddr::new(*addr, *port))) {
        let (stream, datagrams) =
            inside(netns, || Ok((std::net::TcpListener::bind(at)?, std::net::UdpSocket::bind(at)?)))?;
        stream.set_nonblocking(true)?;
        datagrams.set_nonblocking(true)?;
        answering.spawn(repeat_streams(TcpListener::from_std(stream)?));
        answering.spawn(repeat_datagrams(UdpSocket::from_std(datagrams)?));
    }
    Ok(Answering(answering))
}

async fn repeat_streams(listener: TcpListener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            let mut words = [0; WORDS.len()];
            // Who goes away in the middle has said enough.
            if stream.read_exact(&mut words).await.is_ok() {
                let _ = stream.write_all(&words).await;
            }
        });
    }
}

async fn repeat_datagrams(socket: UdpSocket) {
    let mut words = [0; 64];
    loop {
        // An error is of one datagram before, which its sender misses.
        if let Ok((length, from)) = socket.recv_from(&mut words).await {
            let _ = socket.send_to(&words[..length], from).await;
        }
    }
}

/// From this namespace and address to that address, for at most so long: whether what was said came back.
///
/// # Errors
/// Of the machine, not of the way: there is no socket to be had.
pub fn ask(
    netns: &Netns,
    from: IpAddr,
    to: IpAddr,
    how: How,
    patience: Duration,
) -> io::Result<impl Future<Output = bool> + Send + 'static> {
    let asker = match how {
        How::Tcp(port) => {
            let socket = inside(netns, || match from {
                IpAddr::V4(_) => TcpSocket::new_v4(),
                IpAddr::V6(_) => TcpSocket::new_v6(),
            })?;
            socket.bind(SocketAddr::new(from, 0))?;
            Asker::Stream(socket, SocketAddr::new(to, port))
        }
        How::Udp(port) => {
            let socket = inside(netns, || StdUdpSocket::bind(SocketAddr::new(from, 0)))?;
            socket.connect(SocketAddr::new(to, port))?;
            Asker::Datagrams(nonblocking(socket)?, WORDS.to_vec(), 0)
        }
        How::Icmp => {
            let socket = inside(netns, || echo_socket(from))?;
            socket.connect(SocketAddr::new(to, 0))?;
            // RFC 792, RFC 4443: echo request, code 0. The kernel fills in checksum and identifier.
            let kind = if from.is_ipv4() { 8 } else { 128 };
            let mut request = vec![kind, 0, 0, 0, 0, 0, 0, 1];
            request.extend_from_slice(WORDS);
            Asker::Datagrams(nonblocking(socket)?, request, ECHO)
        }
    };
    Ok(async move { timeout(patience, asker.ask()).await.unwrap_or(false) })
}

enum Asker {
    Stream(TcpSocket, SocketAddr),
    /// What is said, and where in an answer its words begin.
    Datagrams(UdpSocket, Vec<u8>, usize),
}

impl Asker {
    /// Goes on until an answer comes, or it is clear that none will.
    async fn ask(self) -> bool {
        match self {
            Self::Stream(socket, to) => match socket.connect(to).await {
                Ok(stream) => said_back(stream).await.unwrap_or(false),
                Err(_) => false,
            },
            Self::Datagrams(socket, request, begin) => loop {
                // A first datagram may be lost on its way, as datagrams may; an error is of the one before.
                let _ = socket.send(&request).await;
                let until = Instant::now() + AGAIN;
                let mut answer = [0; 64];
                while let Ok(received) = tokio::time::timeout_at(until, socket.recv(&mut answer)).await {
                    match received {
                        Ok(length) if answer.get(begin..length) == Some(WORDS) => return true,
                        Ok(_) => {}
                        Err(error) if error.kind() == ErrorKind::ConnectionRefused => return false,
                        Err(_) => sleep(AGAIN).await,
                    }
                }
            },
        }
    }
}

async fn said_back(mut stream: TcpStream) -> io::Result<bool> {
    stream.write_all(WORDS).await?;
    let mut answer = [0; WORDS.len()];
    stream.read_exact(&mut answer).await?;
    Ok(&answer == WORDS)
}

fn nonblocking(socket: StdUdpSocket) -> io::Result<UdpSocket> {
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket)
}

/// The kernel's own for `ping` (icmp(7)), from this address.
fn echo_socket(from: IpAddr) -> io::Result<StdUdpSocket> {
    let (family, protocol) = match from {
        IpAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp),
        IpAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6),
    };
    let socket = socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, protocol)?;
    Ok(StdUdpSocket::from(socket))
}

/// Lets root of the namespace open sockets for echoes.
pub fn allow_echoes(netns: &Netns) -> io::Result<()> {
    inside(netns, || std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 0"))
}

/// A socket belongs to the namespace that it was opened in, whoever uses it then.
fn inside<T: Send>(netns: &Netns, open: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    netns.enter(open).map_err(io::Error::other)?
}
