//! Who changed what: a line of JSON for each object, and for each request that was refused.

use super::Caller;
use crate::model::scalar::Timestamp;
use margay_api::control::v1::Applied;
use serde_json::{Value, json};
use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::SystemTime,
};
use tonic::Status;

/// Where the lines go, if they go anywhere.
#[derive(Debug, Default)]
pub struct Audit(Option<Mutex<File>>);

/// There is no such file.
#[derive(Debug, thiserror::Error)]
#[error("the audit log {path}: {error}")]
pub struct AuditError {
    path: PathBuf,
    error: io::Error,
}

/// What became of an object.
#[derive(Debug)]
pub struct Written {
    /// Of the object.
    pub kind: String,
    /// Empty: it is of none.
    pub namespace: String,
    /// Of the object.
    pub name: String,
    /// `created`, `configured`, `unchanged` or `deleted`.
    pub outcome: String,
    /// It has now; empty: none.
    pub resource_version: String,
}

impl From<&Applied> for Written {
    fn from(applied: &Applied) -> Self {
        let Applied { kind, namespace, name, outcome, resource_version } = applied.clone();
        Self { kind, namespace, name, outcome, resource_version }
    }
}

impl Audit {
    /// Lines are added to this file, which is made if need be, for its owner to read.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn to(path: &Path) -> Result<Self, AuditError> {
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path);
        let file = file.map_err(|error| AuditError { path: path.to_owned(), error })?;
        Ok(Self(Some(Mutex::new(file))))
    }

    /// A request of this caller did so, or was refused. `what` names it where no object does.
    pub fn note(&self, caller: &Caller, verb: &str, what: &str, done: Result<&[Written], &Status>) {
        let Some(file) = &self.0 else { return };
        let line = |more: Value| {
            let mut line = json!({
                "time": Timestamp::from(SystemTime::now()).to_string(),
                "caller": caller.name, "role": caller.role.to_string(), "verb": verb,
            });
            if let (Some(line), Value::Object(more)) = (line.as_object_mut(), more) {
                line.extend(more);
            }
            format!("{line}\n")
        };
        let text: String = match done {
            Ok([]) => line(json!({"request": what, "outcome": "done"})),
            Ok(written) => written.iter().map(|written| line(object(written))).collect(),
            Err(status) => {
                let code = format!("{:?}", status.code());
                line(json!({"request": what, "outcome": "refused", "code": code, "error": status.message()}))
            }
        };
        // One write: lines of several calls are not mixed.
        let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = file.write_all(text.as_bytes()) {
            tracing::error!(%error, text, "A008 the audit log cannot be written");
        }
    }
}

fn object(written: &Written) -> Value {
    let Written { kind, namespace, name, outcome, resource_version } = written;
    json!({"kind": kind, "namespace": namespace, "name": name, "outcome": outcome, "resourceVersion": resource_version})
}

#[cfg(test)]
mod tests {
    use super::{super::Role, *};
    use std::fs;

    #[test]
    fn a_line_for_each_object_and_each_refusal() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        let ann = Caller::new("ann", Role::Operator);
        let written = |name: &str| Written {
            kind: "NetworkPolicy".into(),
            namespace: "shop".into(),
            name: name.into(),
            outcome: "created".into(),
            resource_version: "7".into(),
        };
        Audit::to(&path).unwrap().note(&ann, "apply", "2 objects", Ok(&[written("web"), written("db")]));
        // Again, as after a restart: nothing that was written is lost.
        let audit = Audit::to(&path).unwrap();
        audit.note(&ann, "apply", "1 objects", Err(&Status::permission_denied("no\nway")));
        audit.note(&ann, "confirm", "3 lost objects", Ok(&[]));
        let text = fs::read_to_string(&path).unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let of =
            |field: &str| lines.iter().map(|line| line[field].as_str().unwrap_or("-")).collect::<Vec<_>>();
        assert_eq!(of("name"), ["web", "db", "-", "-"]);
        assert_eq!(of("outcome"), ["created", "created", "refused", "done"]);
        assert_eq!(of("caller"), ["ann"; 4]);
        assert_eq!((&lines[2]["code"], &lines[2]["error"]), (&json!("PermissionDenied"), &json!("no\nway")));
        assert!(lines.iter().all(|line| line["time"].as_str().unwrap().parse::<Timestamp>().is_ok()));
        Audit::default().note(&ann, "apply", "", Ok(&[]));
        assert!(Audit::to(dir.path()).is_err());
    }
}
