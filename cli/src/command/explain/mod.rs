//! `policy explain`: whether a packet would pass, how that was decided, and what would turn it.

mod beside;
mod service;
mod view;

use std::path::Path;

use margay_api::control::v1::{self as control, control_client::ControlClient};
use margay_api::dataplane::v1 as api;
use tonic::transport::Channel;

pub use self::view::rule_name;
use self::{
    service::Service,
    view::{Explanation, Packet},
};
use crate::{
    args::{Explain, Global},
    client,
    cluster::{self, Cluster, NumberOrName, Written},
    exit::{Code, Failure, Outcome},
    output::Output,
};

/// Asks the forwarding tree by way of the agent, or a tree made from files.
pub async fn run(global: &Global, args: &Explain, out: &mut Output) -> Outcome {
    let explanation = match &args.resources {
        Some(path) => offline(path, args)?,
        None => live(global, args).await?,
    };
    out.show(&explanation, args.output)?;
    Ok(Code::Ok)
}

/// The packet of the command line.
fn written(args: &Explain) -> Outcome<Written> {
    let proto = args.proto.parse().map_err(|error| {
        Failure::usage("cannot explain the packet", format!("--proto: {error}"), "correct it and try again")
    })?;
    Ok(Written {
        from: args.from.clone(),
        to: args.to.clone(),
        proto,
        sport: Some(args.sport),
        dport: args.port.as_deref().map(NumberOrName::parse),
        icmp_type: args.icmp_type,
        icmp_code: Some(args.icmp_code),
    })
}

fn offline(path: &Path, args: &Explain) -> Outcome<Explanation> {
    let written = written(args)?;
    let cluster = Cluster::read(path)?;
    let packet = cluster::Packet::sent(&written, &cluster).map_err(|wrong| {
        let code = if wrong.missing { Code::NotFound } else { Code::Usage };
        let next = "name what the files have: NAMESPACE/POD, or an address";
        Failure::new(code, "cannot explain the packet", wrong.to_string(), next)
    })?;
    let key = packet.query.key;
    let shown = Packet::new(args, packet.from.title(key.src), packet.to.title(key.dst));
    let served = cluster.served(packet)?;
    let service = served.service.map(|(choice, asked)| Service::of_files(choice, asked));
    let Some(packet) = served.packet else {
        return Ok(Explanation::refused_in_files(path, shown, service));
    };
    let answer = cluster.judge(&packet)?;
    if packet.from.endpoint.is_none() && packet.to.endpoint.is_none() && answer.host.is_empty() {
        return Err(Failure::new(
            Code::Failed,
            "nothing judges the packet",
            format!("neither {} nor {} is an endpoint of {}", args.from, args.to, path.display()),
            "name an endpoint of the files",
        ));
    }
    let counterfactual = cluster.counterfactual(&packet, &answer)?;
    let sets = beside::sets(&cluster, &packet, &answer);
    let mut explanation = Explanation::of_files(path, shown, &packet, answer, counterfactual, sets);
    explanation.service = service;
    Ok(explanation)
}

async fn live(global: &Global, args: &Explain) -> Outcome<Explanation> {
    let request = control::ExplainRequest {
        from: args.from.clone(),
        to: args.to.clone(),
        protocol: args.proto.clone(),
        source_port: args.sport.into(),
        destination_port: args.port.clone().unwrap_or_default(),
        icmp_type: args.icmp_type.unwrap_or_default().into(),
        icmp_code: args.icmp_code.into(),
    };
    let mut agent = client::agent(global).await?;
    let Judged { from, to, result, notes } = judge(global, &mut agent, "explain the packet", request).await?;
    let shown = Packet::new(args, from, to);
    let mut explanation = Explanation::of_dataplane(shown, result, notes);
    match compare(global, &mut agent, args, &mut explanation).await {
        Ok(()) => {}
        // The verdict stands, whatever is wrong with what only comments on it.
        Err(failure) => explanation.note(format!("no counterfactual: {}", failure.one_line())),
    }
    Ok(explanation)
}

/// What a node's tree says of a packet.
pub struct Judged {
    /// Whence, as a title.
    pub from: String,
    /// Where to.
    pub to: String,
    /// The verdict, and how it was decided.
    pub result: api::ExplainResponse,
    /// What the node cannot know.
    pub notes: Vec<String>,
}

/// Has the agent judge a packet by the forwarding tree, to do `attempt`.
pub async fn judge(
    global: &Global,
    agent: &mut ControlClient<Channel>,
    attempt: &str,
    request: control::ExplainRequest,
) -> Outcome<Judged> {
    let call = agent.explain(request);
    let control::ExplainResponse { from, to, result, notes } =
        client::answer(global.timeout, attempt, call).await?.into_inner();
    match result {
        Some(result) => Ok(Judged { from, to, result, notes }),
        None => Err(Failure::new(
            Code::Failed,
            "this node cannot judge the packet",
            notes.join("\n"),
            "ask the agent of a node that has one of the two endpoints, with --agent",
        )),
    }
}

/// Adds what only the store knows, if it leads to the same.
async fn compare(
    global: &Global,
    agent: &mut ControlClient<Channel>,
    args: &Explain,
    explanation: &mut Explanation,
) -> Outcome<()> {
    let call = agent.get_status(control::GetStatusRequest {});
    let node = client::answer(global.timeout, "ask which node this is", call).await?.into_inner().node;
    let cluster = beside::stored(global, agent).await?;
    let mut written = written(args)?;
    if let Some(backend) = explanation.service.as_ref().and_then(|service| service.backend.clone()) {
        // What policy sees.
        written.to = backend.address;
        written.dport = Some(NumberOrName::parse(&backend.port.to_string()));
    }
    beside::look(&cluster, &node, &written, explanation)
}
