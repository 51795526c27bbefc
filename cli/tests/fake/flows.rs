//! A few live sessions, asked for by the dataplane's own filter.

use margay_api::dataplane::v1::{
    Change, CountFlowsRequest, CountFlowsResponse, CutFlow, Direction, DryRunResponse, Flow, FlowGroup,
    FlowTuple, ObjectError, change,
};
use margay_dataplane::{
    conntrack::{Exchange, Filter, State, TcpState},
    net::{Addr, FlowKey, Proto},
};
use tonic::Status;

/// A session's key, its reply's, its state, and whose its ends are.
type Session = (FlowKey, FlowKey, State, [&'static str; 2]);

fn sessions() -> Vec<Session> {
    let key = |proto, src: (&str, u16), dst: (&str, u16)| FlowKey {
        src: src.0.parse().unwrap(),
        dst: dst.0.parse().unwrap(),
        sport: src.1,
        dport: dst.1,
        proto,
    };
    let web = key(Proto::TCP, ("10.0.0.1", 4000), ("10.0.0.2", 80));
    let dns = key(Proto::UDP, ("fd00::1", 5353), ("fd00::53", 53));
    let answered = key(Proto::UDP, ("fd00::2", 1053), ("fd00::1", 5353));
    let echo = key(Proto::ICMP, ("192.0.2.7", 77), ("10.0.0.2", 77));
    let (replied, established) = (State::Udp(Exchange::Replied), State::Tcp(TcpState::Established));
    vec![
        (web, web.reversed(), established, ["shop/client", "shop/web"]),
        (dns, answered, replied, ["shop/client", "shop/dns"]),
        (echo, echo.reversed(), State::Other(Exchange::Unreplied), ["", "shop/web"]),
    ]
}

/// Those of which the filter is true.
pub fn matching(filter: &str) -> Result<Vec<Flow>, Status> {
    let endpoint = |name: &str| (name == "shop/web").then(|| vec!["10.0.0.2".parse().unwrap()]);
    let filter = Filter::parse(filter, endpoint).map_err(|error| match error.missing {
        true => Status::not_found(format!("filter: {error}")),
        false => Status::invalid_argument(format!("filter: {error}")),
    })?;
    let is = |(key, reply, state, _): &Session| filter.matches(key, reply, *state);
    let bytes = |addr: Addr| if addr.is_v4() { addr.v4_octets().to_vec() } else { addr.octets().to_vec() };
    let tuple = |key: FlowKey| FlowTuple {
        source: bytes(key.src),
        destination: bytes(key.dst),
        source_port: if key.proto.has_ports() { key.sport.into() } else { 0 },
        destination_port: if key.proto.has_ports() { key.dport.into() } else { 0 },
    };
    let flow = |(at, (key, reply, state, [from, to])): (usize, Session)| Flow {
        worker: at as u32 % 2,
        protocol: key.proto.0.into(),
        original: Some(tuple(key)),
        reply: Some(tuple(reply)),
        state: state.name().into(),
        idle_milliseconds: 4_250,
        remaining_milliseconds: 3_595_750,
        judged_generation: 41,
        from: from.into(),
        to: to.into(),
    };
    Ok(sessions().into_iter().enumerate().filter(|(_, session)| is(session)).map(flow).collect())
}

/// As many as match, and made-up groups of them.
pub fn count(request: &CountFlowsRequest) -> Result<CountFlowsResponse, Status> {
    let flows = matching(&request.filter)?.len() as u64;
    let group = |name: &str, flows| FlowGroup { name: name.into(), flows };
    let groups = match request.by {
        0 => vec![],
        _ => vec![group("shop/web", 2), group("shop/client", 1)],
    };
    let limit = if request.limit == 0 { usize::MAX } else { request.limit as usize };
    let groups = groups.into_iter().take(limit).collect();
    Ok(CountFlowsResponse { flows, groups, uncertainty: if request.limit == 1 { 7 } else { 0 } })
}

/// As if the first session were denied, where there is policy at all; refused where there is an endpoint `refused`.
pub fn cut(changes: &[Change]) -> Result<DryRunResponse, Status> {
    let endpoints = changes.iter().filter_map(|change| match &change.change {
        Some(change::Change::WorkloadEndpoint(endpoint)) => Some(endpoint),
        _ => None,
    });
    if endpoints.clone().any(|endpoint| endpoint.display_name.ends_with("/refused")) {
        let error = ObjectError {
            object: "workload endpoint lab/refused".into(),
            field: "interface_name".into(),
            message: "cali1 belongs to shop/web already".into(),
        };
        return Ok(DryRunResponse { refused: vec![error], ..DryRunResponse::default() });
    }
    if endpoints.count() == 0 {
        return Err(Status::internal("it is the whole policy that is to be sent"));
    }
    let by = Direction {
        endpoint: "shop/web".into(),
        verdict: "deny".into(),
        tier: "default".into(),
        policy: "shop/web".into(),
        rule: 2,
        ..Direction::default()
    };
    let mut flows = matching("")?.into_iter();
    let listed = vec![CutFlow { flow: flows.next(), by: Some(by) }, CutFlow { flow: flows.next(), by: None }];
    Ok(DryRunResponse { flows: 120, cut: 2, denied_already: 3, listed, ..DryRunResponse::default() })
}
