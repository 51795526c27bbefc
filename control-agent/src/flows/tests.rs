//! Two flows that tests share.

use margay_api::{
    control::v1::{FlowParty, ObservedFlow},
    dataplane::v1::{Direction, FlowRecord, FlowTuple, flow_record::Event},
};

fn party(kind: &str, namespace: &str, name: &str) -> Option<FlowParty> {
    let labels = [("role".to_owned(), name.to_owned())].into();
    Some(FlowParty { kind: kind.into(), namespace: namespace.into(), name: name.into(), labels })
}

fn tuple(source: [u8; 4], source_port: u32, destination: [u8; 4], destination_port: u32) -> FlowTuple {
    FlowTuple { source: source.into(), source_port, destination: destination.into(), destination_port }
}

/// To a service, and allowed; a staged policy would not.
pub fn allowed() -> ObservedFlow {
    let direction = |tier: &str, policy: &str, verdict: &str| Direction {
        verdict: verdict.into(),
        tier: tier.into(),
        policy: policy.into(),
        ..Default::default()
    };
    let staged = Some(Box::new(direction("default", "shop/later", "deny")));
    ObservedFlow {
        record: Some(FlowRecord {
            event: Event::Ended.into(),
            protocol: 6,
            original: Some(tuple([10, 65, 0, 1], 4000, [10, 96, 0, 1], 5432)),
            reply: Some(tuple([10, 65, 1, 9], 5433, [10, 65, 0, 1], 4000)),
            state: "closed".into(),
            packets: 10,
            bytes: 1000,
            reply_packets: 20,
            reply_bytes: 2000,
            verdict: "allow".into(),
            egress: Some(direction("", "profile kns.shop", "allow")),
            ingress: Some(Direction { staged, ..direction("default", "shop/db", "allow") }),
            ..Default::default()
        }),
        source: party("workload", "shop", "web"),
        destination: party("workload", "shop", "db"),
    }
}

/// To somebody outside, and denied.
pub fn denied() -> ObservedFlow {
    ObservedFlow {
        record: Some(FlowRecord {
            event: Event::Refused.into(),
            protocol: 6,
            original: Some(tuple([10, 65, 0, 1], 4001, [203, 0, 113, 7], 443)),
            packets: 4,
            bytes: 240,
            verdict: "deny".into(),
            reason: "policy-denied".into(),
            egress: Some(Direction {
                tier: "default".into(),
                rule: -1,
                verdict: "deny".into(),
                ..Default::default()
            }),
            ..Default::default()
        }),
        source: party("workload", "shop", "web"),
        destination: party("global network set", "", "world"),
    }
}
