//! What the store has lost, and whether that is meant.

use super::Cluster;
use crate::model::{Key, Kind};
use margay_api::control::v1::{ConfirmLostRequest, ConfirmLostResponse, ListLostResponse, LostObject};
use tonic::Status;

impl Cluster<'_> {
    pub(super) fn list_lost(&self) -> ListLostResponse {
        let object =
            |key: Key| LostObject { kind: key.kind.to_string(), namespace: key.namespace, name: key.name };
        ListLostResponse { objects: self.store.lost().into_iter().map(object).collect() }
    }

    pub(super) fn confirm_lost(&self, request: ConfirmLostRequest) -> Result<ConfirmLostResponse, Status> {
        let key = |object: LostObject| {
            let kind = Kind::parse(&object.kind)
                .map_err(|error| Status::invalid_argument(format!("objects.kind: {error}")))?;
            Ok(Key { kind, namespace: object.namespace, name: object.name })
        };
        let lost = request.objects.into_iter().map(key).collect::<Result<Vec<_>, Status>>()?;
        tracing::info!(
            objects = lost.len(),
            "objects that the store has lost are confirmed to be meant to be gone"
        );
        self.store.let_go(&lost);
        Ok(ConfirmLostResponse {})
    }
}
