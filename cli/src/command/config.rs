//! `config show`: every setting of the node's processes, and of the store for it.

use std::io::{self, Write as _};

use margay_api::{
    control::v1::{GetConfigRequest, GetConfigResponse},
    dataplane::v1 as api,
};
use serde::Serialize;

use crate::{
    args::{Config as Command, Global},
    client,
    exit::{Code, Outcome},
    output::{Cell, Output, Table, View},
};

/// Asks the agent, which asks the dataplane.
pub async fn run(global: &Global, command: &Command, out: &mut Output) -> Outcome {
    let Command::Show(args) = command;
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
