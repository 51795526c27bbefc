//! How far the dataplane has got.

use crate::calc::EndpointKey;
use margay_api::dataplane::v1::{EndpointStatus, ObjectError, Refused};
use std::collections::BTreeMap;
use tokio::sync::watch;

/// What was sent, and what came back.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Progress {
    /// A stream is open, and the dataplane has said hello on it.
    pub connected: bool,
    /// The last generation sent.
    pub sent_generation: u64,
    /// The last generation that the dataplane is known to judge by.
    pub adopted_generation: u64,
    /// The store's revision whose consequences are in force; none while there is no stream.
    pub adopted_revision: Option<u64>,
    /// The last transaction was refused, and nothing was adopted since.
    pub refused: Option<Refusal>,
    /// What the dataplane says of its endpoints.
    pub endpoints: BTreeMap<EndpointKey, EndpointStatus>,
}

/// A transaction that the dataplane would not take.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// The store's revision that it would have brought into force.
    pub revision: u64,
    /// The transaction's.
    pub generation: u64,
    /// Why.
    pub errors: Vec<ObjectError>,
}

/// Why a revision was not adopted.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum AdoptError {
    /// The dataplane refused what follows from it.
    #[error("the dataplane refused it: {0}; what was in force before stays in force")]
    Refused(String),
    /// The agent is shutting down.
    #[error("the agent is shutting down")]
    Stopped,
}

impl Refusal {
    pub(super) fn new(revision: u64, refused: Refused) -> Self {
        Self { revision, generation: refused.generation, errors: refused.errors }
    }

    /// The reasons in one sentence.
    pub fn sentence(&self) -> String {
        let one = |error: &ObjectError| match (error.object.as_str(), error.field.as_str()) {
            ("", "") => error.message.clone(),
            (object, "") => format!("{object}: {}", error.message),
            (object, field) => format!("{object}: {field}: {}", error.message),
        };
        match self.errors.as_slice() {
            [] => "without saying why".into(),
            errors => errors.iter().map(one).collect::<Vec<_>>().join("; "),
        }
    }
}

/// Waits until the dataplane judges by what follows from `revision` of the store, or a later one.
/// Returns the generation. Waits for as long as the dataplane is away.
///
/// # Errors
/// The dataplane refused it.
pub(super) async fn adopted_at_least(
    progress: &mut watch::Receiver<Progress>,
    revision: u64,
) -> Result<u64, AdoptError> {
    let decided = progress
        .wait_for(|progress| {
            progress.adopted_revision.is_some_and(|adopted| adopted >= revision)
                || progress.refused.as_ref().is_some_and(|refusal| refusal.revision >= revision)
        })
        .await
        .map_err(|_| AdoptError::Stopped)?;
    match &decided.refused {
        Some(refusal) if decided.adopted_revision.is_none_or(|adopted| adopted < revision) => {
            Err(AdoptError::Refused(refusal.sentence()))
        }
        _ => Ok(decided.adopted_generation),
    }
}
