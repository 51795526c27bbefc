//! `get --watch`: resources as they are now, then every change.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Write as _},
};

use margay_agent::model::Kind;
use margay_api::control::v1::{self as control, watch_event::Type};
use serde_json::json;
use tonic::Streaming;

use super::get::namespace;
use crate::{
    args::{Get, Global, ObjectFormat},
    client,
    exit::{Code, Failure, Outcome},
    object::{Item, Shape},
    output::{Output, Table},
};

const ATTEMPT: &str = "watch the objects";

/// Prints until interrupted, or until nobody reads any more.
pub async fn run(global: &Global, args: &Get, out: &mut Output) -> Outcome {
    let [kind] = args.kinds.0[..] else {
        return Err(Failure::usage(
            "cannot watch several kinds at once",
            format!("there are {} kinds before --watch", args.kinds.0.len()),
            "watch each kind with a command of its own",
        ));
    };
    let request = control::WatchRequest {
        kind: kind.name().to_owned(),
        namespace: namespace(kind, args.namespace.as_deref(), args.all_namespaces),
        // One name the agent can look out for; of several we pick ours from all.
        name: if let [name] = args.names.as_slice() { name.clone() } else { String::new() },
        ..control::WatchRequest::default()
    };
    let wanted = |item: &Item| {
        (args.names.is_empty() || args.names.contains(&item.name))
            && args.selector.as_ref().is_none_or(|selector| selector.matches(&item.labels()))
    };

    let mut agent = client::agent(global).await?;
    let mut seen = Seen::default();
    let mut printer = Printer::new(args, kind);
    loop {
        let call = agent.watch(request.clone());
        let mut stream = client::answer(global.timeout, ATTEMPT, call).await?.into_inner();
        follow(&mut stream, &mut seen, &wanted, &mut printer, out).await?;
    }
}

/// Prints one stream. Returns when it could not keep up, and the objects must be listed again.
async fn follow(
    stream: &mut Streaming<control::WatchEvent>,
    seen: &mut Seen,
    wanted: &impl Fn(&Item) -> bool,
    printer: &mut Printer,
    out: &mut Output,
) -> Outcome<()> {
    let mut synced = false;
    seen.relist();
    loop {
        let event = match stream.message().await {
            Ok(Some(event)) => event,
            Ok(None) => {
                return Err(Failure::new(
                    Code::Unreachable,
                    format!("cannot {ATTEMPT} any longer"),
                    "the agent ended the stream",
                    "watch again when it is back: `margayctl status`",
                ));
            }
            // To list again is of use only if a list got through before.
            Err(status) if status.code() == tonic::Code::OutOfRange && synced => return Ok(()),
            Err(status) => return Err(Failure::rpc(ATTEMPT, &status)),
        };
        let kind = event.r#type();
        let changes = match (kind, event.object) {
            (Type::Synced, _) => {
                synced = true;
                seen.synced()
            }
            (Type::Added | Type::Modified, Some(object)) => {
                let item = Item::new(object)?;
                let wanted = wanted(&item);
                seen.stored(item, wanted).into_iter().collect()
            }
            (Type::Deleted, Some(object)) => seen.deleted(Item::new(object)?).into_iter().collect(),
            // The rest is said to agents.
            (Type::Unspecified | Type::Committed | Type::Resumed | Type::Store, _) | (_, None) => Vec::new(),
        };
        for change in &changes {
            printer.take(change, out)?;
        }
        if kind == Type::Synced {
            printer.synced(out)?;
        }
        out.flush()?;
    }
}

/// What the user has been shown: so that an object that stops matching is gone for the user
/// too, and a list that is read again repeats nothing.
#[derive(Default)]
struct Seen {
    items: BTreeMap<(String, String), Item>,
    /// Seen before the list that is being read, and not yet in it.
    stale: BTreeSet<(String, String)>,
}

#[derive(Clone, Debug, PartialEq)]
struct Change {
    event: &'static str,
    item: Item,
}

impl Seen {
    fn relist(&mut self) {
        self.stale = self.items.keys().cloned().collect();
    }

    fn stored(&mut self, item: Item, wanted: bool) -> Option<Change> {
        let key = key(&item);
        self.stale.remove(&key);
        if !wanted {
            return self.items.remove(&key).map(|_| Change { event: "DELETED", item });
        }
        match self.items.insert(key, item.clone()) {
            None => Some(Change { event: "ADDED", item }),
            Some(before) if before.resource_version == item.resource_version => None,
            Some(_) => Some(Change { event: "MODIFIED", item }),
        }
    }

    fn deleted(&mut self, item: Item) -> Option<Change> {
        let key = key(&item);
        self.stale.remove(&key);
        self.items.remove(&key).map(|_| Change { event: "DELETED", item })
    }

    /// The list is complete: what was not in it is gone.
    fn synced(&mut self) -> Vec<Change> {
        let gone = std::mem::take(&mut self.stale);
        let gone = gone.iter().filter_map(|key| self.items.remove(key));
        gone.map(|item| Change { event: "DELETED", item }).collect()
    }
}

fn key(item: &Item) -> (String, String) {
    (item.namespace.clone(), item.name.clone())
}

struct Printer {
    format: ObjectFormat,
    shape: Shape,
    table: Table,
    titled: bool,
}

impl Printer {
    fn new(args: &Get, kind: Kind) -> Self {
        let shape = Shape {
            kind,
            wide: args.output == ObjectFormat::Wide,
            with_namespace: args.all_namespaces && kind.is_namespaced(),
            with_kind: false,
        };
        // As wide as the longest event, which the list does not have.
        let table = Table::new(["EVENT   "].into_iter().chain(shape.titles()));
        Self { format: args.output, shape, table, titled: false }
    }

    fn take(&mut self, change: &Change, out: &mut Output) -> io::Result<()> {
        let Change { event, item } = change;
        let record = || json!({"type": event, "object": item.value});
        match self.format {
            ObjectFormat::Table | ObjectFormat::Wide => {
                let row = [(*event).into()].into_iter().chain(item.row(&self.shape));
                self.table.row(row.collect());
                // Rows of the list wait for one another, so that they line up.
                if self.titled { self.table.print_rows(out) } else { Ok(()) }
            }
            ObjectFormat::Name => writeln!(out, "{}", item.path()),
            ObjectFormat::Json => out.json(&record()),
            ObjectFormat::Jsonl => writeln!(out, "{}", record()),
            ObjectFormat::Yaml => {
                writeln!(out, "---")?;
                out.yaml(&record())
            }
        }
    }

    fn synced(&mut self, out: &mut Output) -> io::Result<()> {
        let table = matches!(self.format, ObjectFormat::Table | ObjectFormat::Wide);
        if !table || std::mem::replace(&mut self.titled, true) {
            return Ok(());
        }
        self.table.print(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(name: &str, version: &str) -> Item {
        Item {
            kind: Kind::Tier,
            namespace: String::new(),
            name: name.into(),
            resource_version: version.into(),
            value: json!({}),
        }
    }

    fn event(change: Option<Change>) -> Option<&'static str> {
        change.map(|change| change.event)
    }

    #[test]
    fn changes_are_what_they_are_to_the_user() {
        let mut seen = Seen::default();
        assert_eq!(event(seen.stored(item("a", "1"), true)), Some("ADDED"));
        assert_eq!(event(seen.stored(item("a", "2"), true)), Some("MODIFIED"));
        assert_eq!(event(seen.stored(item("b", "3"), false)), None);
        assert_eq!(event(seen.deleted(item("b", "4"))), None);
        assert_eq!(event(seen.deleted(item("a", "5"))), Some("DELETED"));
    }

    #[test]
    fn an_object_that_stops_matching_is_gone_and_can_come_back() {
        let mut seen = Seen::default();
        seen.stored(item("a", "1"), true);
        assert_eq!(event(seen.stored(item("a", "2"), false)), Some("DELETED"));
        assert_eq!(event(seen.stored(item("a", "3"), true)), Some("ADDED"));
    }

    #[test]
    fn a_second_list_tells_only_what_is_new() {
        let mut seen = Seen::default();
        for name in ["same", "changed", "gone"] {
            seen.stored(item(name, "1"), true);
        }
        assert!(seen.synced().is_empty());
        seen.relist();
        assert_eq!(event(seen.stored(item("same", "1"), true)), None);
        assert_eq!(event(seen.stored(item("changed", "2"), true)), Some("MODIFIED"));
        assert_eq!(event(seen.stored(item("new", "3"), true)), Some("ADDED"));
        assert_eq!(seen.synced(), [Change { event: "DELETED", item: item("gone", "1") }]);
    }
}
