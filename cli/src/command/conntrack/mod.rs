//! `conntrack`: live sessions, as the dataplane's workers have them.

mod count;
mod flow;
mod list;

use std::io::{self, Write as _};

use margay_api::dataplane::v1 as api;
use margay_dataplane::conntrack::{Filter, FilterError};
use serde::Serialize;

pub use self::flow::Flow;
use crate::{
    args::{Conntrack, ConntrackFlush, ConntrackGet, FlowEnd, FlowFilter, Global},
    client,
    exit::{Code, Failure, Outcome},
    output::{Output, View},
    readable::count,
};

/// Does what one of the commands asks.
pub async fn run(global: &Global, command: &Conntrack, out: &mut Output) -> Outcome {
    match command {
        Conntrack::List(args) => list::run(global, args, out).await,
        Conntrack::Get(args) => get(global, args, out).await,
        Conntrack::Count(args) => count::count(global, args, out).await,
        Conntrack::Top(args) => count::top(global, args, out).await,
        Conntrack::Flush(args) => flush(global, args, out).await,
    }
}

/// The filter's text, once it is known to be one. Whether its endpoints exist, the dataplane knows.
pub fn checked(filter: &FlowFilter) -> Outcome<String> {
    let text = filter.text();
    match Filter::parse(&text, |_| Some(vec![])) {
        Ok(_) => Ok(text),
        Err(error) => Err(pointed(&text, &error)),
    }
}

/// The error under the place that it is about.
fn pointed(text: &str, error: &FilterError) -> Failure {
    let before = text[..error.at.min(text.len())].chars().count();
    let marks = "^".repeat(error.token.chars().count().max(1));
    let cause = format!("{}\n{text}\n{}{marks}", error.why, " ".repeat(before));
    Failure::usage("the filter is not valid", cause, error.remedy.clone())
}

/// The advice of an endpoint that is not there.
pub fn advised(failure: Failure) -> Failure {
    if failure.code == Code::NotFound {
        return failure.advise("see what there is with `margayctl status -o wide`");
    }
    failure
}

async fn get(global: &Global, args: &ConntrackGet, out: &mut Output) -> Outcome {
    let ported = args.from.port.is_some() || args.to.port.is_some();
    if ported && !args.proto.has_ports() {
        let cause = format!("{} has no ports", args.proto);
        return Err(Failure::usage("cannot get the session", cause, "write addresses alone"));
    }
    let one_way = |from: &FlowEnd, to: &FlowEnd| {
        let end = |side: &str, end: &FlowEnd| {
            let port = end.port.map(|port| format!(" and {side} port {port}")).unwrap_or_default();
            format!("{side} host {}{port}", end.addr)
        };
        format!("({} and {})", end("src", from), end("dst", to))
    };
    let (there, back) = (one_way(&args.from, &args.to), one_way(&args.to, &args.from));
    let filter = format!("proto {} and ({there} or {back})", args.proto.0);
    let mut sessions = Vec::new();
    let mut list = list::Listing::begin(global, filter).await?;
    while let Some(flows) = list.next().await? {
        sessions.extend(flows);
    }
    if sessions.is_empty() {
        return Err(Failure::new(
            Code::NotFound,
            "there is no such session",
            "no packet opened one, or it was idle for too long",
            "look with `margayctl conntrack list`",
        ));
    }
    out.show(&Found { flows: sessions }, args.show.output)?;
    Ok(Code::Ok)
}

#[derive(Serialize)]
struct Found {
    flows: Vec<Flow>,
}

impl View for Found {
    const RECORDS: Option<&'static str> = Some("flows");

    fn text(&self, out: &mut Output, _: bool) -> io::Result<()> {
        self.flows.iter().try_for_each(|flow| flow.describe(out))
    }
}

async fn flush(global: &Global, args: &ConntrackFlush, out: &mut Output) -> Outcome {
    let request = api::FlushFlowsRequest { filter: checked(&args.filter)?, all: args.all };
    if request.filter.trim().is_empty() && !args.all {
        let next = "say which, or --all";
        return Err(Failure::usage("cannot flush the sessions", "the filter is empty", next));
    }
    let mut dataplane = client::dataplane(global).await?;
    let call = dataplane.flush_flows(request);
    let answer = client::answer(global.timeout, "flush the sessions", call).await.map_err(advised)?;
    out.show(&Flushed { flushed: answer.into_inner().flushed }, args.show.output)?;
    Ok(Code::Ok)
}

#[derive(Serialize)]
struct Flushed {
    flushed: u64,
}

impl View for Flushed {
    fn text(&self, out: &mut Output, _: bool) -> io::Result<()> {
        writeln!(out, "{} flushed", count(self.flushed, "session", "sessions"))
    }
}
