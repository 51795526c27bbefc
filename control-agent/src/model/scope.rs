//! What a policy's and a rule's selectors mean together: labels, namespace and service account
//! folded into one selector over an endpoint's labels.
//!
//! An endpoint carries, besides its own labels and those its profiles apply,
//! `projectcalico.org/namespace` and `projectcalico.org/serviceaccount`; labels of its namespace
//! arrive through profile `kns.<namespace>` under `pcns.`, those of its account under `pcsa.`.

use std::collections::BTreeMap;

use super::kinds::{GlobalNetworkPolicySpec, NetworkPolicySpec, NetworkSet, WorkloadEndpoint};
use super::rule::{EntityRule, ServiceAccountMatch};
use super::selector::{Selector, SelectorError};

/// The namespace of a workload endpoint or network set.
pub const LABEL_NAMESPACE: &str = "projectcalico.org/namespace";
/// Who made a workload endpoint: `k8s`, `cni`...
pub const LABEL_ORCHESTRATOR: &str = "projectcalico.org/orchestrator";
/// The account that a workload runs under.
pub const LABEL_SERVICE_ACCOUNT: &str = "projectcalico.org/serviceaccount";
/// Before each label of the endpoint's namespace.
pub const NAMESPACE_PREFIX: &str = "pcns.";
/// Before each label of the endpoint's service account.
pub const SERVICE_ACCOUNT_PREFIX: &str = "pcsa.";

/// The profile that stands for a namespace.
pub fn namespace_profile(namespace: &str) -> String {
    format!("kns.{namespace}")
}

impl WorkloadEndpoint {
    /// Its own labels, and those that follow from what it is; the latter cannot be forged.
    pub fn labels(&self) -> BTreeMap<String, String> {
        let mut labels = self.metadata.labels.clone();
        let mut imply = |name: &str, value: &str| match value {
            "" => labels.remove(name),
            _ => labels.insert(name.to_owned(), value.to_owned()),
        };
        imply(LABEL_NAMESPACE, &self.metadata.namespace);
        imply(LABEL_ORCHESTRATOR, &self.spec.orchestrator);
        imply(LABEL_SERVICE_ACCOUNT, &self.spec.service_account_name);
        labels
    }
}

impl NetworkSet {
    /// Its own labels and its namespace. It inherits from [`namespace_profile`] as endpoints do.
    pub fn labels(&self) -> BTreeMap<String, String> {
        let mut labels = self.metadata.labels.clone();
        labels.insert(LABEL_NAMESPACE.to_owned(), self.metadata.namespace.clone());
        labels
    }
}

impl NetworkPolicySpec {
    /// Which endpoints a policy of `namespace` applies to: those of it that all its selectors match.
    pub fn applies_to(&self, namespace: &str) -> Result<Selector, SelectorError> {
        let own = Selector::equals(LABEL_NAMESPACE, namespace);
        let labels = given(&self.selector)?;
        let account = given(&self.service_account_selector)?.map(of_account);
        Ok([labels, account].into_iter().flatten().fold(own, Selector::and))
    }
}

impl GlobalNetworkPolicySpec {
    /// Which endpoints the policy applies to. A namespace or service account selector leaves out
    /// host endpoints, which have neither, even where it asks for the absence of a label.
    pub fn applies_to(&self) -> Result<Selector, SelectorError> {
        let labels = given(&self.selector)?;
        let namespace = given(&self.namespace_selector)?.map(of_namespace);
        let account =
            given(&self.service_account_selector)?.map(|s| of_account(s).within(LABEL_SERVICE_ACCOUNT));
        let workload = (namespace.is_some() || account.is_some()).then(|| Selector::has(LABEL_NAMESPACE));
        let all = [labels, workload, namespace, account].into_iter().flatten();
        Ok(all.reduce(Selector::and).unwrap_or_else(Selector::all))
    }
}

impl EntityRule {
    /// The endpoints and network sets that this side of a rule must be one of; `None`: anything
    /// goes. `namespace` is that of the policy, `None` for a global policy or a profile.
    ///
    /// In a namespaced policy any of `selector`, `notSelector` and `serviceAccounts` keeps to the
    /// policy's own namespace unless `namespaceSelector` says otherwise.
    pub fn peers(&self, namespace: Option<&str>) -> Result<Option<Selector>, SelectorError> {
        let accounts = self.service_accounts.as_ref().map(accounts).transpose()?.flatten();
        let labels = given(&self.selector)?;
        let wanted = [accounts, labels].into_iter().flatten().reduce(Selector::and);
        let scope = match given(&self.namespace_selector)? {
            Some(selected) => Some(of_namespace(selected)),
            None if wanted.is_some() || !self.not_selector.is_empty() => {
                namespace.map(|own| Selector::equals(LABEL_NAMESPACE, own))
            }
            None => None,
        };
        Ok([scope, wanted].into_iter().flatten().reduce(Selector::and))
    }

    /// The endpoints and network sets that this side of a rule must not be one of.
    pub fn not_peers(&self) -> Result<Option<Selector>, SelectorError> {
        given(&self.not_selector)
    }
}

fn given(text: &str) -> Result<Option<Selector>, SelectorError> {
    if text.is_empty() { Ok(None) } else { Selector::parse(text).map(Some) }
}

/// `all()` is any namespace, `global()` none.
fn of_namespace(selector: Selector) -> Selector {
    selector.with_prefix(NAMESPACE_PREFIX).within(LABEL_NAMESPACE)
}

fn of_account(selector: Selector) -> Selector {
    selector.with_prefix(SERVICE_ACCOUNT_PREFIX)
}

fn accounts(wanted: &ServiceAccountMatch) -> Result<Option<Selector>, SelectorError> {
    let labels = given(&wanted.selector)?.map(of_account);
    let names = (!wanted.names.is_empty()).then(|| Selector::one_of(LABEL_SERVICE_ACCOUNT, &wanted.names));
    Ok([labels, names].into_iter().flatten().reduce(Selector::and))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entity(yaml: &str) -> EntityRule {
        serde_yaml_ng::from_str(yaml).unwrap()
    }

    fn peers(yaml: &str, namespace: Option<&str>) -> Option<String> {
        entity(yaml).peers(namespace).unwrap().map(|s| s.canonical().to_owned())
    }

    #[test]
    fn a_rule_of_a_namespaced_policy_keeps_to_its_namespace() {
        let own = "projectcalico.org/namespace == \"red\"";
        assert_eq!(peers("{}", Some("red")), None);
        assert_eq!(peers("nets: [10.0.0.0/8]", Some("red")), None);
        assert_eq!(peers("selector: has(a)", Some("red")).unwrap(), format!("({own} && has(a))"));
        assert_eq!(peers("notSelector: has(a)", Some("red")).unwrap(), own);
        assert_eq!(
            peers("serviceAccounts: {names: [b, a]}", Some("red")).unwrap(),
            format!("({own} && projectcalico.org/serviceaccount in {{\"a\", \"b\"}})")
        );
        assert_eq!(
            peers("{selector: has(a), namespaceSelector: all()}", Some("red")).unwrap(),
            "(has(projectcalico.org/namespace) && has(a))"
        );
    }

    #[test]
    fn a_rule_of_a_global_policy_reaches_everywhere() {
        assert_eq!(peers("selector: has(a)", None).unwrap(), "has(a)");
        assert_eq!(peers("notSelector: has(a)", None), None);
        assert_eq!(peers("namespaceSelector: global()", None).unwrap(), "!has(projectcalico.org/namespace)");
        assert_eq!(peers("namespaceSelector: team == 'x'", None).unwrap(), "pcns.team == \"x\"");
        assert_eq!(
            peers("{serviceAccounts: {names: [a], selector: has(r)}, selector: has(b)}", None).unwrap(),
            "((has(pcsa.r) && projectcalico.org/serviceaccount in {\"a\"}) && has(b))"
        );
    }

    #[test]
    fn what_a_policy_applies_to() {
        let namespaced = NetworkPolicySpec::default();
        assert_eq!(
            namespaced.applies_to("red").unwrap().canonical(),
            "projectcalico.org/namespace == \"red\""
        );
        let mut global = GlobalNetworkPolicySpec::default();
        assert_eq!(global.applies_to().unwrap().canonical(), "all()");
        global.namespace_selector = "team != 'x'".to_owned();
        let host = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
        assert!(!global.applies_to().unwrap().matches(&host), "host endpoints have no namespace");
        global.namespace_selector = "team = 'x'".to_owned();
        assert!(global.applies_to().is_err());
    }

    #[test]
    fn implied_labels_cannot_be_forged() {
        let mut wep = WorkloadEndpoint::default();
        wep.metadata.namespace = "red".to_owned();
        for name in [LABEL_NAMESPACE, LABEL_SERVICE_ACCOUNT, "app"] {
            wep.metadata.labels.insert(name.to_owned(), "forged".to_owned());
        }
        let labels = wep.labels();
        assert_eq!(labels.get(LABEL_NAMESPACE).unwrap(), "red");
        assert_eq!(labels.get(LABEL_SERVICE_ACCOUNT), None);
        assert_eq!(labels.get("app").unwrap(), "forged");
    }
}
