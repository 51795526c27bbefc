//! Manifests into objects: strictly, and with every error at once.
//!
//! Text is YAML or JSON, of one or more documents, each an object, a `List` or a list of objects. Nothing is
//! guessed and nothing dropped but what only a server writes (`status`, `managedFields`,
//! `selfLink`): a field that does not exist is an error that names the nearest one.

mod decode;
mod documents;
mod strict;
mod tree;

use std::collections::BTreeMap;

use serde_json::{Map, Value};

pub(super) use decode::{Decoding, decode};

use super::kind::{Key, Kind, shorten};
use super::resource::{API_VERSION, Resource};

/// The largest input, in bytes.
pub const MAX_INPUT: usize = 16 << 20;

/// Reported at most; whoever has more than this has another problem.
const MAX_ERRORS: usize = 100;

/// What is wrong with one part of the input.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{field}{}{message}", .place, if .field.is_empty() { "" } else { ": " })]
pub struct LoadError {
    /// Which document, from 1.
    pub document: usize,
    /// The line of the error where it is known, else the one on which the document starts; from 1.
    pub line: usize,
    /// As in `spec.ingress[0].souce`; empty for the document as a whole.
    pub field: String,
    /// What is wrong and what to do.
    pub message: String,
    place: String,
}

/// Reads every object of a manifest. Either all are returned or none.
///
/// Objects are neither defaulted nor validated: see [`Resource::admit`].
pub fn load(text: &str) -> Result<Vec<Resource>, Vec<LoadError>> {
    let (objects, errors) = sift(text);
    if errors.is_empty() { Ok(objects) } else { Err(errors) }
}

/// Reads what can be read of a manifest, and says what cannot: for whoever reports all that is wrong at once.
pub fn sift(text: &str) -> (Vec<Resource>, Vec<LoadError>) {
    let mut loader = Loader::default();
    loader.all(text);
    (loader.objects, loader.errors)
}

/// Reads one object in JSON, as a store keeps it.
pub(super) fn one(text: &str) -> Result<Resource, Vec<LoadError>> {
    let mut loader = Loader { document: 1, line: 1, ..Loader::default() };
    if text.len() > MAX_INPUT {
        loader.error("", format!("{} bytes; the largest object is {MAX_INPUT}", text.len()));
    } else {
        match documents::json(text) {
            Ok(value) => loader.object(value, "", None),
            Err(problem) => loader.error("", problem.message),
        }
    }
    match loader.objects.pop() {
        Some(object) if loader.errors.is_empty() => Ok(object),
        _ => Err(loader.errors),
    }
}

#[derive(Default)]
struct Loader {
    objects: Vec<Resource>,
    errors: Vec<LoadError>,
    /// Where each object was first seen.
    seen: BTreeMap<Key, usize>,
    document: usize,
    line: usize,
}

impl Loader {
    fn all(&mut self, text: &str) {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        if text.len() > MAX_INPUT {
            self.document = 1;
            self.line = 1;
            self.error("", format!("{} bytes; the largest input is {MAX_INPUT}, split it", text.len()));
            return;
        }
        documents::each(text, &mut |line, document| {
            self.document += 1;
            self.line = line;
            match document {
                Ok(value) => self.document(value),
                Err(problem) => {
                    self.line = problem.line;
                    self.error("", problem.message);
                }
            }
            self.errors.len() < MAX_ERRORS
        });
    }

    fn document(&mut self, value: Value) {
        let mut list = match value {
            Value::Object(list) => list,
            // Objects side by side, as programs write them.
            Value::Array(items) => {
                return items
                    .into_iter()
                    .enumerate()
                    .for_each(|(i, item)| self.object(item, &format!("[{i}]"), None));
            }
            other => return self.object(other, "", None),
        };
        let kind = list.get("kind").and_then(Value::as_str).unwrap_or_default();
        // A list of one kind gives its items theirs; a plain List does not.
        let version = list.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
        let item_kind = match kind.strip_suffix("List") {
            Some("") => None,
            Some(prefix) => find(prefix, Some(version)),
            None => return self.object(Value::Object(list), "", None),
        };
        if item_kind.is_none() && kind != "List" {
            return self.object(Value::Object(list), "", None);
        }
        if !matches!(version, "v1" | API_VERSION) && item_kind.is_none_or(|kind| !kind.has_version(version)) {
            let message =
                format!("{:?} is not the version of a list; write v1 or {API_VERSION}", shorten(version));
            self.error("apiVersion", message);
        }
        match list.remove("items") {
            Some(Value::Array(items)) => {
                for (i, item) in items.into_iter().enumerate() {
                    self.object(item, &format!("items[{i}]"), item_kind);
                }
            }
            None => {}
            Some(_) => self.error("items", "not a list; start each object with '- '".to_owned()),
        }
        for field in list.keys().filter(|k| !matches!(k.as_str(), "apiVersion" | "kind" | "metadata")) {
            self.error(field, "unknown field of a list; did you mean items?".to_owned());
        }
    }

    fn object(&mut self, value: Value, at: &str, kind_of_list: Option<Kind>) {
        let Value::Object(mut body) = value else {
            return self.error(at, "not an object; write apiVersion, kind, metadata and spec".to_owned());
        };
        let dot = if at.is_empty() { "" } else { "." };
        let version = body.remove("apiVersion");
        let kind = body.remove("kind");
        let kind = match (kind_of_list, kind) {
            (Some(kind), None) => kind,
            (_, kind) => match kind_of(kind.as_ref(), version.as_ref()) {
                Ok(kind) => kind,
                Err(message) => return self.error(&format!("{at}{dot}kind"), message),
            },
        };
        if let Err(message) = check_version(version.as_ref(), kind, kind_of_list.is_some()) {
            return self.error(&format!("{at}{dot}apiVersion"), message);
        }
        // A node's status is its own report of itself, a pod's says where it is, and a service's which
        // addresses a load balancer gave it.
        drop_what_servers_write(
            &mut body,
            matches!(kind, Kind::Node | Kind::KubernetesNode | Kind::Pod | Kind::Service),
        );
        let name = display_name(kind, &body);
        match Resource::decode(kind, Value::Object(body)) {
            Ok(resource) => self.add(resource, at),
            Err(problems) => self.undecodable(&name, at, problems),
        }
    }

    fn undecodable(&mut self, name: &str, at: &str, Decoding(problems): Decoding) {
        for (field, message) in problems {
            let dot = if at.is_empty() || field.is_empty() { "" } else { "." };
            self.error_of(Some(name), &format!("{at}{dot}{field}"), message);
        }
    }

    fn add(&mut self, resource: Resource, at: &str) {
        let mut key = resource.key();
        if key.kind.is_namespaced() && key.namespace.is_empty() {
            "default".clone_into(&mut key.namespace);
        }
        // Objects without a name are all alike, and refused later for that.
        if !key.name.is_empty() {
            match self.seen.get(&key) {
                Some(first) => {
                    let message = format!("given twice, first in document {first}; give it once");
                    self.error_of(Some(&key.to_string()), at, message);
                }
                None => {
                    self.seen.insert(key, self.document);
                }
            }
        }
        self.objects.push(resource);
    }

    fn error(&mut self, field: &str, message: String) {
        self.error_of(None, field, message);
    }

    fn error_of(&mut self, object: Option<&str>, field: &str, message: String) {
        let Self { document, line, .. } = *self;
        let place = match object {
            Some(object) => format!("document {document} (line {line}), {object}: "),
            None => format!("document {document} (line {line}): "),
        };
        self.errors.push(LoadError { document, line, field: field.to_owned(), message, place });
    }
}

/// The kind that manifests of that version spell so; of any version, where none of that has it.
fn find(name: &str, version: Option<&str>) -> Option<Kind> {
    let named = || Kind::ALL.into_iter().filter(|kind| kind.manifest_name() == name);
    named().find(|kind| version.is_some_and(|version| kind.has_version(version))).or_else(|| named().next())
}

fn kind_of(kind: Option<&Value>, version: Option<&Value>) -> Result<Kind, String> {
    let Some(kind) = kind else {
        return Err(format!("missing; name one of {}", Kind::ALL.map(Kind::manifest_name).join(", ")));
    };
    let Some(name) = kind.as_str() else {
        return Err("not a string; write a kind as in NetworkPolicy".to_owned());
    };
    // Manifests spell kinds exactly; commands are given more freedom.
    match find(name, version.and_then(Value::as_str)) {
        Some(kind) => Ok(kind),
        None => match Kind::parse(name) {
            Ok(kind) => {
                let (name, kind, version) = (shorten(name), kind.manifest_name(), kind.api_version());
                Err(format!("{name:?} is not a kind; did you mean {kind} of {version}?"))
            }
            Err(unknown) => Err(unknown.to_string()),
        },
    }
}

fn check_version(version: Option<&Value>, kind: Kind, in_list: bool) -> Result<(), String> {
    match version.map(|v| v.as_str().unwrap_or_default()) {
        Some(version) if kind.has_version(version) => Ok(()),
        None if in_list => Ok(()),
        None => Err(format!("missing; write {}", kind.api_version())),
        Some(other) => {
            let (name, known) = (kind.manifest_name(), kind.api_version());
            Err(format!("{:?} has no {name} that this release knows; write {known}", shorten(other)))
        }
    }
}

/// What a `get` shows and an `apply` of the same text must not trip over.
fn drop_what_servers_write(body: &mut Map<String, Value>, keep_status: bool) {
    if !keep_status {
        body.remove("status");
    }
    if let Some(Value::Object(metadata)) = body.get_mut("metadata") {
        metadata.remove("managedFields");
        metadata.remove("selfLink");
        metadata.remove("deletionTimestamp");
        metadata.remove("deletionGracePeriodSeconds");
    }
}

fn display_name(kind: Kind, body: &Map<String, Value>) -> String {
    let text =
        |field: &str| body.get("metadata").and_then(|m| m.get(field)).and_then(Value::as_str).unwrap_or("");
    let (namespace, name) = (shorten(text("namespace")), shorten(text("name")));
    if kind.is_namespaced() {
        let namespace = if namespace.is_empty() { "default" } else { &namespace };
        format!("{kind} {namespace}/{name}")
    } else {
        format!("{kind} {name}")
    }
}

#[cfg(test)]
mod tests;
