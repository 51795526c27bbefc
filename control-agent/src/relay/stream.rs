//! What one reader is told, one message after the other.

use super::{
    Attached,
    encoded::{Change, Encoded, Frame},
    readers::Entered,
    view::{Delta, Log},
};
use futures::{stream, stream::BoxStream};
use margay_api::control::v1::{WatchEvent, watch_event::Type};
use std::{collections::VecDeque, sync::Arc};
use tokio::sync::watch;
use tonic::Status;

/// Messages to one reader. Ends with `OUT_OF_RANGE` where the reader is too slow.
pub type Events = BoxStream<'static, Result<Frame, Status>>;

/// What a reader that was taken in is told.
pub(super) fn events(
    attached: Attached,
    entered: Entered,
    epoch: u64,
    problem: watch::Receiver<String>,
) -> Events {
    let Attached { log, snapshot, at, held } = attached;
    let news = log.news();
    let mut teller = Teller {
        present: VecDeque::new(),
        first: None,
        delta: None,
        at,
        epoch,
        log,
        news,
        problem,
        said: String::new(),
        entered,
        over: false,
        _held: held,
    };
    let resume = teller.resume();
    let first = if snapshot.is_some() { Type::Synced } else { Type::Resumed };
    teller.first = Some(Frame::mark(first, resume));
    teller.present = snapshot.unwrap_or_default().into();
    Box::pin(stream::unfold(teller, |mut teller| async move {
        let next = teller.next().await?;
        if let Ok(frame) = &next {
            teller.entered.took(frame.bytes(), matches!(frame, Frame::Object(_)));
        }
        Some((next, teller))
    }))
}

struct Teller {
    /// Of the snapshot, what was not told yet.
    present: VecDeque<Arc<Encoded>>,
    /// The mark that follows it.
    first: Option<Frame>,
    /// What is being told, from which change on.
    delta: Option<(Arc<Delta>, usize)>,
    /// All up to this place in the log was told.
    at: u64,
    epoch: u64,
    log: Arc<Log>,
    news: watch::Receiver<u64>,
    problem: watch::Receiver<String>,
    /// Of the store's problems.
    said: String,
    entered: Entered,
    over: bool,
    _held: Arc<()>,
}

impl Teller {
    async fn next(&mut self) -> Option<Result<Frame, Status>> {
        if self.over {
            return None;
        }
        if let Some(object) = self.present.pop_front() {
            return Some(Ok(Frame::Object(Change { what: Type::Added, object })));
        }
        if let Some(mark) = self.first.take() {
            // It was long, and is not needed again.
            self.present = VecDeque::new();
            return Some(Ok(mark));
        }
        loop {
            if let Some(frame) = self.of_delta() {
                return Some(Ok(frame));
            }
            // Marked as seen before looking, so that a change after the look wakes us.
            self.news.mark_unchanged();
            match self.log.after(self.at) {
                Ok(Some(delta)) => {
                    self.delta = Some((delta, 0));
                    continue;
                }
                Ok(None) => {}
                Err(_) => {
                    self.over = true;
                    self.entered.fell_behind();
                    let message = "further behind than the relay remembers: begin anew";
                    return Some(Err(Status::out_of_range(message)));
                }
            }
            let problem = self.problem.borrow_and_update().clone();
            if problem != self.said {
                self.said.clone_from(&problem);
                let event = WatchEvent { r#type: Type::Store.into(), problem, ..WatchEvent::default() };
                return Some(Ok(Frame::Event(Box::new(event))));
            }
            // An error means that the relay ends.
            tokio::select! {
                changed = self.news.changed() => changed.ok()?,
                changed = self.problem.changed() => changed.ok()?,
            }
        }
    }

    /// The next change of what is being told, or the mark at its end.
    fn of_delta(&mut self) -> Option<Frame> {
        let (delta, told) = self.delta.as_mut()?;
        if let Some(change) = delta.changes.get(*told) {
            *told += 1;
            return Some(Frame::Object(change.clone()));
        }
        self.at = delta.at;
        self.delta = None;
        self.entered.is_at(self.at);
        Some(Frame::mark(Type::Committed, self.resume()))
    }

    /// What a reader that was told so far goes on from.
    fn resume(&self) -> String {
        format!("{}-{}", self.epoch, self.at)
    }
}
