//! A workload with a TCP stack, smoltcp's, on a wire of two queues.
#![allow(dead_code, missing_docs)]

use margay_dataplane::net::{Addr, Mac, Nanos};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{self, DeviceCapabilities, Medium};
use smoltcp::socket::tcp;
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, IpAddress, IpCidr};
use std::collections::VecDeque;

pub struct Station {
    interface: Interface,
    sockets: SocketSet<'static>,
    tcp: SocketHandle,
    pub wire: Wire,
}

impl Station {
    pub fn new(mac: Mac, own: Addr, buffer: usize, seed: u64) -> Self {
        let mut config = Config::new(EthernetAddress(mac.0).into());
        config.random_seed = seed;
        let mut wire = Wire::default();
        let mut interface = Interface::new(config, &mut wire, Instant::ZERO);
        // The network's own length: smoltcp believes no answer from beyond it.
        let len = if own.is_v4() { 16 } else { 64 };
        interface.update_ip_addrs(|addrs| addrs.push(IpCidr::new(ip_address(own), len)).unwrap());
        let buffer = || tcp::SocketBuffer::new(vec![0; buffer]);
        let mut sockets = SocketSet::new(vec![]);
        let tcp = sockets.add(tcp::Socket::new(buffer(), buffer()));
        Self { interface, sockets, tcp, wire }
    }

    pub fn socket(&mut self) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(self.tcp)
    }

    pub fn connect(&mut self, to: Addr, port: u16) {
        let socket = self.sockets.get_mut::<tcp::Socket<'_>>(self.tcp);
        socket.connect(self.interface.context(), (ip_address(to), port), 50_000).unwrap();
    }

    pub fn poll(&mut self, now: Nanos) {
        self.interface.poll(instant(now), &mut self.wire, &mut self.sockets);
    }

    /// When it wants to be polled next, if nothing arrives.
    pub fn wakes(&mut self, now: Nanos) -> Option<Nanos> {
        let at = self.interface.poll_at(instant(now), &self.sockets)?;
        Some(Nanos(at.total_micros() as u64 * 1_000))
    }
}

fn instant(now: Nanos) -> Instant {
    Instant::from_micros((now.0 / 1_000) as i64)
}

fn ip_address(addr: Addr) -> IpAddress {
    if addr.is_v4() {
        IpAddress::Ipv4(addr.v4_octets().into())
    } else {
        IpAddress::Ipv6(addr.octets().into())
    }
}

/// Frames that have arrived, and frames to send.
#[derive(Default)]
pub struct Wire {
    pub arrived: VecDeque<Vec<u8>>,
    pub sent: VecDeque<Vec<u8>>,
}

pub struct Received(Vec<u8>);
pub struct Sending<'a>(&'a mut VecDeque<Vec<u8>>);

impl phy::Device for Wire {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received, Sending<'_>)> {
        let frame = self.arrived.pop_front()?;
        Some((Received(frame), Sending(&mut self.sent)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sending<'_>> {
        Some(Sending(&mut self.sent))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        capabilities
    }
}

impl phy::RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl phy::TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; len];
        let result = f(&mut frame);
        self.0.push_back(frame);
        result
    }
}
