//! `get`: resources as they are now.

use std::{
    collections::BTreeSet,
    io::{self, Write as _},
};

use margay_agent::model::Kind;
use margay_api::control::v1::{self as control, control_client::ControlClient};
use serde_json::{Value, json};
use tonic::transport::Channel;

use crate::{
    args::{Get, Global, ObjectFormat},
    client,
    exit::{Code, Failure, Outcome},
    object::{Item, Shape},
    output::Output,
};

/// The namespace of who names none.
const DEFAULT_NAMESPACE: &str = "default";

/// Asks for each kind, and each name; shows what there is, then complains of what there is not.
pub async fn run(global: &Global, args: &Get, out: &mut Output) -> Outcome {
    let mut agent = client::agent(global).await?;
    let mut items = Vec::new();
    let mut missing = Vec::new();
    for kind in args.kinds.0.iter().copied() {
        let mut request = control::GetRequest {
            kind: kind.name().to_owned(),
            namespace: namespace(kind, args.namespace.as_deref(), args.all_namespaces),
            name: String::new(),
            selector: args
                .selector
                .as_ref()
                .map(|selector| selector.canonical().to_owned())
                .unwrap_or_default(),
        };
        if args.names.is_empty() {
            items.extend(fetch(global, &mut agent, request.clone()).await?);
        }
        for name in &args.names {
            request.name.clone_from(name);
            match fetch(global, &mut agent, request.clone()).await {
                Ok(found) if found.is_empty() => missing.push(not_found(kind, &request.namespace, name)),
                Ok(found) => items.extend(found),
                Err(failure) if failure.code == Code::NotFound => missing.push(failure),
                Err(failure) => return Err(failure),
            }
        }
    }
    if !items.is_empty() || missing.is_empty() {
        show(args, &items, out)?;
    }
    let asked = args.kinds.0.len() * args.names.len();
    let found = asked - missing.len();
    Failure::of_several("get", missing, found, asked)
}

/// The namespace to ask for: none for kinds without namespaces, or for all of them.
pub fn namespace(kind: Kind, given: Option<&str>, all: bool) -> String {
    match kind.is_namespaced() && !all {
        true => given.unwrap_or(DEFAULT_NAMESPACE).to_owned(),
        false => String::new(),
    }
}

/// Asks the agent for objects.
pub async fn fetch(
    global: &Global,
    agent: &mut ControlClient<Channel>,
    request: control::GetRequest,
) -> Outcome<Vec<Item>> {
    let attempt = match request.name.as_str() {
        "" => format!("get objects of the kind {}", request.kind),
        name => format!("get {}", crate::object::path(&request.kind, name)),
    };
    let answer = client::answer(global.timeout, &attempt, agent.get(request)).await?.into_inner();
    answer.objects.into_iter().map(Item::new).collect()
}

/// The failure of a name that nothing has.
pub fn not_found(kind: Kind, namespace: &str, name: &str) -> Failure {
    let place = if namespace.is_empty() { String::new() } else { format!(" in the namespace {namespace}") };
    Failure::new(
        Code::NotFound,
        format!("cannot get {}", crate::object::path(kind.name(), name)),
        format!("there is no {kind} of that name{place}"),
        format!("see what there is with `margayctl get {} -A`", kind.plural()),
    )
}

fn show(args: &Get, items: &[Item], out: &mut Output) -> io::Result<()> {
    match args.output {
        ObjectFormat::Table | ObjectFormat::Wide => tables(args, items, out),
        ObjectFormat::Name => items.iter().try_for_each(|item| writeln!(out, "{}", item.path())),
        ObjectFormat::Json => out.json(&document(args, items)),
        ObjectFormat::Yaml => out.yaml(&document(args, items)),
        ObjectFormat::Jsonl => items.iter().try_for_each(|item| writeln!(out, "{}", item.value)),
    }
}

/// One object for one name, a list for everything else.
fn document(args: &Get, items: &[Item]) -> Value {
    match items {
        [only] if args.kinds.0.len() == 1 && args.names.len() == 1 => only.value.clone(),
        items => {
            let values: Vec<_> = items.iter().map(|item| &item.value).collect();
            json!({"apiVersion": "v1", "kind": "List", "items": values})
        }
    }
}

fn tables(args: &Get, items: &[Item], out: &mut Output) -> io::Result<()> {
    if items.is_empty() {
        let place = match (&args.namespace, args.all_namespaces) {
            (Some(namespace), _) => format!(" in the namespace {namespace}"),
            _ => String::new(),
        };
        return writeln!(io::stderr(), "No resources found{place}.");
    }
    let kinds: BTreeSet<Kind> = items.iter().map(|item| item.kind).collect();
    for (index, kind) in kinds.iter().copied().enumerate() {
        if index > 0 {
            writeln!(out)?;
        }
        let shape = Shape {
            kind,
            wide: args.output == ObjectFormat::Wide,
            with_namespace: args.all_namespaces && kind.is_namespaced(),
            with_kind: kinds.len() > 1,
        };
        shape.print(items.iter().filter(|item| item.kind == kind), out)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_kinds_with_namespaces_are_asked_for_by_one() {
        assert_eq!(namespace(Kind::NetworkPolicy, None, false), "default");
        assert_eq!(namespace(Kind::NetworkPolicy, Some("shop"), false), "shop");
        assert_eq!(namespace(Kind::NetworkPolicy, None, true), "");
        assert_eq!(namespace(Kind::Tier, Some("shop"), false), "");
    }
}
