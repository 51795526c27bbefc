//! The agent's side of one stream, without the stream: what to send next, and what an answer means.

use super::{Progress, Refusal, diff};
use crate::calc::{Calculated, Desired, EndpointKey};
use margay_api::dataplane::v1::{
    Commit, EndpointStatus, Hello, Refused, SyncRequest, endpoint_status::State,
};
use std::{collections::VecDeque, sync::Arc};

/// One stream, from its hello on.
pub(super) struct Session {
    /// What the dataplane has accepted on this stream; none before the snapshot is.
    accepted: Option<Arc<Desired>>,
    under_way: Option<UnderWay>,
    sequence: u64,
    generation: u64,
    /// Messages of the transaction under way that are still to be sent.
    outbox: VecDeque<SyncRequest>,
}

struct UnderWay {
    generation: u64,
    calculated: Calculated,
}

impl Session {
    /// `sent` is the last generation that this agent sent on any stream: generations only grow,
    /// also across restarts of either side.
    pub fn new(hello: &Hello, sent: u64) -> Self {
        Self {
            accepted: None,
            under_way: None,
            sequence: 0,
            generation: hello.adopted_generation.max(sent),
            outbox: VecDeque::new(),
        }
    }

    /// No transaction is under way: the next may be.
    pub fn is_idle(&self) -> bool {
        self.under_way.is_none()
    }

    /// There is something for [`next_message`](Self::next_message) to return.
    pub fn has_messages(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// The next message of the transaction under way.
    pub fn next_message(&mut self) -> Option<SyncRequest> {
        self.outbox.pop_front()
    }

    /// Starts the transaction that leads to `calculated`, if there is a difference.
    pub fn pursue(&mut self, calculated: Calculated, progress: &mut Progress) {
        debug_assert!(self.is_idle());
        let changes = match &self.accepted {
            None => diff::changes(&Desired::default(), &calculated.desired),
            Some(accepted) => {
                let changes = diff::changes(accepted, &calculated.desired);
                if changes.is_empty() {
                    progress.adopted_revision = Some(calculated.revision);
                    progress.refused = None;
                    return;
                }
                changes
            }
        };
        self.generation += 1;
        let commit = Commit { generation: self.generation, in_sync: self.accepted.is_none() };
        tracing::debug!(
            generation = self.generation,
            changes = changes.len(),
            in_sync = commit.in_sync,
            "sending"
        );
        for mut message in diff::messages(changes, commit) {
            self.sequence += 1;
            message.sequence = self.sequence;
            self.outbox.push_back(message);
        }
        progress.sent_generation = self.generation;
        self.under_way = Some(UnderWay { generation: self.generation, calculated });
    }

    /// The dataplane judges by this generation.
    pub fn adopted(&mut self, generation: u64, progress: &mut Progress) {
        progress.adopted_generation = progress.adopted_generation.max(generation);
        if let Some(done) = self.under_way.take_if(|under_way| under_way.generation <= generation) {
            progress.adopted_revision = Some(done.calculated.revision);
            progress.refused = None;
            self.forget_endpoints(&done.calculated.desired, progress);
            self.accepted = Some(done.calculated.desired);
        }
    }

    /// The dataplane stays as it was. The next difference is still taken from what it accepted.
    pub fn refused(&mut self, refused: Refused, progress: &mut Progress) {
        if let Some(failed) = self.under_way.take_if(|under_way| under_way.generation == refused.generation) {
            self.outbox.clear();
            progress.refused = Some(Refusal::new(failed.calculated.revision, refused));
        }
    }

    /// What the dataplane says of one endpoint.
    pub fn endpoint(&mut self, status: EndpointStatus, progress: &mut Progress) {
        if let Some(id) = status.id.clone().filter(|_| status.state() != State::Unspecified) {
            progress.endpoints.insert(EndpointKey::from(id), status);
        }
    }

    fn forget_endpoints(&self, desired: &Desired, progress: &mut Progress) {
        progress.endpoints.retain(|key, _| desired.endpoints.contains_key(key));
    }
}
