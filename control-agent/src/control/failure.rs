//! What a gRPC status says of a failure here: the code is what `margayctl` takes its exit code from.

use crate::{
    access::Refusal,
    cni::CniError,
    datastore::StoreError,
    model::{Kind, UnknownKind},
};
use tonic::{Code, Status};

/// The code of what a caller may not do.
pub(super) fn refused(refusal: Refusal) -> Status {
    Status::permission_denied(refusal.to_string())
}

/// The code of a store's refusal.
pub(super) fn store(error: StoreError) -> Status {
    let code = match &error {
        StoreError::NotFound(_) => Code::NotFound,
        StoreError::AlreadyExists(_) => Code::AlreadyExists,
        StoreError::Conflict { .. } => Code::Aborted,
        StoreError::ReadOnly { .. } => Code::FailedPrecondition,
        StoreError::Twice(_) => Code::InvalidArgument,
        StoreError::Compacted { .. } => Code::OutOfRange,
        StoreError::Unsupported(_) => Code::Unimplemented,
        StoreError::Refused { code, .. } => *code,
        StoreError::Unavailable(_) | StoreError::File { .. } => Code::Unavailable,
    };
    Status::new(code, error.to_string())
}

/// The code of what CNI's commands end with.
pub(super) fn cni(error: CniError) -> Status {
    let code = match error {
        CniError::Store(error) => return store(error),
        CniError::Invalid(_) => Code::InvalidArgument,
        CniError::Absent(_) => Code::NotFound,
        CniError::Broken(_) | CniError::Refused(_) => Code::FailedPrecondition,
        CniError::Addresses(_) => Code::ResourceExhausted,
        CniError::Late(_) => Code::DeadlineExceeded,
    };
    Status::new(code, error.to_string())
}

/// A kind as a user spelled it.
pub(super) fn kind(text: &str) -> Result<Kind, Status> {
    Kind::parse(text).map_err(|error: UnknownKind| Status::invalid_argument(error.to_string()))
}
