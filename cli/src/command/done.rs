//! What a command prints that changes resources: one line an object.

use std::io::{self, Write as _};

use margay_agent::model::Key;
use margay_api::control::v1 as control;
use serde::Serialize;

use crate::{
    args::ObjectFormat,
    object,
    output::{Format, Output, View},
};

/// What was done to each object.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Done {
    /// In the order asked.
    pub objects: Vec<Object>,
    /// That the dataplane judges by; absent if nobody waited for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adopted_generation: Option<u64>,
    /// `client` or `server` if nothing was stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dry_run: Option<&'static str>,
}

/// What was done to one object.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Object {
    kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    namespace: String,
    name: String,
    outcome: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    resource_version: String,
}

impl Done {
    /// Notes down that the dataplane has adopted `generation`; 0 stands for none.
    pub fn adopted(&mut self, generation: u64) {
        if generation > 0 {
            self.adopted_generation = Some(generation);
        }
    }

    /// Prints it.
    pub fn show(&self, format: ObjectFormat, out: &mut Output) -> io::Result<()> {
        let format = match format {
            ObjectFormat::Table => Format::Table,
            ObjectFormat::Wide => Format::Wide,
            ObjectFormat::Json => Format::Json,
            ObjectFormat::Yaml => Format::Yaml,
            ObjectFormat::Jsonl => Format::Jsonl,
            ObjectFormat::Name => {
                return self.objects.iter().try_for_each(|object| writeln!(out, "{}", object.path()));
            }
        };
        out.show(self, format)
    }
}

impl Object {
    /// An object, and what became of it.
    pub fn new(key: &Key, outcome: &str) -> Self {
        Self {
            kind: key.kind.name().to_owned(),
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            outcome: outcome.to_owned(),
            resource_version: String::new(),
        }
    }

    fn path(&self) -> String {
        object::path(&self.kind, &self.name)
    }
}

impl From<control::Applied> for Object {
    fn from(from: control::Applied) -> Self {
        Self {
            kind: from.kind,
            namespace: from.namespace,
            name: from.name,
            outcome: from.outcome,
            resource_version: from.resource_version,
        }
    }
}

impl View for Done {
    const RECORDS: Option<&'static str> = Some("objects");

    fn text(&self, out: &mut Output, wide: bool) -> io::Result<()> {
        let suffix = self.dry_run.map(|run| format!(" ({run} dry run)")).unwrap_or_default();
        for object in &self.objects {
            let place = match object.namespace.as_str() {
                "" => String::new(),
                namespace => format!(" in namespace {namespace}"),
            };
            let version = match object.resource_version.as_str() {
                version if wide && !version.is_empty() => format!(", version {version}"),
                _ => String::new(),
            };
            writeln!(out, "{} {}{place}{version}{suffix}", object.path(), object.outcome)?;
        }
        Ok(())
    }
}
