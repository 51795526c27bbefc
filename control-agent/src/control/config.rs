//! Every setting that is in force on the node, and where it is from.

use super::{Agent, ask, failure};
use crate::model::{Key, Kind};
use margay_api::{
    control::v1::GetConfigResponse,
    dataplane::v1::{GetSettingsRequest, Setting, setting::Origin},
};
use serde_json::Value;
use std::collections::BTreeMap;
use tonic::Status;

impl Agent {
    pub(super) async fn config(&self) -> Result<GetConfigResponse, Status> {
        let asked = ask::within(ask::PART, &self.link, async |dataplane| {
            dataplane.get_settings(GetSettingsRequest {}).await
        });
        let (dataplane, dataplane_problem) = match asked.await {
            Ok(answer) => (answer.settings, String::new()),
            Err(status) => (Vec::new(), status.message().to_owned()),
        };
        Ok(GetConfigResponse {
            node: self.node.clone(),
            agent: self.log.among(&self.settings),
            dataplane,
            dataplane_problem,
            store: self.stored_settings().await?,
        })
    }

    /// Those of FelixConfigurations: the node's own go before the cluster's.
    async fn stored_settings(&self) -> Result<Vec<Setting>, Status> {
        let mut settings = BTreeMap::new();
        for (name, origin) in
            [("default".to_owned(), Origin::Cluster), (format!("node.{}", self.node), Origin::Node)]
        {
            let key = Key::global(Kind::FelixConfiguration, name);
            let Some(entry) = self.store.get(&key).await.map_err(failure::store)? else { continue };
            let object: Value = serde_json::from_str(&entry.json)
                .map_err(|error| Status::internal(format!("{key} in the store cannot be read: {error}")))?;
            let part = |part: &Value| part.as_object().cloned().unwrap_or_default();
            for (name, value) in
                part(&object["spec"]).into_iter().chain(part(&object["metadata"]["annotations"]))
            {
                let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                let setting = Setting {
                    name: name.clone(),
                    value,
                    origin: origin.into(),
                    source: key.to_string(),
                    needs_restart: false,
                };
                settings.insert(name, setting);
            }
        }
        Ok(settings.into_values().collect())
    }
}
