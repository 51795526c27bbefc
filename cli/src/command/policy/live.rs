//! Which live sessions a change of policy would cut: asked of this node's dataplane, which compiles
//! the change beside what is in force.

use std::io::{self, Write as _};

use margay_api::{control::v1::GetStatusRequest, dataplane::v1 as api};
use serde::Serialize;

use crate::{
    args::Global,
    client,
    cluster::Cluster,
    command::conntrack::Flow,
    exit::{Code, Failure, Outcome},
    output::{Cell, Output, Table, Tone},
    readable::count,
};

/// Sessions that are named at most.
const LISTED: u32 = 100;
/// Of those, in a table for people.
const SHOWN: usize = 10;
/// Bytes of a message, about.
const MESSAGE: usize = 1 << 20;

/// What became of the sessions of one node.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Live {
    node: String,
    sessions: u64,
    /// Allowed now, denied then.
    pub cut: u64,
    denied_already: u64,
    /// The dataplane would cut them itself.
    recheck: bool,
    listed: Vec<Cut>,
}

#[derive(Serialize)]
struct Cut {
    session: Flow,
    /// The rule that would deny it; absent: its workload would be gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<String>,
}

/// Has the dataplane try what the agent would send it.
pub async fn ask(global: &Global, after: &Cluster) -> Outcome<Live> {
    let mut agent = client::agent(global).await?;
    let call = agent.get_status(GetStatusRequest {});
    let node = client::answer(global.timeout, "ask which node this is", call).await?.into_inner().node;
    let mut dataplane = client::dataplane(global).await?;
    let call = dataplane.dry_run(tokio_stream::iter(messages(after.transaction(&node))));
    let answer = client::answer(global.timeout, "try the policy on live sessions", call).await?.into_inner();
    if !answer.refused.is_empty() {
        let each = answer.refused.iter().map(|e| format!("{}: {}: {}", e.object, e.field, e.message));
        let cause = each.collect::<Vec<_>>().join("\n");
        let problem = format!("the dataplane of node {node} would refuse the objects");
        return Err(Failure::new(Code::Failed, problem, cause, "correct what is named above"));
    }
    let listed = answer.listed.into_iter().filter_map(|cut| {
        let by = cut.by.map(|by| {
            let rule = match (by.policy.as_str(), by.rule) {
                ("", _) if by.tier.is_empty() => "default".to_owned(),
                ("", _) => format!("default of tier {}", by.tier),
                (policy, 0..) => format!("{policy}[{}]", by.rule),
                (policy, _) => policy.to_owned(),
            };
            format!("{rule} at {}", by.endpoint)
        });
        Some(Cut { session: Flow::read(cut.flow?)?, by })
    });
    Ok(Live {
        node,
        sessions: answer.flows,
        cut: answer.cut,
        denied_already: answer.denied_already,
        recheck: answer.recheck,
        listed: listed.collect(),
    })
}

/// Changes in messages of a size that a server takes.
fn messages(changes: Vec<api::Change>) -> Vec<api::DryRunRequest> {
    let mut messages = vec![api::DryRunRequest { limit: LISTED, ..Default::default() }];
    let mut bytes = 0;
    for change in changes {
        let size = prost::Message::encoded_len(&change);
        if bytes > 0 && bytes + size > MESSAGE {
            messages.push(api::DryRunRequest::default());
            bytes = 0;
        }
        bytes += size;
        if let Some(last) = messages.last_mut() {
            last.changes.push(change);
        }
    }
    messages
}

impl Live {
    /// For people.
    pub fn text(&self, out: &mut Output, wide: bool) -> io::Result<()> {
        let Self { node, sessions, cut, .. } = self;
        let judged = count(*sessions, "live session", "live sessions");
        let fate = match (*cut, self.recheck) {
            (0, _) => "none would be denied".to_owned(),
            (_, true) => format!("{cut} would be cut"),
            (_, false) => {
                format!(
                    "{cut} would be denied, and live on until they end or `margayctl conntrack flush` ends them"
                )
            }
        };
        writeln!(out, "\nOn node {node}: {judged}, {fate}.")?;
        let shown = if wide { self.listed.len() } else { SHOWN };
        let mut table = Table::new(["PROTO", "ORIG", "STATE", "DENIED-BY"]);
        for Cut { session, by } in self.listed.iter().take(shown) {
            let mut cells = session.brief();
            let by = by.as_deref().unwrap_or("its workload would be gone");
            cells.push(Cell::toned(by, Tone::Bad));
            table.row(cells);
        }
        if !table.is_empty() {
            table.print(out)?;
        }
        let named = self.listed.len().min(shown) as u64;
        if *cut > named {
            writeln!(out, "And {} more.", cut - named)?;
        }
        if self.denied_already > 0 {
            let already = count(self.denied_already, "session is", "sessions are");
            writeln!(out, "{already} denied by the policy in force already, and live on.")?;
        }
        Ok(())
    }
}
