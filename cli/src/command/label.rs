//! `label`: reads an object, changes its labels, and writes it back unless it changed meanwhile.

use std::{collections::BTreeMap, io::Write as _};

use margay_api::control::v1::{self as control, apply_request::Mode};
use serde_json::json;

use super::{
    get::{fetch, namespace, not_found},
    store::send,
};
use crate::{
    args::{Global, Label, LabelChange},
    client,
    exit::{Code, Failure, Outcome},
    output::Output,
};

/// Changes the labels.
pub async fn run(global: &Global, args: &Label, out: &mut Output) -> Outcome {
    let kind = args.kind;
    let namespace = namespace(kind, args.namespace.as_deref(), false);
    let request = control::GetRequest {
        kind: kind.name().to_owned(),
        namespace: namespace.clone(),
        name: args.name.clone(),
        selector: String::new(),
    };
    let mut agent = client::agent(global).await?;
    let Some(mut item) = fetch(global, &mut agent, request).await?.into_iter().next() else {
        return Err(not_found(kind, &namespace, &args.name));
    };
    let before = item.labels();
    let mut labels = before.clone();
    change(&mut labels, &args.changes, args.overwrite)?;
    if labels == before {
        writeln!(out, "{} unchanged", item.path())?;
        return Ok(Code::Ok);
    }
    item.value["metadata"]["labels"] = json!(labels);
    // With the version that was read: the agent refuses it if somebody was faster.
    let request = control::ApplyRequest {
        objects: vec![item.value.to_string()],
        dry_run: false,
        wait: args.adoption.wait,
        mode: Mode::Replace.into(),
        agent: false,
    };
    send(global, request, "label").await?;
    writeln!(out, "{} labeled", item.path())?;
    Ok(Code::Ok)
}

fn change(labels: &mut BTreeMap<String, String>, changes: &[LabelChange], overwrite: bool) -> Outcome<()> {
    for LabelChange { key, value } in changes {
        let Some(value) = value else {
            labels.remove(key);
            continue;
        };
        match labels.get(key) {
            Some(present) if present != value && !overwrite => {
                return Err(Failure::new(
                    Code::Conflict,
                    format!("cannot set the label {key} to {value:?}"),
                    format!("it has the value {present:?}"),
                    "add --overwrite to change it",
                ));
            }
            _ => labels.insert(key.clone(), value.clone()),
        };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(changes: &[(&str, Option<&str>)], overwrite: bool) -> Outcome<String> {
        let mut labels = BTreeMap::from([("role".to_owned(), "web".to_owned())]);
        let changes: Vec<_> = changes
            .iter()
            .map(|(key, value)| LabelChange { key: (*key).into(), value: value.map(str::to_owned) })
            .collect();
        change(&mut labels, &changes, overwrite)?;
        Ok(labels.iter().map(|(key, value)| format!("{key}={value} ")).collect())
    }

    #[test]
    fn labels_are_set_and_removed() {
        assert_eq!(changed(&[("zone", Some("a")), ("role", None)], false).unwrap(), "zone=a ");
        assert_eq!(changed(&[("none", None)], false).unwrap(), "role=web ");
        assert_eq!(changed(&[("role", Some("web"))], false).unwrap(), "role=web ");
    }

    #[test]
    fn another_value_is_changed_only_on_demand() {
        assert_eq!(changed(&[("role", Some("db"))], false).unwrap_err().code, Code::Conflict);
        assert_eq!(changed(&[("role", Some("db"))], true).unwrap(), "role=db ");
    }
}
