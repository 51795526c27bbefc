//! The agent's line to the dataplane: connects, speaks, and connects again.

use super::{AdoptError, Progress, progress::adopted_at_least, session::Session};
use crate::task::Task;
use crate::{backoff::Backoff, calc::Calculated, health::Health};
use margay_api::dataplane::v1::{
    GetStatusRequest, Hello, SyncRequest, SyncResponse, dataplane_client::DataplaneClient,
    sync_response::Response,
};
use std::{path::Path, path::PathBuf, sync::Arc};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming, transport::Channel};

/// Messages that wait for the transport. Few: each may be a megabyte.
const OUTGOING: usize = 4;

/// The running connection to one dataplane. It ends when this is dropped.
pub struct Link {
    client: DataplaneClient<Channel>,
    progress: watch::Receiver<Progress>,
    health: Arc<Health>,
    _task: Task,
}

impl Link {
    /// Pursues each state that `desired` shows on the dataplane that listens on `socket`, which
    /// need not be up yet. Must be called within a Tokio runtime.
    pub fn start(socket: &Path, desired: watch::Receiver<Option<Calculated>>, backoff: Backoff) -> Self {
        let client = DataplaneClient::new(margay_api::unix::connect_lazy(socket));
        let health = Arc::new(Health::starting("dataplane", format!("{}: connecting", socket.display())));
        let (sender, progress) = watch::channel(Progress::default());
        let pursuit = Pursuit {
            socket: socket.to_owned(),
            client: client.clone(),
            desired,
            progress: sender,
            health: health.clone(),
        };
        let _task = Task::spawn(pursuit.run(backoff));
        Self { client, progress, health, _task }
    }

    /// How far the dataplane has got, now and whenever that changes.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.clone()
    }

    /// Waits until the dataplane judges by what follows from `revision` of the store, or a later
    /// one. Returns the generation. Waits for as long as the dataplane is away.
    ///
    /// # Errors
    /// The dataplane refused it.
    pub async fn adopted_at_least(&self, revision: u64) -> Result<u64, AdoptError> {
        adopted_at_least(&mut self.progress.clone(), revision).await
    }

    /// For questions to the dataplane: status, explain.
    pub fn client(&self) -> DataplaneClient<Channel> {
        self.client.clone()
    }

    /// Whether the dataplane can be reached and takes what it is sent.
    pub fn health(&self) -> &Health {
        &self.health
    }
}

struct Pursuit {
    socket: PathBuf,
    client: DataplaneClient<Channel>,
    desired: watch::Receiver<Option<Calculated>>,
    progress: watch::Sender<Progress>,
    health: Arc<Health>,
}

impl Pursuit {
    async fn run(mut self, mut backoff: Backoff) {
        loop {
            let Err(status) = self.stream(&mut backoff).await else {
                // Nobody calculates any more: the agent is shutting down.
                return;
            };
            self.health.bad(format!(
                "{}: {}; it enforces what it was last given",
                self.socket.display(),
                status.message()
            ));
            self.progress.send_modify(|progress| {
                progress.connected = false;
                progress.adopted_revision = None;
                progress.endpoints.clear();
            });
            backoff.pause().await;
            if status.code() == Code::Aborted {
                self.yield_to_other(&mut backoff).await;
            }
        }
    }

    /// Another agent has taken the dataplane over: waits until it is gone, lest the two take it
    /// from each other for ever.
    async fn yield_to_other(&mut self, backoff: &mut Backoff) {
        while let Ok(status) = self.client.get_status(GetStatusRequest {}).await {
            if !status.into_inner().agent_connected {
                return;
            }
            backoff.pause().await;
        }
    }

    /// One stream, until it breaks. `Ok` when there is nothing to pursue any more.
    async fn stream(&mut self, backoff: &mut Backoff) -> Result<(), Status> {
        let (requests, outgoing) = mpsc::channel::<SyncRequest>(OUTGOING);
        let mut responses = self.client.sync(ReceiverStream::new(outgoing)).await?.into_inner();
        let hello = hello(&mut responses).await?;
        self.progress.send_modify(|progress| {
            progress.connected = true;
            progress.adopted_generation = hello.adopted_generation;
        });
        self.health.good(format!(
            "{}: version {}, {} workers",
            self.socket.display(),
            hello.version,
            hello.workers
        ));
        backoff.reset();

        let sent = self.progress.borrow().sent_generation;
        let mut session = Session::new(&hello, sent);
        // Whatever was seen on an earlier stream is news on this one.
        self.desired.mark_changed();
        loop {
            tokio::select! {
                permit = requests.reserve(), if session.has_messages() => {
                    let permit = permit.map_err(|_| Status::unavailable("the stream was closed"))?;
                    if let Some(message) = session.next_message() {
                        permit.send(message);
                    }
                }
                response = responses.message() => {
                    let response = response?.ok_or_else(|| Status::unavailable("the dataplane closed the stream"))?;
                    self.answer(&mut session, response);
                }
                changed = self.desired.changed(), if session.is_idle() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                    let calculated = self.desired.borrow_and_update().clone();
                    if let Some(calculated) = calculated {
                        self.progress.send_modify(|progress| session.pursue(calculated, progress));
                        if session.is_idle() {
                            // Wanted again is what is in force: a refusal before it is history.
                            self.health.good(format!("{}: up to date", self.socket.display()));
                        }
                    }
                }
            }
        }
    }

    fn answer(&self, session: &mut Session, response: SyncResponse) {
        match response.response {
            Some(Response::Adopted(adopted)) => {
                self.progress.send_modify(|progress| session.adopted(adopted.generation, progress));
                if session.is_idle() {
                    self.health.good(format!(
                        "{}: generation {} adopted",
                        self.socket.display(),
                        adopted.generation
                    ));
                }
            }
            Some(Response::Refused(refused)) => {
                self.progress.send_modify(|progress| session.refused(refused, progress));
                if let Some(refusal) = &self.progress.borrow().refused {
                    self.health.bad(format!(
                        "generation {} was refused, the one before stays in force: {}",
                        refusal.generation,
                        refusal.sentence()
                    ));
                }
            }
            Some(Response::EndpointStatus(status)) => {
                self.progress.send_modify(|progress| session.endpoint(status, progress));
            }
            // A second hello says nothing new, and what a later release may add is not for us.
            Some(Response::Hello(_)) | None => {}
        }
    }
}

async fn hello(responses: &mut Streaming<SyncResponse>) -> Result<Hello, Status> {
    match responses.message().await? {
        Some(SyncResponse { response: Some(Response::Hello(hello)) }) => Ok(hello),
        Some(_) => {
            Err(Status::internal("the dataplane did not say hello first: is something else on that socket?"))
        }
        None => Err(Status::unavailable("the dataplane closed the stream before its hello")),
    }
}
