//! A store whose user dies in the middle.

use margay_agent::{
    datastore::{Datastore, Entry, Listing, Memory, Run, StoreError, Watch, Write, Written},
    health::Health,
    model::Key,
};
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

/// Numbers that look random, the same from the same seed (splitmix64).
pub struct Dice(u64);

impl Dice {
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// From 0 to one less than `sides`.
    pub fn throw(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }
}

/// Where the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Nothing of the operation was done.
    Before,
    /// It was done, and nobody was told.
    After,
}

/// When the process ends.
pub enum Death {
    /// At the operation of this number.
    At(u64, Side),
    /// At one of so many operations.
    OneIn(u64, Dice),
    /// Not at all.
    Never,
}

/// One process's view of a store. Once it has died, nothing works any more: the next process needs a
/// view of its own.
pub struct Faulty {
    base: Arc<Memory>,
    death: Mutex<(Death, u64)>,
    dead: AtomicBool,
}

impl Faulty {
    pub fn new(base: Arc<Memory>, death: Death) -> Self {
        Self { base, death: Mutex::new((death, 0)), dead: AtomicBool::new(false) }
    }

    pub fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Relaxed)
    }

    /// On which side of the next operation the process dies, and how often others come first.
    fn fate(&self) -> Result<(Option<Side>, u64), StoreError> {
        if self.is_dead() {
            return Err(dead());
        }
        let (death, operations) = &mut *self.death.lock().unwrap();
        *operations += 1;
        let side = |dice: &mut Dice| if dice.throw(2) == 0 { Side::Before } else { Side::After };
        Ok(match death {
            Death::At(at, side) => ((*operations == *at).then_some(*side), 0),
            Death::OneIn(many, dice) => {
                let dies = dice.throw(*many) == 0;
                (dies.then(|| side(dice)), dice.throw(4))
            }
            Death::Never => (None, 0),
        })
    }

    async fn through<T>(
        &self,
        operation: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let (side, others_first) = self.fate()?;
        for _ in 0..others_first {
            tokio::task::yield_now().await;
        }
        if side == Some(Side::Before) {
            self.dead.store(true, Ordering::Relaxed);
            return Err(dead());
        }
        let done = operation.await;
        if others_first % 2 == 1 {
            tokio::task::yield_now().await;
        }
        if side == Some(Side::After) {
            self.dead.store(true, Ordering::Relaxed);
            return Err(dead());
        }
        done
    }
}

fn dead() -> StoreError {
    StoreError::Unavailable("the process died".into())
}

#[tonic::async_trait]
impl Datastore for Faulty {
    async fn list(&self) -> Result<Listing, StoreError> {
        self.through(self.base.list()).await
    }

    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        self.through(self.base.get(key)).await
    }

    async fn watch(&self, revision: u64) -> Result<Watch, StoreError> {
        self.through(self.base.watch(revision)).await
    }

    async fn commit(&self, writes: Vec<Write>, run: Run) -> Result<Written, StoreError> {
        self.through(self.base.commit(writes, run)).await
    }

    fn health(&self) -> &Health {
        self.base.health()
    }
}
