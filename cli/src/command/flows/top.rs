//! `flows top`: an hour of flows, put together.

use std::io::{self, Write as _};

use margay_api::control::v1::{self as api, summarize_flows_request::By};
use margay_dataplane::net::Proto;
use serde::Serialize;

use super::filter;
use crate::{
    args::{FlowsTop, Global, TopBy},
    client,
    command::dp::repeat,
    exit::Outcome,
    output::{Output, Table, View},
};

/// Shows the largest.
pub async fn run(global: &Global, args: &FlowsTop, out: &mut Output) -> Outcome {
    repeat(&args.look, out, async || fetch(global, args).await).await
}

async fn fetch(global: &Global, args: &FlowsTop) -> Outcome<Top> {
    let by = match args.by {
        TopBy::Conversation => By::Conversation,
        TopBy::Source => By::Source,
        TopBy::Destination => By::Destination,
        TopBy::Port => By::Port,
        TopBy::Policy => By::Policy,
        TopBy::Reason => By::Reason,
    };
    let request = api::SummarizeFlowsRequest {
        filter: Some(filter(&args.like)),
        seconds: args.like.since.map_or(0, |since| since.as_secs().max(1)),
        by: by.into(),
        limit: args.limit,
    };
    let mut agent = client::agent(global).await?;
    let call = agent.summarize_flows(request);
    let answer = client::answer(global.timeout, "summarize flows", call).await?.into_inner();
    Ok(Top {
        by: args.by,
        groups: answer.groups.into_iter().map(Into::into).collect(),
        lost: answer.lost,
        beyond: answer.beyond,
    })
}

#[derive(Serialize)]
struct Top {
    #[serde(skip)]
    by: TopBy,
    groups: Vec<Group>,
    /// Records that workers lost.
    lost: u64,
    /// Records that are in no group.
    beyond: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Group {
    #[serde(skip_serializing_if = "String::is_empty")]
    source: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    destination: String,
    /// As in tcp/80.
    #[serde(skip_serializing_if = "String::is_empty")]
    port: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    verdict: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    reason: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    policy: String,
    began: u64,
    ended: u64,
    refused_packets: u64,
    packets: u64,
    bytes: u64,
    reply_packets: u64,
    reply_bytes: u64,
    /// Flows that staged policies would have had judged otherwise.
    staged_differs: u64,
}

impl From<api::FlowSummary> for Group {
    fn from(from: api::FlowSummary) -> Self {
        let proto = u8::try_from(from.protocol).ok().filter(|number| *number != 0).map(Proto);
        let port = proto.map_or(String::new(), |proto| match from.port {
            0 => proto.to_string(),
            port => format!("{proto}/{port}"),
        });
        Self {
            source: from.source,
            destination: from.destination,
            port,
            verdict: from.verdict,
            reason: from.reason,
            policy: from.policy,
            began: from.began,
            ended: from.ended,
            refused_packets: from.refused,
            packets: from.packets,
            bytes: from.bytes,
            reply_packets: from.reply_packets,
            reply_bytes: from.reply_bytes,
            staged_differs: from.staged_differs,
        }
    }
}

impl View for Top {
    const RECORDS: Option<&'static str> = Some("groups");

    fn text(&self, out: &mut Output, wide: bool) -> io::Result<()> {
        let names: &[&str] = match self.by {
            TopBy::Conversation if wide => &["FROM", "TO", "PORT", "VERDICT", "REASON", "POLICY"],
            TopBy::Conversation => &["FROM", "TO", "PORT", "VERDICT", "POLICY"],
            TopBy::Source => &["FROM"],
            TopBy::Destination => &["TO"],
            TopBy::Port => &["PORT"],
            TopBy::Policy => &["VERDICT", "POLICY"],
            TopBy::Reason => &["VERDICT", "REASON"],
        };
        let counts = [">BEGAN", ">ENDED", ">BYTES", ">BACK", ">REFUSED"];
        let more: &[&str] = if wide { &[">PACKETS", ">BACK", ">STAGED-DIFFERS"] } else { &[] };
        let mut table = Table::new(names.iter().chain(&counts).chain(more).copied());
        for group in &self.groups {
            let name = |title: &&str| {
                let text = match *title {
                    "FROM" => &group.source,
                    "TO" => &group.destination,
                    "PORT" => &group.port,
                    "VERDICT" => &group.verdict,
                    "REASON" => &group.reason,
                    _ => &group.policy,
                };
                text.as_str().into()
            };
            let mut row: Vec<_> = names.iter().map(name).collect();
            let counts = [group.began, group.ended, group.bytes, group.reply_bytes, group.refused_packets];
            row.extend(counts.into_iter().map(Into::into));
            if wide {
                let more = [group.packets, group.reply_packets, group.staged_differs];
                row.extend(more.into_iter().map(Into::into));
            }
            table.row(row);
        }
        match table.is_empty() {
            true => writeln!(out, "No such flows were seen in that time.")?,
            false => table.print(out)?,
        }
        for (count, what) in [
            (self.lost, "were lost on their way from the dataplane's workers"),
            (self.beyond, "are in none of these: there were more different ones than are kept"),
        ] {
            if count > 0 {
                writeln!(out, "{count} records {what}.")?;
            }
        }
        Ok(())
    }
}
