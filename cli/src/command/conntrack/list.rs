//! `conntrack list`: printed as it comes, so that millions need no memory here.

use std::io::Write as _;

use margay_api::dataplane::v1 as api;
use tonic::Streaming;

use super::{advised, checked, flow::Flow};
use crate::{
    args::{ConntrackList, FlowFormat, Global},
    client,
    exit::{Code, Failure, Outcome},
    output::{Output, Table},
};

/// Lists what matches.
pub async fn run(global: &Global, args: &ConntrackList, out: &mut Output) -> Outcome {
    let mut list = Listing::begin(global, checked(&args.filter)?).await?;
    let mut printed = Printed::new(args.output);
    let mut left = args.limit.map(|limit| limit.get() as usize);
    printed.begin(out)?;
    while let Some(mut flows) = list.next().await? {
        if let Some(left) = &mut left {
            flows.truncate(*left);
            *left -= flows.len();
        }
        printed.flows(&flows, out)?;
        if left == Some(0) {
            break;
        }
    }
    printed.end(out)?;
    Ok(Code::Ok)
}

/// Sessions as they come.
pub struct Listing<'a> {
    global: &'a Global,
    stream: Streaming<api::ListFlowsResponse>,
}

impl<'a> Listing<'a> {
    /// Asks the dataplane.
    pub async fn begin(global: &'a Global, filter: String) -> Outcome<Self> {
        let mut dataplane = client::dataplane(global).await?;
        let call = dataplane.list_flows(api::ListFlowsRequest { filter });
        let answer = client::answer(global.timeout, "list the sessions", call).await.map_err(advised)?;
        Ok(Self { global, stream: answer.into_inner() })
    }

    /// Some more.
    pub async fn next(&mut self) -> Outcome<Option<Vec<Flow>>> {
        let call = self.stream.message();
        let message = client::answer(self.global.timeout, "list the sessions", call).await?;
        let unreadable = || {
            let next = "use the margayctl of the dataplane's release";
            Failure::new(Code::Failed, "cannot list the sessions", "one of them cannot be read", next)
        };
        let read = |of: api::ListFlowsResponse| of.flows.into_iter().map(Flow::read).collect::<Option<_>>();
        message.map(|message| read(message).ok_or_else(unreadable)).transpose()
    }
}

/// A list that is not over yet.
struct Printed {
    format: FlowFormat,
    table: Table,
    count: usize,
}

impl Printed {
    fn new(format: FlowFormat) -> Self {
        Self { format, table: Table::new(Flow::titles(format == FlowFormat::Wide)), count: 0 }
    }

    fn begin(&self, out: &mut Output) -> Outcome<()> {
        if self.format == FlowFormat::Json {
            write!(out, "{{\n  \"flows\": [")?;
        }
        Ok(())
    }

    fn flows(&mut self, flows: &[Flow], out: &mut Output) -> Outcome<()> {
        for flow in flows {
            match self.format {
                FlowFormat::Table | FlowFormat::Wide => {
                    self.table.row(flow.row(self.format == FlowFormat::Wide));
                }
                FlowFormat::Json => {
                    let text = serde_json::to_string_pretty(flow).map_err(std::io::Error::from)?;
                    let comma = if self.count > 0 { "," } else { "" };
                    write!(out, "{comma}\n    {}", text.replace('\n', "\n    "))?;
                }
                FlowFormat::Yaml => {
                    if self.count == 0 {
                        writeln!(out, "flows:")?;
                    }
                    out.yaml(&[flow])?;
                }
                FlowFormat::Jsonl => {
                    writeln!(out, "{}", serde_json::to_string(flow).map_err(std::io::Error::from)?)?;
                }
                FlowFormat::Name => writeln!(out, "{}", flow.name())?,
            }
            self.count += 1;
        }
        if !self.table.is_empty() {
            // The first ones say how wide the columns are.
            if self.count == flows.len() { self.table.print(out)? } else { self.table.print_rows(out)? }
        }
        Ok(out.flush()?)
    }

    fn end(&self, out: &mut Output) -> Outcome<()> {
        match (self.format, self.count) {
            (FlowFormat::Table | FlowFormat::Wide, 0) => writeln!(out, "No live session matches.")?,
            (FlowFormat::Yaml, 0) => writeln!(out, "flows: []")?,
            (FlowFormat::Json, 0) => writeln!(out, "]\n}}")?,
            (FlowFormat::Json, _) => writeln!(out, "\n  ]\n}}")?,
            _ => {}
        }
        Ok(())
    }
}
