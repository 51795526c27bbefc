//! Objects in etcd v3, for a cluster: every agent follows it, any of them writes.
//!
//! ```text
//! PREFIX/objects/KIND/NAMESPACE/NAME    canonical JSON; a global object's namespace is empty
//! PREFIX/commits                        written with every commit, and says nothing else
//! ```
//!
//! An object's version is etcd's `mod_revision`, which never comes back. A commit is planned on
//! the image that the watch keeps, and is one etcd transaction under the condition that every
//! object it names is still as the image has it; if one is not, the image is behind, and the commit
//! is planned again once the watch has caught up. So compare-and-swap is exact, without a lock.
//!
//! etcd takes 128 conditions and 128 writes in a transaction. Writes beyond are nested into
//! further transactions within the same one; conditions cannot be, so a commit of many objects has
//! but one: that nobody has committed anything since.

mod follow;
mod path;
mod settings;

use super::{
    Change, Datastore, Entry, Listing, Outcome, Run, StoreError, Watch, Write, Written,
    image::Image,
    snapshot::{self, Snapshot},
};
use crate::task::Task;
use crate::{backoff::Backoff, health::Health, model::Key};
use etcd_client::{Client, Compare, CompareOp, Error, Txn, TxnOp, TxnResponse};
use follow::Follower;
use path::Paths;
use std::{collections::BTreeSet, future::Future, sync::Arc, time::Duration};
use tokio::{sync::watch, time::timeout};

pub use settings::{Settings, Tls, User};

/// How long etcd may take to answer one request, and the watch to show what was written.
const ANSWER: Duration = Duration::from_secs(10);
/// Writes in one transaction, of which a further one may be nested in each place: half of the
/// 128 that etcd takes, as those of all levels on a way down are counted together.
const WRITES: usize = 64;
/// Attempts of a commit that others outran each time.
const ATTEMPTS: usize = 64;

/// A store in etcd.
pub struct Etcd {
    name: String,
    paths: Paths,
    image: Arc<Image>,
    /// The image began with a snapshot: something is known before etcd has told anything.
    begun: bool,
    /// What the follower has: the connection, once it has seen everything; and the revision of the
    /// last commit that the image has.
    following: watch::Receiver<Following>,
    health: Arc<Health>,
    _tasks: (Task, Option<Task>),
}

/// What an agent knows of etcd beforehand, and how far it lets itself be told otherwise.
pub struct Past {
    /// What it last held; none: nothing is known.
    pub snapshot: Option<Snapshot>,
    /// If more than this share of all objects are gone at once, in percent, other than by somebody's deleting them through
    /// an agent, they are kept until that is confirmed.
    pub loss_limit: u8,
}

impl Default for Past {
    fn default() -> Self {
        Self { snapshot: None, loss_limit: 25 }
    }
}

#[derive(Clone, Default)]
struct Following {
    client: Option<Client>,
    commit: i64,
}

impl Etcd {
    /// Follows the cluster, which need not be up yet.
    ///
    /// Must be called within a Tokio runtime.
    pub fn new(settings: Settings, backoff: Backoff) -> Self {
        Self::with_past(settings, Past::default(), backoff)
    }

    /// The same, beginning with what was known earlier.
    pub fn with_past(settings: Settings, past: Past, backoff: Backoff) -> Self {
        let name = settings.endpoints.join(",");
        let paths = Paths::new(&settings.prefix);
        let (image, keeper) = snapshot::begin(past.snapshot);
        let begun = image.revision() > 0;
        let health = Arc::new(Health::starting("store", format!("{name}: connecting")));
        let (sender, following) = watch::channel(Following::default());
        let follower = Follower {
            settings,
            name: name.clone(),
            paths: paths.clone(),
            image: image.clone(),
            loss_limit: past.loss_limit,
            following: sender,
            health: health.clone(),
        };
        let _tasks = (Task::spawn(follower.run(backoff)), keeper);
        Self { name, paths, image, begun, following, health, _tasks }
    }

    /// Whether anything is known, from etcd or from earlier.
    fn known(&self) -> Result<(), StoreError> {
        if self.begun { Ok(()) } else { self.client().map(drop) }
    }

    fn client(&self) -> Result<Client, StoreError> {
        let client = self.following.borrow().client.clone();
        client.ok_or_else(|| StoreError::Unavailable(self.health.state().reason))
    }

    /// One transaction: what is planned, under the condition that the plan's picture is right.
    async fn attempt(&self, client: &mut Client, writes: &[Write], run: Run) -> Result<Attempt, StoreError> {
        // Before the plan: an image that is newer than this only fails a condition in vain.
        let last_commit = self.following.borrow().commit;
        let (versions, plan) = self.image.plan_at(writes);
        let conditions = if writes.len() <= WRITES {
            let unchanged = |(write, version): (&Write, &u64)| {
                Compare::mod_revision(self.paths.object(write.key()), CompareOp::Equal, *version as i64)
            };
            writes.iter().zip(&versions).map(unchanged).collect()
        } else {
            vec![Compare::mod_revision(self.paths.commits(), CompareOp::Equal, last_commit)]
        };
        let changes = match &plan {
            Ok(plan) if run == Run::Real => plan.changes.as_slice(),
            _ => &[],
        };
        let stores = !changes.is_empty();
        let transaction = Txn::new().when(conditions).and_then(self.operations(changes)?);
        let response: TxnResponse = self.answer(client.txn(transaction)).await?;
        if !response.succeeded() {
            return Ok(Attempt::Behind { versions, last_commit });
        }
        let mut plan = plan?;
        if stores {
            let revision = response.header().map_or(0, |header| header.revision());
            plan.written.outcomes.iter_mut().for_each(|outcome| {
                if let Outcome::Created(version) | Outcome::Configured(version) = outcome {
                    *version = revision as u64;
                }
            });
            self.until(|following, _| following.commit >= revision).await?;
            // Of what etcd had lost before it has nothing to tell.
            let deleted = |key: &Key| {
                plan.changes.iter().any(|change| matches!(change, Change::Deleted(old) if old.key == *key))
            };
            if self.image.lost() > 0 {
                self.image.let_go(self.image.lost_of(deleted));
                follow::tell(&self.health, &self.name, &self.image);
            }
            plan.written.revision = self.image.revision();
        }
        Ok(Attempt::Done(plan.written))
    }

    /// The writes, and the mark of a commit; nothing for nothing.
    fn operations(&self, changes: &[Change]) -> Result<Vec<TxnOp>, StoreError> {
        if changes.is_empty() {
            return Ok(vec![]);
        }
        let write = |change: &Change| {
            let path = self.paths.object(&change.entry().key);
            match change {
                Change::Added(Entry { json, .. }) | Change::Modified(Entry { json, .. }) => {
                    TxnOp::put(path, json.as_bytes(), None)
                }
                Change::Deleted(_) => TxnOp::delete(path, None),
            }
        };
        let nested = |changes: &[Change]| {
            TxnOp::txn(Txn::new().and_then(changes.iter().map(write).collect::<Vec<_>>()))
        };
        let mut operations = vec![TxnOp::put(self.paths.commits(), "", None)];
        if changes.len() < WRITES {
            operations.extend(changes.iter().map(write));
        } else if changes.len() <= WRITES * (WRITES - 1) {
            operations.extend(changes.chunks(WRITES).map(nested));
        } else {
            return Err(StoreError::Unsupported(
                "etcd takes at most 4,032 changed objects in one transaction: apply them in parts",
            ));
        }
        Ok(operations)
    }

    /// What etcd answers, in time.
    async fn answer<T>(&self, asked: impl Future<Output = Result<T, Error>>) -> Result<T, StoreError> {
        match timeout(ANSWER, asked).await {
            Ok(answer) => answer.map_err(|error| self.refused(&error)),
            Err(_) => Err(StoreError::Unavailable(format!(
                "{}: no answer in {} s: read whether it was written, and do it again if not",
                self.name,
                ANSWER.as_secs()
            ))),
        }
    }

    /// Waits for the watch.
    async fn until(&self, seen: impl Fn(&Following, &Image) -> bool) -> Result<(), StoreError> {
        let mut following = self.following.clone();
        let seen = following.wait_for(|following| seen(following, &self.image));
        match timeout(ANSWER, seen).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(StoreError::Unavailable(format!(
                "{} has news that its watch does not show: {}",
                self.name,
                self.health.state().reason
            ))),
        }
    }

    fn refused(&self, error: &Error) -> StoreError {
        let Error::GRpcStatus(status) = error else {
            return StoreError::Unavailable(format!("{}: {error}", self.name));
        };
        match status.code() {
            code @ (tonic::Code::InvalidArgument
            | tonic::Code::PermissionDenied
            | tonic::Code::ResourceExhausted) => {
                StoreError::Refused { code, message: format!("{}: {}", self.name, status.message()) }
            }
            _ => StoreError::Unavailable(format!("{}: {}", self.name, status.message())),
        }
    }
}

/// What came of one transaction.
enum Attempt {
    Done(Written),
    /// Somebody wrote what the watch does not show yet: what was planned on.
    Behind {
        versions: Vec<u64>,
        last_commit: i64,
    },
}

#[tonic::async_trait]
impl Datastore for Etcd {
    async fn list(&self) -> Result<Listing, StoreError> {
        self.known()?;
        Ok(self.image.list())
    }

    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        self.known()?;
        Ok(self.image.get(key))
    }

    async fn watch(&self, revision: u64) -> Result<Watch, StoreError> {
        self.known()?;
        Ok(self.image.watch(revision))
    }

    async fn commit(&self, writes: Vec<Write>, run: Run) -> Result<Written, StoreError> {
        for _ in 0..ATTEMPTS {
            let mut client = self.client()?;
            match self.attempt(&mut client, &writes, run).await? {
                Attempt::Done(written) => return Ok(written),
                Attempt::Behind { versions, last_commit } => {
                    self.until(|following, image| {
                        following.commit != last_commit || image.versions(&writes) != versions
                    })
                    .await?;
                }
            }
        }
        Err(StoreError::Unavailable(format!(
            "{}: others wrote the same objects {ATTEMPTS} times meanwhile",
            self.name
        )))
    }

    fn health(&self) -> &Health {
        &self.health
    }

    fn lost(&self) -> Vec<Key> {
        self.image.lost_of(|_| true).into_iter().map(|entry| entry.key).collect()
    }

    fn let_go(&self, lost: &[Key]) {
        let lost: BTreeSet<&Key> = lost.iter().collect();
        self.image.let_go(self.image.lost_of(|key| lost.contains(key)));
        if self.client().is_ok() && self.image.lost() == 0 {
            follow::tell(&self.health, &self.name, &self.image);
        }
    }
}
