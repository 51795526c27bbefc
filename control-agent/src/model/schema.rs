//! JSON Schema of each kind, from its types: committed under `docs/schema`, for editors and for
//! whoever checks manifests elsewhere.
//!
//! Kubernetes' own kinds have theirs elsewhere. It says what fields there are, of which form. What holds between fields is `validate`'s.

use std::path::Path;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema};
use serde_json::{Value, json};

use super::resource::API_VERSION;
use super::*;

/// The schema of a whole manifest.
fn manifest<T: Object + JsonSchema>() -> (String, Value) {
    let kind = T::KIND.name();
    let schema: Schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<T>();
    let mut schema = schema.to_value();
    schema["title"] = json!(kind);
    schema["properties"]["apiVersion"] = json!({ "const": API_VERSION });
    schema["properties"]["kind"] = json!({ "const": kind });
    let required = schema["required"].as_array().cloned().unwrap_or_default();
    let first = ["apiVersion", "kind", "metadata"].map(Value::from);
    let rest = required.into_iter().filter(|field| !first.contains(field));
    schema["required"] = first.iter().cloned().chain(rest).collect();
    // Servers write it, and whoever reads a manifest drops it.
    if schema["properties"].get("status").is_none() {
        schema["properties"]["status"] = json!({ "type": "object" });
    }
    (kind.to_owned(), schema)
}

fn all() -> Vec<(String, Value)> {
    vec![
        manifest::<BgpConfiguration>(),
        manifest::<BgpFilter>(),
        manifest::<BgpPeer>(),
        manifest::<BlockAffinity>(),
        manifest::<CalicoNodeStatus>(),
        manifest::<ClusterInformation>(),
        manifest::<FelixConfiguration>(),
        manifest::<GlobalNetworkPolicy>(),
        manifest::<GlobalNetworkSet>(),
        manifest::<HostEndpoint>(),
        manifest::<IpPool>(),
        manifest::<IpReservation>(),
        manifest::<IpamBlock>(),
        manifest::<IpamConfiguration>(),
        manifest::<IpamHandle>(),
        manifest::<KubeControllersConfiguration>(),
        manifest::<NetworkPolicy>(),
        manifest::<NetworkSet>(),
        manifest::<Node>(),
        manifest::<Profile>(),
        manifest::<StagedGlobalNetworkPolicy>(),
        manifest::<StagedNetworkPolicy>(),
        manifest::<Tier>(),
        manifest::<WorkloadEndpoint>(),
    ]
}

#[test]
fn the_committed_schemas_are_those_of_the_types() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/schema");
    let update = std::env::var_os("UPDATE").is_some();
    for (kind, schema) in all() {
        let file = folder.join(format!("{}.json", kind.to_lowercase()));
        let text = format!("{schema:#}\n");
        if update {
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(&file, &text).unwrap();
        }
        let committed = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(
            committed == text,
            "{} is of other types; write it anew: UPDATE=1 cargo test",
            file.display()
        );
    }
}

#[test]
fn every_kind_has_a_schema() {
    let named: Vec<String> = all().into_iter().map(|(kind, _)| kind).collect();
    // Staged policy of Kubernetes has Kubernetes' own spec.
    let own = |kind: &Kind| !kind.is_kubernetes() && *kind != Kind::StagedKubernetesNetworkPolicy;
    let missing = Kind::ALL.into_iter().filter(own).filter(|kind| !named.contains(&kind.name().to_owned()));
    assert_eq!(missing.collect::<Vec<_>>(), []);
}
