//! Resources: what they are read from, and how they are changed and shown.

use std::path::PathBuf;

use clap::{ArgAction, Args, ValueEnum};
use margay_agent::model::{Kind, Selector, UnknownKind};

/// `apply`, `create` and `replace`.
#[derive(Args, Debug)]
pub struct Store {
    #[command(flatten)]
    pub source: Source,

    /// Only check: here (client), or against the server's state (server).
    #[arg(long, value_name = "WHERE", default_value = "none", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "client")]
    pub dry_run: DryRun,

    #[command(flatten)]
    pub adoption: Adoption,

    /// How to print what was done.
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub output: ObjectFormat,
}

/// Where objects are read from.
#[derive(Args, Debug)]
pub struct Source {
    /// A file, a directory of .yaml, .yml and .json files, or - for standard input.
    #[arg(short, long = "filename", value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,

    /// The namespace of objects that name none.
    #[arg(short, long)]
    pub namespace: Option<String>,
}

/// Whether to wait for the dataplane.
#[derive(Args, Debug)]
pub struct Adoption {
    /// Return only when the dataplane judges packets by the change.
    #[arg(long, value_name = "BOOL", default_value_t = true, action = ArgAction::Set)]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub wait: bool,
}

/// `--dry-run`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DryRun {
    /// Store the objects.
    None,
    /// Validate here, without a server.
    Client,
    /// Validate against the server's state.
    Server,
}

/// `delete`.
#[derive(Args, Debug)]
pub struct Delete {
    /// The kind, in any spelling: networkpolicy, networkpolicies, netpol...
    #[arg(required_unless_present = "files", conflicts_with = "files", requires = "names")]
    #[arg(value_parser = Kind::parse)]
    pub kind: Option<Kind>,

    /// The names.
    pub names: Vec<String>,

    /// Delete what these files list.
    #[arg(short, long = "filename", value_name = "FILE")]
    pub files: Vec<PathBuf>,

    /// The namespace; "default" if not given.
    #[arg(short, long)]
    pub namespace: Option<String>,

    /// Take an object that is not there for deleted.
    #[arg(long)]
    pub ignore_not_found: bool,

    #[command(flatten)]
    pub adoption: Adoption,

    /// How to print what was done.
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub output: ObjectFormat,
}

/// `get`.
#[derive(Args, Debug)]
pub struct Get {
    /// One kind or several, in any spelling: tiers,globalnetworkpolicies.
    #[arg(value_name = "KIND[,KIND]", value_parser = kinds)]
    pub kinds: Kinds,

    /// Only these.
    pub names: Vec<String>,

    /// The namespace; "default" if not given.
    #[arg(short, long, conflicts_with = "all_namespaces")]
    pub namespace: Option<String>,

    /// Of all namespaces.
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,

    /// Only those whose labels match, as in 'role == "web"'.
    #[arg(short = 'l', long, conflicts_with = "names", value_parser = Selector::parse)]
    pub selector: Option<Selector>,

    /// How to print them; json and yaml can be fed back into apply.
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub output: ObjectFormat,

    /// Then print every change, until interrupted.
    #[arg(short, long)]
    pub watch: bool,
}

/// The kinds that `get` shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kinds(pub Vec<Kind>);

/// The formats of resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ObjectFormat {
    /// For people; may change from version to version.
    Table,
    /// The table with more columns.
    Wide,
    /// For programs.
    Json,
    /// The same as YAML.
    Yaml,
    /// One object a line.
    Jsonl,
    /// kind/name, one a line.
    Name,
}

/// `validate`.
#[derive(Args, Debug)]
pub struct Validate {
    #[command(flatten)]
    pub source: Source,
}

/// `label`.
#[derive(Args, Debug)]
pub struct Label {
    /// The kind, in any spelling.
    #[arg(value_parser = Kind::parse)]
    pub kind: Kind,

    /// The name.
    pub name: String,

    /// KEY=VALUE sets a label, KEY- removes it.
    #[arg(required = true, value_name = "KEY=VALUE|KEY-", value_parser = label_change)]
    pub changes: Vec<LabelChange>,

    /// The namespace; "default" if not given.
    #[arg(short, long)]
    pub namespace: Option<String>,

    /// Change labels that have another value already.
    #[arg(long)]
    pub overwrite: bool,

    #[command(flatten)]
    pub adoption: Adoption,
}

/// One change of `label`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelChange {
    /// The label.
    pub key: String,
    /// Its new value; none: removed.
    pub value: Option<String>,
}

fn kinds(text: &str) -> Result<Kinds, UnknownKind> {
    text.split(',').map(Kind::parse).collect::<Result<_, _>>().map(Kinds)
}

fn label_change(text: &str) -> Result<LabelChange, String> {
    let (key, value) = match (text.split_once('='), text.strip_suffix('-')) {
        (Some((key, value)), _) => (key, Some(value.to_owned())),
        (None, Some(key)) => (key, None),
        (None, None) => return Err("write KEY=VALUE to set a label, KEY- to remove it".to_owned()),
    };
    if key.is_empty() {
        return Err("the label's name is missing".to_owned());
    }
    Ok(LabelChange { key: key.to_owned(), value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_changes() {
        let change = |key: &str, value: Option<&str>| {
            Ok(LabelChange { key: key.to_owned(), value: value.map(str::to_owned) })
        };
        assert_eq!(label_change("role=web"), change("role", Some("web")));
        assert_eq!(label_change("role="), change("role", Some("")));
        assert_eq!(label_change("role-"), change("role", None));
        assert_eq!(label_change("a=b-"), change("a", Some("b-")));
        assert!(label_change("=x").is_err() && label_change("-").is_err() && label_change("x").is_err());
    }
}
