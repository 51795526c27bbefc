//! Resources as they come from the agent, and the columns people see of them.

use std::collections::BTreeMap;

use margay_agent::model::Kind;
use margay_api::control::v1 as control;
use serde_json::{Value, json};

use crate::{
    exit::{Code, Failure, Outcome},
    output::{Cell, Output, Table},
};

/// One resource.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// What it is.
    pub kind: Kind,
    /// Empty for kinds without namespaces.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Of the store.
    pub resource_version: String,
    /// All of it, as a user writes it.
    pub value: Value,
}

/// A column of a kind's table: its title, where its value is, and whether only `-o wide` shows it.
struct Column {
    title: &'static str,
    pointer: &'static str,
    wide: bool,
}

const fn narrow(title: &'static str, pointer: &'static str) -> Column {
    Column { title, pointer, wide: false }
}

const fn wide(title: &'static str, pointer: &'static str) -> Column {
    Column { title, pointer, wide: true }
}

impl Item {
    /// Takes an object from the agent. Its JSON carries the resource version, so that what is
    /// printed can be changed and fed back into `replace`.
    pub fn new(object: control::Object) -> Outcome<Self> {
        let unreadable = |cause: String| {
            Failure::new(
                Code::Failed,
                format!("cannot read {} {} from the agent's answer", object.kind, object.name),
                cause,
                "check that margayctl and the agent are of one version: `margayctl status`",
            )
        };
        let kind = Kind::parse(&object.kind).map_err(|error| unreadable(error.to_string()))?;
        let mut value: Value =
            serde_json::from_str(&object.json).map_err(|error| unreadable(error.to_string()))?;
        if !value["metadata"].is_object() {
            return Err(unreadable("it has no metadata".to_owned()));
        }
        if !object.resource_version.is_empty() {
            value["metadata"]["resourceVersion"] = json!(object.resource_version);
        }
        Ok(Self {
            kind,
            namespace: object.namespace,
            name: object.name,
            resource_version: object.resource_version,
            value,
        })
    }

    /// `networkpolicy/web`, as `-o name` prints it.
    pub fn path(&self) -> String {
        path(self.kind.name(), &self.name)
    }

    /// The labels, by name.
    pub fn labels(&self) -> BTreeMap<String, String> {
        let labels = self.value.pointer("/metadata/labels").and_then(Value::as_object);
        let pair = |(key, value): (&String, &Value)| Some((key.clone(), value.as_str()?.to_owned()));
        labels.into_iter().flatten().filter_map(pair).collect()
    }

    /// The cells of its row in a table of [`Shape`].
    pub fn row(&self, shape: &Shape) -> Vec<Cell> {
        let name = if shape.with_kind { self.path() } else { self.name.clone() };
        let mut row: Vec<Cell> = Vec::new();
        if shape.with_namespace {
            row.push((&self.namespace).into());
        }
        row.push(name.into());
        row.extend(shape.columns().map(|column| cell(self.value.pointer(column.pointer)).into()));
        row
    }
}

/// `networkpolicy/web` of the kind `NetworkPolicy`.
pub fn path(kind: &str, name: &str) -> String {
    format!("{}/{name}", kind.to_lowercase())
}

/// Which columns a table of one kind has.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Of this kind.
    pub kind: Kind,
    /// With the columns of `-o wide`.
    pub wide: bool,
    /// With a column for the namespace.
    pub with_namespace: bool,
    /// With the kind before the name, because there are other kinds too.
    pub with_kind: bool,
}

impl Shape {
    /// The titles of the columns.
    pub fn titles(&self) -> Vec<&'static str> {
        let mut titles = Vec::new();
        if self.with_namespace {
            titles.push("NAMESPACE");
        }
        titles.push("NAME");
        titles.extend(self.columns().map(|column| column.title));
        titles
    }

    /// Prints all items as one table.
    pub fn print<'a>(&self, items: impl Iterator<Item = &'a Item>, out: &mut Output) -> std::io::Result<()> {
        let mut table = Table::new(self.titles());
        items.for_each(|item| table.row(item.row(self)));
        table.print(out)
    }

    fn columns(&self) -> impl Iterator<Item = &'static Column> {
        const LABELS: Column = wide("LABELS", "/metadata/labels");
        let with_wide = self.wide;
        columns(self.kind).iter().chain([&LABELS]).filter(move |column| with_wide || !column.wide)
    }
}

fn columns(kind: Kind) -> &'static [Column] {
    const POLICY: [Column; 4] = [
        narrow("TIER", "/spec/tier"),
        narrow(">ORDER", "/spec/order"),
        narrow("SELECTOR", "/spec/selector"),
        narrow("TYPES", "/spec/types"),
    ];
    const AGE: [Column; 1] = [narrow("CREATED", "/metadata/creationTimestamp")];
    const SELECTED: [Column; 2] =
        [narrow("POD-SELECTOR", "/spec/podSelector"), narrow("TYPES", "/spec/policyTypes")];
    const NETS: [Column; 1] = [narrow("NETS", "/spec/nets")];
    match kind {
        Kind::FelixConfiguration => &const { [narrow("BPF", "/spec/bpfEnabled")] },
        Kind::Tier => {
            &const { [narrow(">ORDER", "/spec/order"), narrow("DEFAULT-ACTION", "/spec/defaultAction")] }
        }
        Kind::Node => {
            &const {
                [
                    narrow("IPV4", "/spec/bgp/ipv4Address"),
                    narrow("IPV6", "/spec/bgp/ipv6Address"),
                    wide("ASN", "/spec/bgp/asNumber"),
                ]
            }
        }
        Kind::IPPool => {
            &const {
                [
                    narrow("CIDR", "/spec/cidr"),
                    narrow("NAT", "/spec/natOutgoing"),
                    narrow("IPIP", "/spec/ipipMode"),
                    narrow("VXLAN", "/spec/vxlanMode"),
                    wide("DISABLED", "/spec/disabled"),
                    wide("NODE-SELECTOR", "/spec/nodeSelector"),
                ]
            }
        }
        Kind::BGPConfiguration => {
            &const { [narrow("MESH", "/spec/nodeToNodeMeshEnabled"), narrow("ASN", "/spec/asNumber")] }
        }
        Kind::BGPPeer => {
            &const {
                [
                    narrow("PEER", "/spec/peerIP"),
                    narrow("NODE", "/spec/node"),
                    narrow("ASN", "/spec/asNumber"),
                ]
            }
        }
        Kind::BGPFilter
        | Kind::ClusterInformation
        | Kind::KubeControllersConfiguration
        | Kind::IPAMConfiguration => &AGE,
        Kind::IPReservation => &const { [narrow("CIDRS", "/spec/reservedCIDRs")] },
        Kind::BlockAffinity => {
            &const { [narrow("CIDR", "/spec/cidr"), narrow("NODE", "/spec/node"), narrow("STATE", "/spec/state")] }
        }
        Kind::IPAMBlock => &const { [narrow("CIDR", "/spec/cidr"), narrow("AFFINITY", "/spec/affinity")] },
        Kind::IPAMHandle => &const { [narrow("ID", "/spec/handleID")] },
        Kind::CalicoNodeStatus => {
            &const { [narrow("NODE", "/spec/node"), narrow("CLASSES", "/spec/classes")] }
        }
        Kind::Profile => &const { [narrow("LABELS-TO-APPLY", "/spec/labelsToApply")] },
        Kind::GlobalNetworkSet | Kind::NetworkSet => &NETS,
        Kind::GlobalNetworkPolicy | Kind::NetworkPolicy => &POLICY,
        Kind::StagedGlobalNetworkPolicy | Kind::StagedNetworkPolicy => {
            &const {
                [
                    narrow("ACTION", "/spec/stagedAction"),
                    narrow("TIER", "/spec/tier"),
                    narrow(">ORDER", "/spec/order"),
                    narrow("SELECTOR", "/spec/selector"),
                    narrow("TYPES", "/spec/types"),
                ]
            }
        }
        Kind::KubernetesNetworkPolicy => &SELECTED,
        Kind::StagedKubernetesNetworkPolicy => {
            &const {
                [
                    narrow("ACTION", "/spec/stagedAction"),
                    narrow("POD-SELECTOR", "/spec/podSelector"),
                    narrow("TYPES", "/spec/policyTypes"),
                ]
            }
        }
        Kind::ClusterNetworkPolicy => {
            &const { [narrow("TIER", "/spec/tier"), narrow(">PRIORITY", "/spec/priority")] }
        }
        Kind::AdminNetworkPolicy => &const { [narrow(">PRIORITY", "/spec/priority")] },
        Kind::BaselineAdminNetworkPolicy => &const { [narrow("SUBJECT", "/spec/subject")] },
        Kind::KubernetesNode => {
            &const { [narrow("ADDRESS", "/status/addresses/0/address"), wide("PODS", "/spec/podCIDRs")] }
        }
        Kind::Namespace | Kind::ServiceAccount => &[],
        Kind::Service => {
            &const { [narrow("CLUSTER-IP", "/spec/clusterIP"), narrow("SELECTOR", "/spec/selector")] }
        }
        Kind::EndpointSlice => {
            &const {
                [
                    narrow("SERVICE", "/metadata/labels/kubernetes.io~1service-name"),
                    narrow("TYPE", "/addressType"),
                ]
            }
        }
        Kind::Pod => {
            &const {
                [
                    narrow("NODE", "/spec/nodeName"),
                    narrow("IP", "/status/podIP"),
                    narrow("PHASE", "/status/phase"),
                    wide("ACCOUNT", "/spec/serviceAccountName"),
                ]
            }
        }
        Kind::HostEndpoint => {
            &const {
                [
                    narrow("NODE", "/spec/node"),
                    narrow("INTERFACE", "/spec/interfaceName"),
                    narrow("IPS", "/spec/expectedIPs"),
                    wide("PROFILES", "/spec/profiles"),
                ]
            }
        }
        Kind::WorkloadEndpoint => {
            &const {
                [
                    narrow("WORKLOAD", "/spec/pod"),
                    narrow("NODE", "/spec/node"),
                    narrow("NETWORKS", "/spec/ipNetworks"),
                    narrow("INTERFACE", "/spec/interfaceName"),
                    wide("PROFILES", "/spec/profiles"),
                ]
            }
        }
    }
}

fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        // An order of 100 is stored as 100.0 and means 100.
        Some(Value::Number(number)) => match number.as_f64() {
            Some(whole) if whole.fract() == 0.0 => format!("{whole:.0}"),
            _ => number.to_string(),
        },
        Some(Value::Array(values)) => {
            values.iter().map(|value| cell(Some(value))).collect::<Vec<_>>().join(",")
        }
        Some(Value::Object(fields)) => {
            let field = |(key, value): (&String, &Value)| format!("{key}={}", cell(Some(value)));
            fields.iter().map(field).collect::<Vec<_>>().join(",")
        }
        Some(other) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_read_like_text() {
        let text = |value: Value| cell(Some(&value));
        assert_eq!(text(json!(100.0)), "100");
        assert_eq!(text(json!(12.5)), "12.5");
        assert_eq!(text(json!(["a", 1, true])), "a,1,true");
        assert_eq!(text(json!({"role": "web", "zone": "b"})), "role=web,zone=b");
        assert_eq!(text(json!(null)), "");
        assert_eq!(cell(None), "");
    }

    #[test]
    fn every_kind_has_columns_and_a_cell_for_each() {
        for kind in Kind::ALL {
            for wide in [false, true] {
                let shape = Shape { kind, wide, with_namespace: wide, with_kind: false };
                let item = Item {
                    kind,
                    namespace: "shop".into(),
                    name: "web".into(),
                    resource_version: String::new(),
                    value: json!({"metadata": {"labels": {"a": "b"}}}),
                };
                assert_eq!(item.row(&shape).len(), shape.titles().len(), "{kind}");
                let labels_alone = matches!(kind, Kind::Namespace | Kind::ServiceAccount);
                assert!(shape.titles().len() > 1 || labels_alone, "{kind}");
            }
        }
    }

    #[test]
    fn an_object_of_another_version_is_refused_and_not_guessed_at() {
        let object = |kind: &str, json: &str| control::Object {
            kind: kind.into(),
            json: json.into(),
            name: "web".into(),
            ..control::Object::default()
        };
        for bad in [object("Spell", "{}"), object("Tier", "{"), object("Tier", "[]"), object("Tier", "{}")] {
            assert_eq!(Item::new(bad).unwrap_err().code, Code::Failed);
        }
        let mut good = object("Tier", "{\"metadata\":{\"name\":\"web\"}}");
        good.resource_version = "7".into();
        assert_eq!(Item::new(good).unwrap().value["metadata"]["resourceVersion"], "7");
    }
}
