//! A packet that nobody sent, made to see what becomes of it.

use super::convert::FieldError;
use super::explain::query;
use super::state::State;
use crate::fib::{Interface, Role};
use crate::net::{FlowKey, Mac, Proto};
use crate::nodes::Probe;
use crate::wire::checksum::Sum;
use crate::wire::ethernet::{self, Prebuilt};
use crate::wire::ip4;
use margay_api::dataplane::v1 as pb;

/// Where it would come in, and its bytes: from the workload that has its source address, else by the first uplink.
pub fn probe(state: &State, asked: &pb::Probe) -> Result<Probe, FieldError> {
    let request = pb::ExplainRequest {
        source: asked.source.clone(),
        destination: asked.destination.clone(),
        protocol: asked.protocol,
        source_port: asked.source_port,
        destination_port: asked.destination_port,
        ..pb::ExplainRequest::default()
    };
    let key = query(&request)?.key;
    let snapshot = state.publisher().current();
    let owner = |is: &&Interface| is.workload().is_some_and(|workload| workload.owns(key.src));
    let uplink = |is: &&Interface| is.role == Role::Uplink && is.vlan.is_none();
    let by = snapshot.interfaces.iter().find(owner).or_else(|| snapshot.interfaces.iter().find(uplink));
    let by = by.filter(|is| is.up).ok_or_else(|| {
        let what =
            format!("no interface is up that {} could come in by; see margayctl dp interfaces", key.src);
        FieldError::new("probe.source", what)
    })?;
    let frame = frame(&key, by.mac).ok_or_else(|| {
        FieldError::new(
            "probe.protocol",
            format!("{} cannot be made up; use tcp, udp, icmp or icmp6", key.proto),
        )
    })?;
    Ok(Probe { interface: by.id, frame: frame.into() })
}

/// A locally administered address that no workload is given.
const FROM: Mac = Mac([0x02, 0x6d, 0x61, 0x72, 0x67, 0x61]);
const TTL: u8 = 64;

fn frame(key: &FlowKey, to: Mac) -> Option<Vec<u8>> {
    let mut payload = payload(key)?;
    let at = match key.proto {
        Proto::TCP => 16,
        Proto::UDP => 6,
        _ => 2,
    };
    let mut sum = Sum::default().bytes(&payload);
    if key.proto != Proto::ICMP {
        sum = sum.pseudo_header(key.src, key.dst, key.proto, payload.len() as u32);
    }
    payload[at..at + 2].copy_from_slice(&sum.finish().to_be_bytes());
    let (kind, header) = if key.src.is_v4() {
        let header = ip4::emit(key.src, key.dst, key.proto, TTL, payload.len());
        (ethernet::IPV4, header.to_vec())
    } else {
        let length = (payload.len() as u16).to_be_bytes();
        let fixed = [0x60, 0, 0, 0, length[0], length[1], key.proto.0, TTL];
        (ethernet::IPV6, [&fixed[..], &key.src.octets(), &key.dst.octets()].concat())
    };
    let link = Prebuilt::new(to, FROM, None, kind);
    Some([link.as_slice(), &header, &payload].concat())
}

/// With the checksum still to be written.
fn payload(key: &FlowKey) -> Option<Vec<u8>> {
    let ports = [key.sport.to_be_bytes(), key.dport.to_be_bytes()].concat();
    match key.proto {
        // A SYN with no options.
        Proto::TCP => Some([&ports[..], &[0; 8], &[0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0]].concat()),
        Proto::UDP => Some([&ports[..], &[0, 8, 0, 0]].concat()),
        Proto::ICMP if key.src.is_v4() => Some(vec![8, 0, 0, 0, 0x6d, 0x67, 0, 1]),
        Proto::ICMP6 if !key.src.is_v4() => Some(vec![128, 0, 0, 0, 0x6d, 0x67, 0, 1]),
        _ => None,
    }
}
