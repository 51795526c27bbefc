#![doc = include_str!("README.md")]

mod arena;
mod encoded;
mod facts;
mod group;
mod index;
mod places;
mod readers;
mod selectors;
mod stream;
#[cfg(test)]
mod tests;
mod view;

use crate::{
    backoff::Backoff,
    datastore::{Datastore, StoreError},
    health::Health,
    task::Task,
};
use futures::{FutureExt, StreamExt};
use index::Index;
use readers::Readers;
use std::{
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{MissedTickBehavior, interval},
};

pub use encoded::{Frame, Frames};
pub use readers::{Figures, Reader, Reading};
pub use stream::Events;

/// Changes that come this soon after others go out with the next ones: a busy store does not wake every reader for each.
const PACE: Duration = Duration::from_millis(20);
/// How often the store's health is looked at, and views that nobody reads.
const LOOK: Duration = Duration::from_millis(500);
/// Readers that wait to be taken in.
const WAITING: usize = 256;

/// What a relay may be told.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Changes that are remembered for each node: who is behind further is told everything anew.
    pub history: usize,
    /// How long they are remembered when nobody reads them.
    pub keep: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self { history: 16_384, keep: Duration::from_secs(300) }
    }
}

/// The running relay. It ends when this is dropped.
pub struct Relay {
    attach: mpsc::Sender<Attach>,
    readers: Arc<Readers>,
    health: Arc<Health>,
    /// Of this life: what was told in another one cannot be gone on from.
    epoch: u64,
    problem: watch::Receiver<String>,
    /// The store's content is known.
    is_listed: watch::Receiver<bool>,
    _task: Task,
}

/// Somebody wants to read.
struct Attach {
    /// None: everything.
    node: Option<String>,
    /// After this place in the view's log.
    resume: Option<u64>,
    taken_in: oneshot::Sender<Attached>,
}

/// Where a reader begins.
struct Attached {
    log: Arc<view::Log>,
    /// None: it goes on where it was.
    snapshot: Option<Vec<Arc<encoded::Encoded>>>,
    at: u64,
    /// The view is kept as long as somebody holds this.
    held: Arc<()>,
}

impl Relay {
    /// Follows `store`. Must be called within a Tokio runtime.
    pub fn start(store: Arc<dyn Datastore>, settings: Settings, backoff: Backoff) -> Self {
        let (attach, waiting) = mpsc::channel(WAITING);
        let (tell_problem, problem) = watch::channel(String::new());
        let (tell_listed, is_listed) = watch::channel(false);
        let health = Arc::new(Health::starting("relay", "waiting for the store"));
        let readers = Arc::<Readers>::default();
        let core = Core {
            store,
            settings,
            index: Index::new(settings.history),
            holds: std::collections::HashMap::new(),
            waiting,
            problem: tell_problem,
            listed: tell_listed,
            readers: readers.clone(),
            health: health.clone(),
        };
        let epoch = RandomState::new().hash_one(0_u8);
        Self { attach, readers, health, epoch, problem, is_listed, _task: Task::spawn(core.run(backoff)) }
    }

    /// What a reader is told: all that the agent of this node needs, or everything; and then what changes. `resume` is what the
    /// reader was last told to go on from.
    ///
    /// # Errors
    /// The relay has yet to reach its store, or ends.
    pub async fn events(&self, reader: Reader, resume: &str) -> Result<Events, StoreError> {
        if !*self.is_listed.borrow() {
            let reason = self.health.state().reason;
            return Err(StoreError::Unavailable(format!(
                "the relay does not know its content yet: {reason}"
            )));
        }
        let resume = resume
            .split_once('-')
            .and_then(|(epoch, at)| (epoch.parse() == Ok(self.epoch)).then(|| at.parse().ok()).flatten());
        let (taken_in, answer) = oneshot::channel();
        let ends = || StoreError::Unavailable("the relay ends".into());
        let request = Attach { node: reader.node.clone(), resume, taken_in };
        self.attach.send(request).await.map_err(|_| ends())?;
        let attached = answer.await.map_err(|_| ends())?;
        let entered =
            self.readers.enter(reader, attached.log.clone(), attached.at, attached.snapshot.is_none());
        Ok(stream::events(attached, entered, self.epoch, self.problem.clone()))
    }

    /// Whether the store is followed.
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// Who reads, and what was told.
    pub fn figures(&self) -> Figures {
        self.readers.figures()
    }
}

/// Follows the store, alone: nobody else has the index.
struct Core {
    store: Arc<dyn Datastore>,
    settings: Settings,
    index: Index,
    /// By view: held by those who read it, too.
    holds: std::collections::HashMap<u32, Arc<()>>,
    waiting: mpsc::Receiver<Attach>,
    problem: watch::Sender<String>,
    listed: watch::Sender<bool>,
    readers: Arc<Readers>,
    health: Arc<Health>,
}

impl Core {
    async fn run(mut self, mut backoff: Backoff) {
        loop {
            let Err(error) = self.follow(&mut backoff).await;
            // Too far behind: only a new list helps, and at once.
            if !matches!(error, StoreError::Compacted { .. }) {
                let kept = if self.index.len() > 0 { "; what is known is kept" } else { "" };
                self.health.bad(format!("{error}{kept}"));
                self.problem.send_replace(error.to_string());
                self.pause(&mut backoff).await;
            }
        }
    }

    /// Before the next attempt: whoever comes meanwhile is told what is known.
    async fn pause(&mut self, backoff: &mut Backoff) {
        let mut over = std::pin::pin!(backoff.pause());
        loop {
            tokio::select! {
                () = &mut over => return,
                Some(attach) = self.waiting.recv() => self.attach(attach),
            }
        }
    }

    async fn follow(&mut self, backoff: &mut Backoff) -> Result<std::convert::Infallible, StoreError> {
        let listing = self.store.list().await?;
        let mut transactions = self.store.watch(listing.revision).await?;
        self.index.replace(&listing.entries);
        drop(listing);
        self.told();
        self.listed.send_replace(true);
        backoff.reset();
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last = Instant::now();
        loop {
            tokio::select! {
                _ = looks.tick() => self.look(),
                Some(attach) = self.waiting.recv() => self.attach(attach),
                transaction = transactions.next() => {
                    let Some(transaction) = transaction else {
                        return Err(StoreError::Unavailable("its watch ended".into()));
                    };
                    let mut changes = transaction?.changes.clone();
                    // What comes soon after goes along; what comes alone goes at once.
                    let wait = PACE.saturating_sub(last.elapsed());
                    if !wait.is_zero() {
                        tokio::time::sleep(wait).await;
                    }
                    while let Some(Some(transaction)) = transactions.next().now_or_never() {
                        changes.extend(transaction?.changes.iter().cloned());
                    }
                    self.index.apply(&changes);
                    self.told();
                    last = Instant::now();
                }
            }
        }
    }

    fn told(&self) {
        self.readers.tell(self.index.len(), self.index.selectors());
    }

    fn look(&mut self) {
        let state = self.store.health().state();
        let problem = if state.healthy { String::new() } else { state.reason };
        match problem.is_empty() {
            true => self.health.good(format!("{} objects", self.index.len())),
            false => self.health.bad(format!("the store: {problem}; what is known is kept")),
        }
        self.problem.send_if_modified(|said| {
            let is_new = *said != problem;
            *said = problem;
            is_new
        });
        let keep = self.settings.keep;
        let mut old = Vec::new();
        for (id, view) in self.index.views_mut() {
            let is_read = self.holds.get(&id).is_some_and(|held| Arc::strong_count(held) > 1);
            view.idle = if is_read { None } else { Some(view.idle.unwrap_or_else(Instant::now)) };
            old.extend(view.idle.filter(|since| since.elapsed() >= keep).map(|_| id));
        }
        for id in old {
            self.index.forget(id);
            self.holds.remove(&id);
        }
    }

    fn attach(&mut self, Attach { node, resume, taken_in }: Attach) {
        let id = self.index.view(node.as_deref());
        let held = self.holds.entry(id).or_default().clone();
        let Some(view) = self.index.get(id) else { return };
        let log = view.log.clone();
        let at = resume.filter(|at| log.after(*at).is_ok());
        let (snapshot, at) = match at {
            Some(at) => (None, at),
            None => (Some(self.index.snapshot(id)), log.last()),
        };
        // Who does not want it any more does not get it.
        let _ = taken_in.send(Attached { log, snapshot, at, held });
    }
}
