#![doc = include_str!("README.md")]

pub mod embedded;
pub mod etcd;
mod file;
pub mod fixed;
mod image;
pub mod memory;
pub mod remote;
mod snapshot;

use crate::{health::Health, model::Key};
use futures::stream::BoxStream;
use std::{path::PathBuf, sync::Arc};

pub use embedded::Embedded;
pub use etcd::Etcd;
pub use fixed::Fixed;
pub use memory::Memory;
pub use remote::{Reach, Relays, Remote, TlsFiles, is_told_to_all};
pub use snapshot::Snapshot;

/// Where objects live.
///
/// An object is its canonical JSON under a [`Key`]. The store does not look inside: whoever
/// writes has parsed, defaulted and validated.
#[tonic::async_trait]
pub trait Datastore: Send + Sync + 'static {
    /// Everything there is, at one revision.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] where the store has never been reached.
    async fn list(&self) -> Result<Listing, StoreError>;

    /// One object.
    ///
    /// # Errors
    /// As [`list`](Self::list); an object that is not there is `Ok(None)`.
    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError>;

    /// Every transaction after `revision`, whole and in order, for ever.
    ///
    /// The stream ends with [`StoreError::Compacted`] for a reader that asks for, or falls
    /// behind, what the store remembers: list again.
    async fn watch(&self, revision: u64) -> Result<Watch, StoreError>;

    /// All of the writes or none. Returns once they are durable, and visible to `list` and
    /// `watch` of this store; or, of a dry run, what would have come of them.
    ///
    /// # Errors
    /// The first write whose expectation does not hold, or why the store could not write.
    async fn commit(&self, writes: Vec<Write>, run: Run) -> Result<Written, StoreError>;

    /// Whether the store can be reached, and why not.
    fn health(&self) -> &Health;

    /// Objects that the store has lost all at once, so that they are kept here until somebody says what is meant.
    fn lost(&self) -> Vec<Key> {
        Vec::new()
    }

    /// These of them are meant to be gone: they are, here too.
    fn let_go(&self, _: &[Key]) {}
}

/// The transactions after a revision.
pub type Watch = BoxStream<'static, Result<Arc<Transaction>, StoreError>>;

/// An object as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it is called.
    pub key: Key,
    /// Canonical JSON.
    pub json: Arc<str>,
    /// Changes with each change of the object, and never comes back; 0 for one that was never stored.
    pub version: u64,
}

/// A store's content at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// In key order.
    pub entries: Vec<Entry>,
    /// Where a watch goes on from.
    pub revision: u64,
}

/// What one commit changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// The store's revision with this transaction in.
    pub revision: u64,
    /// At most one a key.
    pub changes: Vec<Change>,
}

/// What happened to one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// There was none of that name.
    Added(Entry),
    /// It says something else now.
    Modified(Entry),
    /// The object as it last was.
    Deleted(Entry),
}

impl Change {
    /// The object: as it is now, or for a deleted one as it last was.
    pub fn entry(&self) -> &Entry {
        match self {
            Self::Added(entry) | Self::Modified(entry) | Self::Deleted(entry) => entry,
        }
    }
}

/// One write of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Create or replace.
    Put {
        /// What it is called.
        key: Key,
        /// Canonical JSON.
        json: Arc<str>,
        /// What must be there for the write to be right.
        expected: Expected,
    },
    /// Remove. It must be there.
    Delete {
        /// What it is called.
        key: Key,
        /// What must be there for the removal to be right.
        expected: Expected,
    },
}

impl Write {
    /// The object that is written.
    pub fn key(&self) -> &Key {
        match self {
            Self::Put { key, .. } | Self::Delete { key, .. } => key,
        }
    }
}

/// What must be stored under a key for a write to be right: the compare of compare-and-swap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Whatever is there.
    Anything,
    /// Nothing.
    Nothing,
    /// Something.
    Something,
    /// This version.
    Version(u64),
}

/// Whether a commit is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Run {
    /// Store.
    Real,
    /// Check everything, store nothing.
    Dry,
}

/// What a commit did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Of the store, with the commit in. Unchanged where nothing changed.
    pub revision: u64,
    /// One a write, in order.
    pub outcomes: Vec<Outcome>,
}

/// What one write did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// There is an object of this version now.
    Created(u64),
    /// There is another version now.
    Configured(u64),
    /// The object was already so: this is still its version.
    Unchanged(u64),
    /// It is gone.
    Deleted,
}

impl StoreError {
    /// Something else is stored than the write expected: read again, and redo the change.
    pub const fn is_conflict(&self) -> bool {
        use tonic::Code::{Aborted, AlreadyExists, NotFound};
        matches!(
            self,
            Self::NotFound(_)
                | Self::AlreadyExists(_)
                | Self::Conflict { .. }
                | Self::Refused { code: Aborted | AlreadyExists | NotFound, .. }
        )
    }
}

/// Why a store did not do as asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The key has nothing.
    #[error("{0} not found")]
    NotFound(Key),
    /// The key has something.
    #[error("{0} already exists: apply or replace it instead of creating it")]
    AlreadyExists(Key),
    /// Somebody else wrote in between.
    #[error(
        "{key} is at resource version {actual}, not {expected}: it was changed since it was read; read it again and redo the change"
    )]
    Conflict {
        /// The object.
        key: Key,
        /// The version that the writer had read.
        expected: u64,
        /// The version that is stored.
        actual: u64,
    },
    /// The object is not the store's to change.
    #[error("{key} is fixed by {origin} and cannot be changed here: change it there")]
    ReadOnly {
        /// The object.
        key: Key,
        /// Where it comes from.
        origin: String,
    },
    /// One commit names an object twice: which of the two was meant?
    #[error("{0} is named twice in one request: keep one of them")]
    Twice(Key),
    /// The reader asked for more of the past than is kept.
    #[error(
        "the changes after revision {asked} are no longer kept (the oldest kept is after {oldest}): list again"
    )]
    Compacted {
        /// The revision asked for.
        asked: u64,
        /// The earliest from which a watch can go on.
        oldest: u64,
    },
    /// This store cannot do that.
    #[error("{0}")]
    Unsupported(&'static str),
    /// Another agent, whose store this is, refused the write.
    #[error("{message}")]
    Refused {
        /// As the other agent sent it.
        code: tonic::Code,
        /// What it said.
        message: String,
    },
    /// Not now.
    #[error("the store cannot be reached: {0}")]
    Unavailable(String),
    /// The file is there and cannot be used.
    #[error("the store {path}: {reason}")]
    File {
        /// Its path.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        reason: String,
    },
}
