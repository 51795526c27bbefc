//! `config`: every setting of the node's processes, and of the store for it; and what can be changed while they run.

use std::io::{self, Write as _};

use margay_api::{
    control::v1::{self as control, GetConfigRequest, GetConfigResponse, SetLogRequest},
    dataplane::v1 as api,
};
use serde::Serialize;

use crate::{
    args::{Config as Command, ConfigShow, Global, Process},
    client,
    exit::{Code, Outcome},
    output::{Cell, Output, Table, View},
};

/// Asks the agent, which asks the dataplane.
pub async fn run(global: &Global, command: &Command, out: &mut Output) -> Outcome {
    match command {
        Command::Show(args) => show(global, args, out).await,
        Command::Set(args) => log(global, &args.value, args.of, out).await,
        Command::Unset(args) => log(global, "", args.of, out).await,
    }
}

/// Has processes log by this filter; where it is empty, by the one that they were started with.
async fn log(global: &Global, filter: &str, of: Option<Process>, out: &mut Output) -> Outcome {
    let mut agent = client::agent(global).await?;
    let mut told = false;
    for (process, name, number) in [
        (Process::Agent, "agent", control::set_log_request::Process::Agent),
        (Process::Dataplane, "dataplane", control::set_log_request::Process::Dataplane),
    ] {
        if of.is_some_and(|of| of != process) {
            continue;
        }
        let request = SetLogRequest { process: number.into(), filter: filter.to_owned() };
        let attempt = format!("change what the {name} logs");
        match client::answer(global.timeout, &attempt, agent.set_log(request)).await {
            Ok(answer) => {
                let since = if filter.is_empty() { "as it was started" } else { "until it ends" };
                writeln!(out, "{name}: log is {}, {since}", answer.into_inner().filter)?;
                told = true;
            }
            Err(failure) if told => return Err(failure.after_a_part()),
            Err(failure) => return Err(failure),
        }
    }
    Ok(Code::Ok)
}

async fn show(global: &Global, args: &ConfigShow, out: &mut Output) -> Outcome {
    let mut agent = client::agent(global).await?;
    let call = agent.get_config(GetConfigRequest {});
    let answer = client::answer(global.timeout, "ask for the settings", call).await?.into_inner();
    let settings = Settings::new(answer, args.origin);
    out.show(&settings, args.output)?;
    Ok(if settings.dataplane_problem.is_empty() { Code::Ok } else { Code::Problems })
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Settings {
    node: String,
    settings: Vec<Setting>,
    /// Why the dataplane's are missing.
    #[serde(skip_serializing_if = "String::is_empty")]
    dataplane_problem: String,
    /// People asked for it.
    #[serde(skip)]
    origin: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Setting {
    /// agent, dataplane or store.
    of: &'static str,
    name: String,
    value: String,
    origin: &'static str,
    /// The flag, variable, line of a file, or object.
    #[serde(skip_serializing_if = "String::is_empty")]
    source: String,
    needs_restart: bool,
}

impl Settings {
    fn new(from: GetConfigResponse, origin: bool) -> Self {
        let all = [("agent", from.agent), ("dataplane", from.dataplane), ("store", from.store)];
        let each = |(of, settings): (&'static str, Vec<api::Setting>)| {
            settings.into_iter().map(move |one| Setting::new(of, one))
        };
        Self {
            node: from.node,
            settings: all.into_iter().flat_map(each).collect(),
            dataplane_problem: from.dataplane_problem,
            origin,
        }
    }
}

impl Setting {
    fn new(of: &'static str, from: api::Setting) -> Self {
        use api::setting::Origin;
        let origin = match from.origin() {
            Origin::Default => "default",
            Origin::File => "file",
            Origin::Environment => "environment",
            Origin::Flag => "flag",
            Origin::Cluster => "store-global",
            Origin::Node => "store-node",
            Origin::RunTime => "run-time",
            Origin::Unspecified => "unknown",
        };
        let api::Setting { name, value, source, needs_restart, .. } = from;
        Self { of, name, value, origin, source, needs_restart }
    }
}

impl View for Settings {
    const RECORDS: Option<&'static str> = Some("settings");

    fn text(&self, out: &mut Output, wide: bool) -> io::Result<()> {
        let origin = self.origin || wide;
        let mut heads = vec!["OF", "SETTING", "VALUE", "TAKES EFFECT"];
        heads.extend(origin.then_some(["ORIGIN", "SOURCE"]).into_iter().flatten());
        let mut table = Table::new(heads);
        for setting in &self.settings {
            let effect = if setting.needs_restart { "at a restart" } else { "at once" };
            let mut row: Vec<Cell> = vec![
                setting.of.into(),
                setting.name.as_str().into(),
                setting.value.as_str().into(),
                effect.into(),
            ];
            if origin {
                row.extend([Cell::from(setting.origin), setting.source.as_str().into()]);
            }
            table.row(row);
        }
        table.print(out)?;
        if !self.dataplane_problem.is_empty() {
            writeln!(out, "\nThe dataplane cannot be asked for its settings: {}", self.dataplane_problem)?;
        }
        Ok(())
    }
}
