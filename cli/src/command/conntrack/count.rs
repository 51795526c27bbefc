//! `conntrack count` and `conntrack top`: how many sessions there are, and whose.

use std::io::{self, Write as _};

use margay_api::dataplane::v1::{self as api, count_flows_request::By};
use serde::Serialize;

use super::{advised, checked};
use crate::{
    args::{ConntrackCount, ConntrackTop, CountBy, Global},
    client,
    command::dp::repeat,
    exit::Outcome,
    output::{Output, Table, View},
    readable::percent,
};

/// Counts what matches.
pub async fn count(global: &Global, args: &ConntrackCount, out: &mut Output) -> Outcome {
    let filter = checked(&args.filter)?;
    repeat(&args.look, out, async || fetch(global, &filter, args.by, 0).await).await
}

/// Counts what matches by something, and shows the largest of it.
pub async fn top(global: &Global, args: &ConntrackTop, out: &mut Output) -> Outcome {
    let filter = checked(&args.filter)?;
    repeat(&args.look, out, async || fetch(global, &filter, Some(args.by), args.limit.get()).await).await
}

async fn fetch(global: &Global, filter: &str, by: Option<CountBy>, limit: u32) -> Outcome<Counted> {
    let mut dataplane = client::dataplane(global).await?;
    let wanted = match by {
        None => By::Nothing,
        Some(CountBy::Endpoint) => By::Endpoint,
        Some(CountBy::Source) => By::Source,
        Some(CountBy::Destination) => By::Destination,
        Some(CountBy::Port) => By::Port,
        Some(CountBy::Protocol) => By::Protocol,
        Some(CountBy::State) => By::State,
        Some(CountBy::Worker) => By::Worker,
        Some(CountBy::Generation) => By::Generation,
    };
    let request = api::CountFlowsRequest { filter: filter.to_owned(), by: wanted.into(), limit };
    let call = dataplane.count_flows(request);
    let answer =
        client::answer(global.timeout, "count the sessions", call).await.map_err(advised)?.into_inner();
    let group = |group: api::FlowGroup| Group { name: group.name, sessions: group.flows };
    Ok(Counted {
        sessions: answer.flows,
        by: by.and_then(|by| Some(clap::ValueEnum::to_possible_value(&by)?.get_name().to_owned())),
        groups: answer.groups.into_iter().map(group).collect(),
        uncertainty: answer.uncertainty,
    })
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Counted {
    sessions: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    groups: Vec<Group>,
    /// So many more each group may have.
    #[serde(skip_serializing_if = "is_zero")]
    uncertainty: u64,
}

#[derive(Serialize)]
struct Group {
    name: String,
    sessions: u64,
}

const fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl View for Counted {
    const RECORDS: Option<&'static str> = None;

    fn text(&self, out: &mut Output, _: bool) -> io::Result<()> {
        let Some(by) = &self.by else { return writeln!(out, "{}", self.sessions) };
        let title = by.to_uppercase();
        let mut table = Table::new([title.as_str(), ">SESSIONS", ">SHARE"]);
        for Group { name, sessions } in &self.groups {
            let share = percent(*sessions as f64 / self.sessions.max(1) as f64);
            table.row(vec![name.into(), (*sessions).into(), share.into()]);
        }
        if !table.is_empty() {
            table.print(out)?;
            writeln!(out)?;
        }
        writeln!(out, "Sessions: {}", self.sessions)?;
        if self.uncertainty > 0 {
            writeln!(
                out,
                "Each may have up to {} more: there are too many to keep them all.",
                self.uncertainty
            )?;
        }
        Ok(())
    }
}
