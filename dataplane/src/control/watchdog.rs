//! What the service manager is told (sd_notify(3)): that we are ready, that we end, and, as often as it wants to hear it,
//! that every worker polls and the control task answers. A worker that hangs takes its packets with it, so then we
//! are silent, and are started again.

use super::shell::Request;
use crate::nodes::WorkerCounters;
use sd_notify::NotifyState;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval};

/// Tells the service manager, if there is one.
pub fn tell(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "W013 the service manager cannot be told how we are");
    }
}

/// Feeds the service manager's watchdog, if it has one for us, for as long as all is well.
pub async fn feed(workers: Vec<Arc<WorkerCounters>>, control: mpsc::Sender<Request>) {
    let Some(patience) = sd_notify::watchdog_enabled() else { return };
    let mut pulse = Pulse::new(workers);
    // Half of it, as systemd advises; an idle worker polls ten times a second.
    let mut turns = interval(patience / 2);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    turns.tick().await;
    loop {
        turns.tick().await;
        match pulse.stopped() {
            Some(worker) => tracing::error!(worker, "W014 the worker does not poll any more"),
            // While it does not answer we wait here, and the watchdog goes hungry.
            None if answers(&control).await => tell(NotifyState::Watchdog),
            None => return,
        }
    }
}

/// Whether the control task gets to what it is asked.
async fn answers(control: &mpsc::Sender<Request>) -> bool {
    let (done, answer) = oneshot::channel();
    let look = Request::Look(Box::new(|_| {
        let _ = done.send(());
    }));
    control.send(look).await.is_ok() && answer.await.is_ok()
}

/// Who polled since it was asked last.
struct Pulse {
    workers: Vec<(Arc<WorkerCounters>, u64)>,
}

impl Pulse {
    fn new(workers: Vec<Arc<WorkerCounters>>) -> Self {
        let now = |counters: Arc<WorkerCounters>| {
            let polls = counters.polls.get();
            (counters, polls)
        };
        Self { workers: workers.into_iter().map(now).collect() }
    }

    /// The first that did not.
    fn stopped(&mut self) -> Option<usize> {
        let mut stopped = None;
        for (number, (counters, before)) in self.workers.iter_mut().enumerate() {
            let polls = counters.polls.get();
            if polls == *before {
                stopped = stopped.or(Some(number));
            }
            *before = polls;
        }
        stopped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_does_not_poll_is_noticed_and_forgiven_when_it_does_again() {
        let workers: Vec<_> = (0..3).map(|_| Arc::new(WorkerCounters::default())).collect();
        let mut pulse = Pulse::new(workers.clone());
        assert_eq!(pulse.stopped(), Some(0));
        for poll in [[true, true, true], [true, false, true], [true, true, false], [true, true, true]] {
            for (worker, polls) in workers.iter().zip(poll) {
                worker.polls.add(u64::from(polls));
            }
            assert_eq!(pulse.stopped(), poll.iter().position(|polls| !polls));
        }
    }
}
