//! `margay-dataplane` itself, and an agent's end of its stream.
#![allow(dead_code, missing_docs)]

use margay_api::dataplane::v1::{self as pb, dataplane_client::DataplaneClient, sync_response::Response};
use margay_api::unix;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tonic::{Streaming, transport::Channel};

/// The process, on a socket of its own; killed at the end.
pub struct Process {
    pub child: Child,
    pub socket: PathBuf,
    _folder: tempfile::TempDir,
}

impl Process {
    /// With these arguments besides.
    pub fn start(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("dataplane.sock");
        let child = Command::new(env!("CARGO_BIN_EXE_margay-dataplane"))
            .args(["--hugepages", "off", "--log", "warn", "--listen"])
            .arg(&socket)
            .args(if arguments.contains(&"--flows") { &[][..] } else { &["--flows", "1024"] })
            .args(arguments)
            .spawn()
            .unwrap();
        Self { child, socket, _folder: folder }
    }

    /// A client, as soon as the process listens.
    pub async fn client(&self) -> DataplaneClient<Channel> {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
        loop {
            match unix::connect(&self.socket).await {
                Ok(channel) => return DataplaneClient::new(channel),
                Err(error) => assert!(tokio::time::Instant::now() < deadline, "{error}"),
            }
            tokio::task::yield_now().await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An agent's stream.
pub struct Agent {
    requests: mpsc::Sender<pb::SyncRequest>,
    responses: Streaming<pb::SyncResponse>,
    pub sequence: u64,
}

impl Agent {
    pub async fn connect(client: &mut DataplaneClient<Channel>) -> Self {
        let (requests, stream) = mpsc::channel(8);
        let responses = client.sync(ReceiverStream::new(stream)).await.unwrap().into_inner();
        Self { requests, responses, sequence: 0 }
    }

    /// Says everything once, and waits until it is in force.
    pub async fn adopted(client: &mut DataplaneClient<Channel>, changes: Vec<pb::Change>) -> Self {
        let mut agent = Self::connect(client).await;
        assert!(matches!(agent.next().await.unwrap(), Response::Hello(_)));
        agent.commit(1, changes).await;
        assert_eq!(agent.next().await.unwrap(), Response::Adopted(pb::Adopted { generation: 1 }));
        agent
    }

    pub async fn commit(&mut self, generation: u64, changes: Vec<pb::Change>) {
        self.sequence += 1;
        let commit = Some(pb::Commit { generation, in_sync: true });
        self.requests.send(pb::SyncRequest { sequence: self.sequence, changes, commit }).await.unwrap();
    }

    /// The next response that is no endpoint's status.
    pub async fn next(&mut self) -> Result<Response, tonic::Status> {
        loop {
            let message = tokio::time::timeout(Duration::from_secs(30), self.responses.next()).await;
            match message.expect("an answer in time").expect("the stream goes on")?.response.unwrap() {
                Response::EndpointStatus(_) => {}
                response => return Ok(response),
            }
        }
    }
}
