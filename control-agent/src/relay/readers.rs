//! Who reads, and what was told.

use super::view::Log;
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// Who reads.
#[derive(Clone, Debug)]
pub struct Reader {
    /// As the caller is called.
    pub name: String,
    /// What the agent of this node needs; none: everything.
    pub node: Option<String>,
}

/// What was told, and to whom.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Objects of the store.
    pub objects: u64,
    /// Selectors whose members somebody needs.
    pub selectors: u64,
    /// By name.
    pub readers: Vec<Reading>,
    /// Readers that were told everything.
    pub listed: u64,
    /// Readers that went on where they were.
    pub resumed: u64,
    /// Readers that fell too far behind.
    pub dropped: u64,
    /// Objects that were told of.
    pub events: u64,
    /// Bytes of all that was told.
    pub bytes: u64,
}

/// One who reads.
#[derive(Clone, Debug)]
pub struct Reading {
    /// Who.
    pub reader: Reader,
    /// Since when.
    pub connected: Duration,
    /// What there is for the reader.
    pub objects: u64,
    /// How long the oldest change that the reader has yet to take has waited.
    pub behind: Duration,
    /// That the reader took.
    pub bytes: u64,
}

/// Everybody who reads.
#[derive(Default)]
pub(super) struct Readers {
    present: Mutex<BTreeMap<u64, Arc<Place>>>,
    next: AtomicU64,
    objects: AtomicU64,
    selectors: AtomicU64,
    listed: AtomicU64,
    resumed: AtomicU64,
    dropped: AtomicU64,
    events: AtomicU64,
    bytes: AtomicU64,
}

/// Where one who reads is. Leaves when it is dropped.
pub(super) struct Entered {
    readers: Arc<Readers>,
    id: u64,
    place: Arc<Place>,
}

struct Place {
    reader: Reader,
    since: Instant,
    log: Arc<Log>,
    at: AtomicU64,
    bytes: AtomicU64,
}

impl Readers {
    pub fn enter(self: &Arc<Self>, reader: Reader, log: Arc<Log>, at: u64, resumes: bool) -> Entered {
        let id = self.next.fetch_add(1, Relaxed);
        if resumes { &self.resumed } else { &self.listed }.fetch_add(1, Relaxed);
        let (at, bytes) = (AtomicU64::new(at), AtomicU64::new(0));
        let place = Arc::new(Place { reader, since: Instant::now(), log, at, bytes });
        self.present().insert(id, place.clone());
        Entered { readers: self.clone(), id, place }
    }

    pub fn tell(&self, objects: usize, selectors: usize) {
        self.objects.store(objects as u64, Relaxed);
        self.selectors.store(selectors as u64, Relaxed);
    }

    pub fn figures(&self) -> Figures {
        let present: Vec<Arc<Place>> = self.present().values().cloned().collect();
        let mut readers: Vec<Reading> = present.iter().map(|place| place.reading()).collect();
        readers.sort_by(|a, b| (&a.reader.name, &a.reader.node).cmp(&(&b.reader.name, &b.reader.node)));
        let of = |count: &AtomicU64| count.load(Relaxed);
        Figures {
            objects: of(&self.objects),
            selectors: of(&self.selectors),
            readers,
            listed: of(&self.listed),
            resumed: of(&self.resumed),
            dropped: of(&self.dropped),
            events: of(&self.events),
            bytes: of(&self.bytes),
        }
    }

    fn present(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Place>>> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entered {
    /// A message was taken.
    pub fn took(&self, bytes: usize, is_object: bool) {
        self.place.bytes.fetch_add(bytes as u64, Relaxed);
        self.readers.bytes.fetch_add(bytes as u64, Relaxed);
        self.readers.events.fetch_add(is_object.into(), Relaxed);
    }

    /// All up to here was taken.
    pub fn is_at(&self, at: u64) {
        self.place.at.store(at, Relaxed);
    }

    /// The reader is further behind than the past is known.
    pub fn fell_behind(&self) {
        self.readers.dropped.fetch_add(1, Relaxed);
        tracing::info!(reader = self.place.reader.name, "fell too far behind, and is to begin anew");
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.readers.present().remove(&self.id);
    }
}

impl Place {
    fn reading(&self) -> Reading {
        let next = self.log.after(self.at.load(Relaxed));
        let behind = match next {
            Ok(Some(delta)) => delta.since.elapsed(),
            Ok(None) => Duration::ZERO,
            // Of its oldest change nothing is known any more.
            Err(_) => self.since.elapsed(),
        };
        Reading {
            reader: self.reader.clone(),
            connected: self.since.elapsed(),
            objects: self.log.objects(),
            behind,
            bytes: self.bytes.load(Relaxed),
        }
    }
}
