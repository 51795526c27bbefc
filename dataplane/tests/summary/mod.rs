//! A frame in one line, read by another parser than ours.
#![allow(missing_docs)]

use crate::build::{PEER_MAC, UPLINK_MAC, gateway_mac, workload_mac};
use etherparse::{LinkExtSlice, LinkSlice, NetSlice, SlicedPacket, TransportSlice};
use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

pub fn summary(frame: &[u8]) -> String {
    let Ok(packet) = SlicedPacket::from_ethernet(frame) else {
        return format!("unreadable, {} bytes", frame.len());
    };
    let mut out = String::new();
    if let Some(LinkSlice::Ethernet2(link)) = &packet.link {
        write!(out, "{} > {}", station(link.source()), station(link.destination())).unwrap();
    }
    for tag in &packet.link_exts {
        if let LinkExtSlice::Vlan(vlan) = tag {
            write!(out, " vlan {}", vlan.vlan_identifier().value()).unwrap();
        }
    }
    out + &net(&packet)
}

fn net(packet: &SlicedPacket<'_>) -> String {
    match &packet.net {
        None => " no IP".into(),
        Some(NetSlice::Arp(arp)) => {
            let address =
                |bytes: &[u8]| <[u8; 4]>::try_from(bytes).map(Ipv4Addr::from).unwrap_or([0; 4].into());
            let (sender, target) = (address(arp.sender_protocol_addr()), address(arp.target_protocol_addr()));
            match arp.operation().0 {
                1 => format!(" who has {target}? tell {sender}"),
                _ => format!(
                    " {sender} is at {}",
                    station(arp.sender_hw_addr().try_into().unwrap_or_default())
                ),
            }
        }
        Some(NetSlice::Ipv4(ip)) => {
            let header = ip.header();
            let (from, to) = (header.source_addr(), header.destination_addr());
            let fragment = if header.is_fragmenting_payload() { " fragment" } else { "" };
            let sum = header.header_checksum() == header.to_header().calc_header_checksum();
            let sum = if sum { "" } else { " bad sum" };
            format!(" {from} > {to} ttl {}{fragment}{sum}{}", header.ttl(), transport(packet))
        }
        Some(NetSlice::Ipv6(ip)) => {
            let header = ip.header();
            let (from, to) = (Ipv6Addr::from(header.source()), Ipv6Addr::from(header.destination()));
            let fragment = if ip.is_payload_fragmented() { " fragment" } else { "" };
            format!(" {from} > {to} ttl {}{fragment}{}", header.hop_limit(), transport(packet))
        }
    }
}

fn transport(packet: &SlicedPacket<'_>) -> String {
    match &packet.transport {
        None => {
            let of = packet.net.as_ref().and_then(|net| net.ip_payload_ref());
            of.map_or_else(String::new, |ip| format!(" proto {} len {}", ip.ip_number.0, ip.payload.len()))
        }
        Some(TransportSlice::Udp(udp)) => {
            format!(" udp {} > {} len {}", udp.source_port(), udp.destination_port(), udp.payload().len())
        }
        Some(TransportSlice::Tcp(tcp)) => {
            let flags = [(tcp.syn(), 'S'), (tcp.fin(), 'F'), (tcp.rst(), 'R'), (tcp.ack(), 'A')];
            let flags: String = flags.iter().filter(|(set, _)| *set).map(|(_, name)| name).collect();
            let (from, to, len) = (tcp.source_port(), tcp.destination_port(), tcp.payload().len());
            format!(" tcp {from} > {to} {flags} len {len}")
        }
        Some(TransportSlice::Icmpv4(icmp)) => {
            format!(" icmp {}/{} len {}", icmp.type_u8(), icmp.code_u8(), icmp.payload().len())
        }
        Some(TransportSlice::Icmpv6(icmp)) => {
            format!(" icmp6 {}/{} len {}", icmp.type_u8(), icmp.code_u8(), icmp.payload().len())
        }
        Some(other) => format!(" {other:?}"),
    }
}

/// By name, where it has one.
fn station(mac: [u8; 6]) -> String {
    let named = [
        (UPLINK_MAC, "uplink"),
        (PEER_MAC, "peer"),
        (gateway_mac(), "gateway"),
        (workload_mac(1), "w1"),
        (workload_mac(2), "w2"),
        (workload_mac(3), "w3"),
        (margay_dataplane::net::Mac::BROADCAST, "all"),
    ];
    let name = named.iter().find(|(of, _)| of.0 == mac).map(|(_, name)| (*name).to_owned());
    name.unwrap_or_else(|| margay_dataplane::net::Mac(mac).to_string())
}
