//! A worker on its core, for as long as the process lives.

use super::{Port, Worker};
use crate::net::{Nanos, WorkerId};
use crate::nodes::Inbox;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What a worker does when there is nothing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idle {
    /// Spin a little, then yield, then sleep until something comes.
    Adaptive,
    /// Spin.
    Spin,
}

/// Nothing for this long: let others have the core between polls.
const YIELD_AFTER: Duration = Duration::from_micros(50);
/// Nothing for this long: sleep. A worker that goes before others does so when it would yield: to them
/// it yields nothing.
const SLEEP_AFTER: Duration = Duration::from_micros(500);
/// Flows expire and held packets give up without anybody's call.
const SLEEP_AT_MOST_MS: u8 = 100;

/// Wakes a sleeping worker.
#[derive(Clone)]
pub struct Wake(Arc<Bell>);

struct Bell {
    event: EventFd,
    sleeping: AtomicBool,
}

impl Wake {
    /// For one worker.
    pub fn new() -> nix::Result<Self> {
        let event = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?;
        Ok(Self(Arc::new(Bell { event, sleeping: AtomicBool::new(false) })))
    }

    /// Wakes the worker, if it sleeps.
    pub fn ring(&self) {
        if self.0.sleeping.load(Ordering::SeqCst) {
            // Full only when it was rung already.
            let _ = self.0.event.write(1);
        }
    }

    /// It sleeps.
    pub fn is_sleeping(&self) -> bool {
        self.0.sleeping.load(Ordering::SeqCst)
    }
}

/// What a thread is made of.
pub struct Parts {
    /// The worker.
    pub worker: Worker,
    /// Pinned here; `None`: wherever the system likes.
    pub core: Option<core_affinity::CoreId>,
    /// When idle.
    pub idle: Idle,
    /// Its nice value, from -20 to 19; 0: as the process has it.
    pub nice: i32,
    /// Every worker's, by number.
    pub wakes: Vec<Wake>,
}

/// A running worker.
pub struct Thread {
    stop: Arc<AtomicBool>,
    wake: Wake,
    handle: JoinHandle<()>,
}

impl Thread {
    /// Starts it.
    pub fn start(parts: Parts) -> std::io::Result<Self> {
        let WorkerId(me) = parts.worker.world().me;
        let stop = Arc::new(AtomicBool::new(false));
        let wake = parts.wakes[usize::from(me)].clone();
        let told = stop.clone();
        let handle =
            std::thread::Builder::new().name(format!("worker-{me}")).spawn(move || run(parts, &told))?;
        Ok(Self { stop, wake, handle })
    }

    /// Asks it to end, and waits until it has.
    pub fn stop(self) {
        self.stop.store(true, Ordering::SeqCst);
        // Rung whether it sleeps or is about to.
        let _ = self.wake.0.event.write(1);
        // A worker that panicked took the process with it.
        let _ = self.handle.join();
    }
}

/// The cost of nodes is counted in this: the time-stamp counter where there is one.
pub fn ticks() -> u64 {
    static CLOCK: std::sync::OnceLock<quanta::Clock> = std::sync::OnceLock::new();
    CLOCK.get_or_init(quanta::Clock::new).raw()
}

fn run(mut parts: Parts, stop: &AtomicBool) {
    if let Some(core) = parts.core
        && !core_affinity::set_for_current(core)
    {
        tracing::warn!(core = core.id, "W001 the worker could not be pinned to its core");
    }
    if parts.nice != 0
        && let Err(error) = rustix::process::setpriority_process(None, parts.nice)
    {
        tracing::warn!(
            nice = parts.nice,
            %error,
            "W015 the worker does not go before other threads of its core, and bursts may be lost while those have it: \
             give CAP_SYS_NICE"
        );
        parts.nice = 0;
    }
    let sleep_after = if parts.nice < 0 { YIELD_AFTER } else { SLEEP_AFTER };
    let worker = &mut parts.worker;
    let counters = worker.world().counters.clone();
    let bell = parts.wakes[usize::from(worker.world().me.0)].0.clone();
    let (epoch, epoch_ticks) = (Instant::now(), ticks());
    let (mut idle_since, mut before) = (None::<Instant>, epoch_ticks);
    while !stop.load(Ordering::Relaxed) {
        let at = Instant::now();
        let packets = worker.poll(Nanos(at.duration_since(epoch).as_nanos() as u64));
        let mut after = ticks();
        counters.ticks.set(after.wrapping_sub(epoch_ticks));
        if packets > 0 {
            counters.busy_ticks.add(after.wrapping_sub(before));
            idle_since = None;
            wake_others(worker, &parts.wakes);
        } else if parts.idle == Idle::Adaptive {
            let idle = at.duration_since(*idle_since.get_or_insert(at));
            if idle >= sleep_after {
                // Woken for nothing, it goes back to sleep at once: only packets keep it awake.
                sleep(worker, &bell);
            } else if idle >= YIELD_AFTER {
                std::thread::yield_now();
            }
            // Asleep it was not busy, whatever it finds when it wakes.
            after = ticks();
        }
        before = after;
        std::hint::spin_loop();
    }
}

/// Rings those for whom this worker may have left packets.
fn wake_others(worker: &Worker, wakes: &[Wake]) {
    let inboxes: &[Inbox] = &worker.world().inboxes;
    if inboxes.len() == 1 {
        return;
    }
    for (inbox, wake) in inboxes.iter().zip(wakes) {
        if !inbox.is_empty() {
            wake.ring();
        }
    }
}

fn sleep(worker: &Worker, bell: &Bell) {
    // Said before the last look: whoever leaves something after the look sees it and rings.
    bell.sleeping.store(true, Ordering::SeqCst);
    if worker.may_sleep() {
        worker.world().counters.sleeps.add(1);
        let devices = worker.ports().iter().filter_map(|port: &Port| port.device.wait_fd());
        let mut fds: Vec<PollFd<'_>> = devices.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        fds.push(PollFd::new(bell.event.as_fd(), PollFlags::POLLIN));
        // Interrupted or not: the next poll finds what there is.
        let _ = poll(&mut fds, PollTimeout::from(SLEEP_AT_MOST_MS));
        let _ = bell.event.read();
    }
    bell.sleeping.store(false, Ordering::SeqCst);
}
