//! Three records of flows: one that ended, translated; one refused by policy; one dropped.

use margay_api::{
    control::v1::{
        FlowParty, FlowSummary, ObserveFlowsRequest, ObserveFlowsResponse, ObservedFlow,
        SummarizeFlowsRequest, SummarizeFlowsResponse, summarize_flows_request::By,
    },
    dataplane::v1::{Direction, FlowRecord, FlowTuple, flow_record::Event},
};

/// 2026-01-01.
const BEGIN: u64 = 1_767_225_600_000_000_000;

/// As the request asks for it; of its filter only the verdict counts.
pub fn told(request: &ObserveFlowsRequest) -> ObserveFlowsResponse {
    let verdict = request.filter.as_ref().map(|filter| filter.verdict.as_str()).unwrap_or_default();
    let flows = [ended(), denied(), dropped()];
    let flows = flows.into_iter().filter(|flow| {
        let record = flow.record.as_ref().unwrap();
        verdict.is_empty() || record.verdict == verdict
    });
    ObserveFlowsResponse { flows: flows.collect(), lost: 2, missed: 0 }
}

/// Two conversations, or one reason.
pub fn summary(request: &SummarizeFlowsRequest) -> SummarizeFlowsResponse {
    let passed = FlowSummary {
        source: "shop/client".into(),
        destination: "shop/web".into(),
        protocol: 6,
        port: 80,
        verdict: "allow".into(),
        policy: "egress profile kns.shop, ingress default shop/web".into(),
        began: 12,
        ended: 11,
        packets: 120,
        bytes: 98_765,
        reply_packets: 240,
        reply_bytes: 1_234_567,
        staged_differs: 3,
        ..Default::default()
    };
    let refused = FlowSummary {
        source: "192.0.2.7".into(),
        destination: "shop/web".into(),
        protocol: 6,
        port: 23,
        verdict: "deny".into(),
        reason: "policy-denied".into(),
        policy: "ingress default default".into(),
        refused: 40,
        ..Default::default()
    };
    let groups = match request.by() {
        By::Reason => vec![FlowSummary {
            verdict: refused.verdict,
            reason: refused.reason,
            refused: 40,
            ..Default::default()
        }],
        _ => vec![passed, refused],
    };
    SummarizeFlowsResponse { groups, lost: 2, beyond: 0, since_unix_nanos: BEGIN }
}

fn party(kind: &str, namespace: &str, name: &str) -> Option<FlowParty> {
    let labels = [("role".to_owned(), name.to_owned())].into();
    Some(FlowParty { kind: kind.into(), namespace: namespace.into(), name: name.into(), labels })
}

fn tuple(
    source: [u8; 4],
    source_port: u32,
    destination: [u8; 4],
    destination_port: u32,
) -> Option<FlowTuple> {
    Some(FlowTuple { source: source.into(), source_port, destination: destination.into(), destination_port })
}

fn decision(tier: &str, policy: &str, rule: i32, verdict: &str) -> Direction {
    Direction {
        endpoint: "shop/web".into(),
        verdict: verdict.into(),
        tier: tier.into(),
        policy: policy.into(),
        rule,
        ..Default::default()
    }
}

fn ended() -> ObservedFlow {
    let staged = Some(Box::new(decision("default", "shop/later", 0, "deny")));
    ObservedFlow {
        record: Some(FlowRecord {
            event: Event::Ended.into(),
            worker: 1,
            protocol: 6,
            original: tuple([10, 0, 0, 1], 4000, [10, 96, 0, 1], 80),
            reply: tuple([10, 0, 0, 2], 8080, [10, 0, 0, 1], 4000),
            state: "closed".into(),
            began_unix_nanos: BEGIN,
            last_unix_nanos: BEGIN + 2_500_000_000,
            packets: 10,
            bytes: 1_000,
            reply_packets: 20,
            reply_bytes: 20_000,
            judged_generation: 41,
            verdict: "allow".into(),
            egress: Some(Direction {
                endpoint: "shop/client".into(),
                ..decision("", "profile kns.shop", 0, "allow")
            }),
            ingress: Some(Direction { staged, ..decision("default", "shop/web", 0, "allow") }),
            ..Default::default()
        }),
        source: party("workload", "shop", "client"),
        destination: party("workload", "shop", "web"),
    }
}

fn denied() -> ObservedFlow {
    ObservedFlow {
        record: Some(FlowRecord {
            event: Event::Refused.into(),
            protocol: 6,
            original: tuple([192, 0, 2, 7], 50_123, [10, 0, 0, 2], 23),
            last_unix_nanos: BEGIN + 3_000_000_000,
            packets: 4,
            bytes: 240,
            judged_generation: 41,
            verdict: "deny".into(),
            reason: "policy-denied".into(),
            ingress: Some(decision("default", "", -1, "deny")),
            interface: "eth0".into(),
            ..Default::default()
        }),
        source: None,
        destination: party("workload", "shop", "web"),
    }
}

fn dropped() -> ObservedFlow {
    ObservedFlow {
        record: Some(FlowRecord {
            event: Event::Refused.into(),
            protocol: 1,
            icmp_type: 8,
            original: tuple([10, 0, 0, 1], 0, [198, 51, 100, 1], 0),
            last_unix_nanos: BEGIN + 4_000_000_000,
            packets: 1,
            bytes: 84,
            verdict: "drop".into(),
            reason: "no-route".into(),
            interface: "cali-web".into(),
            ..Default::default()
        }),
        source: party("workload", "shop", "client"),
        destination: party("global network set", "", "world"),
    }
}
