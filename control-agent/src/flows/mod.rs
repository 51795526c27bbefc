#![doc = include_str!("README.md")]

mod file;
mod filter;
mod history;
mod line;
#[cfg(test)]
mod tests;

pub use file::{FileSettings, LogFile};
pub use filter::Filter;
pub use history::{policies, title};
pub use line::{Line, event};

use crate::{
    backoff::Backoff,
    calc::{Names, Party},
    task::Task,
};
use history::History;
use margay_api::{
    control::v1::{FlowParty, FlowSummary, ObservedFlow, summarize_flows_request::By},
    dataplane::v1::{FlowRecord, LogFlowsRequest, LogFlowsResponse, dataplane_client::DataplaneClient},
};
use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};
use tokio::sync::{broadcast, mpsc, watch};
use tonic::{Code, Status, transport::Channel};

/// Records that are kept as they are: some 16 MB.
const KEPT: usize = 1 << 14;
/// Batches that a follower may be behind.
const BEHIND: usize = 256;
/// Batches that may wait for the file.
const UNWRITTEN: usize = 64;

/// Some records, in the order in which they came.
pub type Batch = Arc<[Arc<ObservedFlow>]>;

/// The running record of flows. It ends when this is dropped.
pub struct Flows {
    kept: Arc<Kept>,
    _task: Task,
}

struct Kept {
    book: Mutex<Book>,
    news: broadcast::Sender<Batch>,
    /// By the dataplane, in this stream and those before.
    lost: AtomicU64,
    unwritten: AtomicU64,
}

#[derive(Default)]
struct Book {
    last: VecDeque<Arc<ObservedFlow>>,
    /// Records that came, those that are not kept any more too.
    came: u64,
    history: History,
}

impl Flows {
    /// Reads what the dataplane tells, and names who is there. Must be called within a Tokio runtime.
    pub fn start(
        client: DataplaneClient<Channel>,
        names: watch::Receiver<Arc<Names>>,
        file: Option<LogFile>,
        backoff: Backoff,
    ) -> Self {
        let (lost, unwritten) = (AtomicU64::new(0), AtomicU64::new(0));
        let news = broadcast::channel(BEHIND).0;
        let kept = Arc::new(Kept { book: Mutex::default(), news, lost, unwritten });
        let file = file.map(|file| writer(file, kept.clone()));
        let reader = Reader { client, names, kept: kept.clone(), file };
        Self { kept, _task: Task::spawn(reader.run(backoff)) }
    }

    /// What is kept, the oldest first, and what comes from then on: nothing is in both, nor in neither.
    pub fn observe(&self) -> (Vec<Arc<ObservedFlow>>, broadcast::Receiver<Batch>) {
        let book = self.kept.book();
        (book.last.iter().cloned().collect(), self.kept.news.subscribe())
    }

    /// What is kept and came after the first `seen` records, the oldest first; how many came by now; and how many of
    /// those between are kept no more.
    pub fn after(&self, seen: u64) -> (Vec<Arc<ObservedFlow>>, u64, u64) {
        let book = self.kept.book();
        let wanted = book.came.saturating_sub(seen);
        let kept = usize::try_from(wanted).unwrap_or(usize::MAX).min(book.last.len());
        let records = book.last.iter().skip(book.last.len() - kept).cloned().collect();
        (records, book.came, wanted - kept as u64)
    }

    /// An hour of flows, put together; where what is kept begins; and how many records are in no group.
    pub fn summary(&self, filter: &Filter, since: u64, by: By, limit: usize) -> (Vec<FlowSummary>, u64, u64) {
        let book = self.kept.book();
        (book.history.summary(filter, since, by, limit), book.history.since(), book.history.beyond())
    }

    /// Records that were lost on their way from the dataplane's workers.
    pub fn lost(&self) -> u64 {
        self.kept.lost.load(Relaxed)
    }

    /// Records that came.
    pub fn taken(&self) -> u64 {
        self.kept.book().came
    }

    /// Records that are in none of the hour's groups: there were more different ones than are kept.
    pub fn beyond(&self) -> u64 {
        self.kept.book().history.beyond()
    }

    /// Records that are not in the file, though there is one.
    pub fn unwritten(&self) -> u64 {
        self.kept.unwritten.load(Relaxed)
    }
}

impl Kept {
    fn book(&self) -> MutexGuard<'_, Book> {
        // Counts that a panic left half-added are still counts.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, batch: &Batch) {
        let mut book = self.book();
        for flow in batch.iter() {
            book.history.add(flow);
            if book.last.len() == KEPT {
                book.last.pop_front();
            }
            book.came += 1;
            book.last.push_back(flow.clone());
        }
        // Under the lock: who begins to follow now has these already. Nobody follows: that is no error.
        let _ = self.news.send(batch.clone());
    }
}

struct Reader {
    client: DataplaneClient<Channel>,
    names: watch::Receiver<Arc<Names>>,
    kept: Arc<Kept>,
    file: Option<mpsc::Sender<Batch>>,
}

impl Reader {
    async fn run(mut self, mut backoff: Backoff) {
        loop {
            let Err(status) = self.read(&mut backoff).await;
            match status.code() {
                // The link to the dataplane says that it is away.
                Code::Unavailable | Code::Unknown => {}
                Code::Unimplemented => {
                    tracing::warn!(
                        "A001 the dataplane is of a release that does not tell of flows; there is no record of them"
                    );
                    return;
                }
                _ => tracing::debug!(why = status.message(), "the dataplane told of flows no longer"),
            }
            backoff.pause().await;
        }
    }

    async fn read(&mut self, backoff: &mut Backoff) -> Result<std::convert::Infallible, Status> {
        let mut stream = self.client.log_flows(LogFlowsRequest {}).await?.into_inner();
        let before = self.kept.lost.load(Relaxed);
        loop {
            let message = stream.message().await?;
            let LogFlowsResponse { records, lost } =
                message.ok_or_else(|| Status::unavailable("the dataplane closed the stream"))?;
            backoff.reset();
            self.kept.lost.store(before + lost, Relaxed);
            if records.is_empty() {
                continue;
            }
            let names = self.names.borrow().clone();
            let batch: Batch = records.into_iter().map(|record| Arc::new(named(record, &names))).collect();
            self.kept.take(&batch);
            let written = self.file.as_ref().map(|file| file.try_send(batch.clone()));
            if written.is_some_and(|written| written.is_err()) {
                self.kept.unwritten.fetch_add(batch.len() as u64, Relaxed);
            }
        }
    }
}

/// A thread that writes to the file as long as there is something to write.
fn writer(mut file: LogFile, kept: Arc<Kept>) -> mpsc::Sender<Batch> {
    let (sender, mut batches) = mpsc::channel::<Batch>(UNWRITTEN);
    tokio::task::spawn_blocking(move || {
        let mut failed = false;
        while let Some(batch) = batches.blocking_recv() {
            let written = file.write(&batch);
            if let Err(error) = &written {
                kept.unwritten.fetch_add(batch.len() as u64, Relaxed);
                if !failed {
                    tracing::warn!(%error, "A002 the file of flows cannot be written; flows are kept in memory only until it can");
                }
            }
            failed = written.is_err();
        }
    });
    sender
}

/// Who is at each end of a record.
fn named(record: FlowRecord, names: &Names) -> ObservedFlow {
    let (source, destination) = filter::addresses(&record);
    let party = |addr: Option<std::net::IpAddr>| addr.and_then(|addr| names.party(addr)).map(message);
    ObservedFlow { source: party(source), destination: party(destination), record: Some(record) }
}

fn message(party: Party) -> FlowParty {
    let Party { kind, namespace, name, labels } = party;
    FlowParty { kind: kind.to_owned(), namespace, name, labels: labels.into_iter().collect() }
}
