//! An agent and a dataplane that answer from memory, always the same.

mod addresses;
mod agent;
mod dataplane;
mod flows;
mod observed;
mod routes;
mod watched;

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use margay_api::{
    control::v1::control_server::ControlServer, dataplane::v1::dataplane_server::DataplaneServer,
};
use tempfile::TempDir;
use tokio::{net::UnixListener, runtime::Runtime};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;

/// Both servers, each on a socket of its own, until dropped.
pub struct Fake {
    sockets: TempDir,
    _runtime: Runtime,
}

/// How a run of `margayctl` ended.
pub struct Ran {
    /// Its exit code.
    pub code: i32,
    /// What it printed.
    pub stdout: String,
    /// What it complained of.
    pub stderr: String,
}

impl Fake {
    /// Starts them.
    pub fn start() -> Self {
        let sockets = tempfile::tempdir().unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listen = |name: &str| {
            let _entered = runtime.enter();
            UnixListenerStream::new(UnixListener::bind(sockets.path().join(name)).unwrap())
        };
        let agent = Server::builder().add_service(ControlServer::new(agent::Agent::default()));
        runtime.spawn(agent.serve_with_incoming(listen("agent.sock")));
        let dataplane = Server::builder().add_service(DataplaneServer::new(dataplane::Dataplane::default()));
        runtime.spawn(dataplane.serve_with_incoming(listen("dataplane.sock")));
        Self { sockets, _runtime: runtime }
    }

    /// A `margayctl` that talks to them.
    pub fn command(&self, line: &str) -> Command {
        command(line, self.sockets.path())
    }

    /// Runs `margayctl` with the words of `line`; quotes hold words together.
    pub fn run(&self, line: &str) -> Ran {
        run(self.command(line))
    }
}

/// A `margayctl` that finds its sockets in `sockets`.
pub fn command(line: &str, sockets: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_margayctl"));
    command
        .args(words(line))
        .current_dir(manifests())
        .env_clear()
        .env("MARGAY_AGENT", sockets.join("agent.sock"))
        .env("MARGAY_DATAPLANE", sockets.join("dataplane.sock"))
        .stdin(Stdio::null());
    command
}

/// Runs a command to its end.
pub fn run(mut command: Command) -> Ran {
    let output = command.output().unwrap();
    Ran {
        code: output.status.code().expect("margayctl was killed"),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// The directory that commands run in.
pub fn manifests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/manifests")
}

fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (index, part) in line.split('\'').enumerate() {
        match index % 2 {
            0 => words.extend(part.split_whitespace().map(str::to_owned)),
            _ => words.push(part.to_owned()),
        }
    }
    words
}
