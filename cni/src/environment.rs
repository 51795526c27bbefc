//! What the runtime says in environment variables.

use crate::error::{Code, Error};
use std::{collections::BTreeMap, env, path::PathBuf};

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Attach a container.
    Add,
    /// Detach it.
    Del,
    /// Is it still attached?
    Check,
    /// Detach all but some.
    Gc,
    /// Can containers be attached?
    Status,
    /// Which versions do we speak?
    Version,
}

/// `CNI_...`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Environment {
    /// `CNI_COMMAND`
    pub command: Command,
    /// `CNI_CONTAINERID`; empty where the command is about none.
    pub container: String,
    /// `CNI_NETNS`; for DEL it may be missing.
    pub netns: Option<PathBuf>,
    /// `CNI_IFNAME`; empty where the command is about none.
    pub interface: String,
    /// `CNI_ARGS`
    pub args: Args,
    /// `CNI_PATH`
    pub path: Vec<PathBuf>,
}

/// `CNI_ARGS`, those that mean something to us.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Args {
    /// `K8S_POD_NAMESPACE` and `K8S_POD_NAME`, where both are there.
    pub pod: Option<Pod>,
    /// `IP`: an address to give it, if it can be had.
    pub address: Option<String>,
    /// `MAC`: the container's side.
    pub mac: Option<String>,
}

/// A pod of Kubernetes'.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "as in its metadata")]
pub struct Pod {
    pub namespace: String,
    pub name: String,
}

/// Known to Kubernetes' runtimes, and of no use to us.
const OTHER_ARGS: [&str; 3] = ["IgnoreUnknown", "K8S_POD_INFRA_CONTAINER_ID", "K8S_POD_UID"];

impl Environment {
    /// Of this process.
    ///
    /// # Errors
    /// A variable is missing or wrong; all of them are named.
    pub fn of_process() -> Result<Self, Error> {
        Self::read(|name| env::var(name).ok().filter(|value| !value.is_empty()))
    }

    /// From where `variable` looks.
    ///
    /// # Errors
    /// A variable is missing or wrong; all of them are named.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let mut wrong = Vec::new();
        let command = match variable("CNI_COMMAND").as_deref() {
            Some("ADD") => Command::Add,
            Some("DEL") => Command::Del,
            Some("CHECK") => Command::Check,
            Some("GC") => Command::Gc,
            Some("STATUS") => Command::Status,
            Some("VERSION") => Command::Version,
            Some(other) => {
                let message =
                    format!("CNI_COMMAND: {other:?} is not one of ADD, DEL, CHECK, GC, STATUS and VERSION");
                return Err(Error::new(Code::Environment, message));
            }
            None => return Err(Error::new(Code::Environment, "CNI_COMMAND: missing")),
        };
        let attaches = matches!(command, Command::Add | Command::Del | Command::Check);
        let mut required = |name: &str, needed: bool, fault: fn(&str) -> Option<&'static str>| {
            let value = variable(name).unwrap_or_default();
            if needed {
                let fault = if value.is_empty() { Some("missing") } else { fault(&value) };
                wrong.extend(fault.map(|fault| format!("{name}: {value:?}: {fault}")));
            }
            value
        };
        let container = required("CNI_CONTAINERID", attaches, container_fault);
        let interface = required("CNI_IFNAME", attaches, interface_fault);
        let netns = required("CNI_NETNS", attaches && command != Command::Del, |_| None);
        let args = Args::parse(&variable("CNI_ARGS").unwrap_or_default()).unwrap_or_else(|fault| {
            wrong.push(fault);
            Args::default()
        });
        if !wrong.is_empty() {
            return Err(Error::new(Code::Environment, wrong.join("; ")));
        }
        Ok(Self {
            command,
            container,
            interface,
            args,
            netns: (!netns.is_empty()).then(|| netns.into()),
            path: variable("CNI_PATH").map(|path| env::split_paths(&path).collect()).unwrap_or_default(),
        })
    }
}

impl Args {
    /// `A=1;B=2`. What is not known is refused, unless `IgnoreUnknown` says otherwise.
    fn parse(text: &str) -> Result<Self, String> {
        let mut values = BTreeMap::new();
        for pair in text.split(';').filter(|pair| !pair.is_empty()) {
            let (key, value) =
                pair.split_once('=').ok_or_else(|| format!("CNI_ARGS: {pair:?} is not KEY=VALUE"))?;
            values.insert(key, value);
        }
        let ignores = matches!(values.get("IgnoreUnknown"), Some(&("1" | "true" | "True" | "TRUE" | "t")));
        let mut take = |key: &str| values.remove(key).filter(|value| !value.is_empty()).map(str::to_owned);
        let pod = take("K8S_POD_NAMESPACE").zip(take("K8S_POD_NAME"));
        let (address, mac) = (take("IP"), take("MAC"));
        let unknown = values
            .keys()
            .find(|key| !OTHER_ARGS.contains(key) && !["K8S_POD_NAME", "K8S_POD_NAMESPACE"].contains(key));
        if let Some(unknown) = unknown.filter(|_| !ignores) {
            return Err(format!("CNI_ARGS: {unknown:?} is not known: remove it, or add IgnoreUnknown=1"));
        }
        Ok(Self { pod: pod.map(|(namespace, name)| Pod { namespace, name }), address, mac })
    }
}

fn container_fault(id: &str) -> Option<&'static str> {
    let sound = id.starts_with(|c: char| c.is_ascii_alphanumeric())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
    (!sound).then_some("is not a container's id: use letters, digits, and after the first _ . -")
}

/// By the rules of Linux.
fn interface_fault(name: &str) -> Option<&'static str> {
    let wrong = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
    let sound = name.len() < 16 && name != "." && name != ".." && !name.contains(wrong);
    (!sound).then_some("is not an interface's name: use at most 15 bytes, no / and : and no spaces")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Environment, Error> {
        Environment::read(|name| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    const ADD: [(&str, &str); 4] = [
        ("CNI_COMMAND", "ADD"),
        ("CNI_CONTAINERID", "3f6940ab5ab4"),
        ("CNI_NETNS", "/var/run/netns/blue"),
        ("CNI_IFNAME", "eth0"),
    ];

    #[test]
    fn says_what_to_do_and_with_what() {
        let args =
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-1;K8S_POD_INFRA_CONTAINER_ID=3f;X=y";
        let environment =
            read(&[&ADD[..], &[("CNI_ARGS", args), ("CNI_PATH", "/opt/cni/bin:/usr/lib/cni")]].concat())
                .unwrap();
        assert_eq!((environment.command, environment.container.as_str()), (Command::Add, "3f6940ab5ab4"));
        assert_eq!(environment.args.pod, Some(Pod { namespace: "shop".into(), name: "web-1".into() }));
        assert_eq!(environment.path.len(), 2);
        // As podman has it: a name, and no namespace.
        let podman =
            [&ADD[..], &[("CNI_ARGS", "K8S_POD_NAME=web;IP=10.0.0.1;MAC=02:00:00:00:00:01")]].concat();
        let args = read(&podman).unwrap().args;
        assert_eq!((args.pod, args.address.as_deref()), (None, Some("10.0.0.1")));
        assert_eq!(args.mac.as_deref(), Some("02:00:00:00:00:01"));
    }

    #[test]
    fn each_command_needs_its_own() {
        let without = |name: &str, command: &'static str| {
            let kept = ADD.iter().filter(|(key, _)| *key != name && *key != "CNI_COMMAND").copied();
            read(&kept.chain([("CNI_COMMAND", command)]).collect::<Vec<_>>())
        };
        for (missing, command, fine) in [
            ("CNI_NETNS", "ADD", false),
            ("CNI_NETNS", "CHECK", false),
            ("CNI_NETNS", "DEL", true),
            ("CNI_IFNAME", "DEL", false),
            ("CNI_CONTAINERID", "DEL", false),
            ("CNI_CONTAINERID", "GC", true),
            ("CNI_IFNAME", "STATUS", true),
        ] {
            let read = without(missing, command);
            assert_eq!(read.is_ok(), fine, "{command} without {missing}");
            if let Err(error) = read {
                assert!(error.code == Code::Environment && error.message.contains(missing), "{error}");
            }
        }
        assert!(read(&[]).unwrap_err().message.contains("CNI_COMMAND"));
        assert!(read(&[("CNI_COMMAND", "RUN")]).unwrap_err().message.contains("\"RUN\""));
    }

    #[test]
    fn every_wrong_one_is_named() {
        let variables = [
            ("CNI_COMMAND", "ADD"),
            ("CNI_CONTAINERID", "-x"),
            ("CNI_IFNAME", "eth0/1"),
            ("CNI_ARGS", "WHAT=1"),
        ];
        let error = read(&variables).unwrap_err();
        for name in ["CNI_CONTAINERID", "CNI_IFNAME", "CNI_NETNS", "CNI_ARGS"] {
            assert!(error.message.contains(name), "{name}: {error}");
        }
        for name in ["", ".", "..", "a:b", "a b", "sixteen_bytes_xx"] {
            assert!(name.is_empty() || interface_fault(name).is_some(), "{name:?}");
        }
        assert!(read(&[&ADD[..], &[("CNI_ARGS", "A")]].concat()).is_err());
    }
}
