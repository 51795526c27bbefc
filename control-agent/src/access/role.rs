//! Roles, and what they may.

use super::own::is_own;
use crate::model::{Key, Kind, Resource};
use std::{collections::BTreeSet, fmt, str::FromStr};

/// What somebody may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Everything.
    Admin,
    /// Reading, and writing what says who may talk to whom.
    Operator,
    /// Reading.
    Viewer,
    /// Reading, and writing what is the node's own.
    Node,
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// As the audit log has it; of [`Role::Node`], the node's.
    pub name: String,
    /// What for.
    pub role: Role,
    /// The only ones that the caller has to do with; empty: all.
    pub namespaces: BTreeSet<String>,
}

/// The caller may not do that.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{caller} ({role}{confined}) may not {what}: ask somebody who may, or for another role")]
pub struct Refusal {
    caller: String,
    role: Role,
    confined: String,
    what: String,
}

impl Role {
    const ALL: [(Self, &'static str); 4] = [
        (Self::Admin, "admin"),
        (Self::Operator, "operator"),
        (Self::Viewer, "viewer"),
        (Self::Node, "node"),
    ];
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::ALL.iter().find(|(role, _)| role == self).map_or("", |(_, name)| name))
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().find(|(_, name)| *name == text).map(|(role, _)| *role);
        found.ok_or_else(|| format!("{text:?} is none of admin, operator, viewer and node"))
    }
}

impl Caller {
    /// One without bounds, of this name and role.
    pub fn new(name: impl Into<String>, role: Role) -> Self {
        Self { name: name.into(), role, namespaces: BTreeSet::new() }
    }

    /// Whether the caller may see objects: of this kind, or of all; of this namespace, or where it is empty of all.
    ///
    /// # Errors
    /// It may not.
    pub fn may_read(&self, kind: Option<Kind>, namespace: &str) -> Result<(), Refusal> {
        let confined = !self.namespaces.is_empty();
        match kind {
            _ if !confined => Ok(()),
            Some(kind) if kind.is_namespaced() && self.namespaces.contains(namespace) => Ok(()),
            Some(kind) if kind.is_namespaced() && namespace.is_empty() => {
                Err(self.refused(format!("see {kind} objects of all namespaces")))
            }
            Some(kind) if kind.is_namespaced() => Err(self.refused(format!("see namespace {namespace}"))),
            Some(kind) => Err(self.refused(format!("see {kind} objects, which are of the whole cluster"))),
            None => Err(self.refused("see all objects".into())),
        }
    }

    /// Whether the caller may write or delete an object that is `before`, and `after` that.
    ///
    /// # Errors
    /// It may not.
    pub fn may_write(
        &self,
        key: &Key,
        before: Option<&Resource>,
        after: Option<&Resource>,
    ) -> Result<(), Refusal> {
        let may = match self.role {
            Role::Admin => true,
            Role::Viewer => false,
            Role::Operator => !is_machinery(key.kind) && self.has_namespace(key),
            Role::Node => is_own(&self.name, before, after),
        };
        if may { Ok(()) } else { Err(self.refused(format!("write {key}"))) }
    }

    /// Whether the caller may do what is no object's matter.
    ///
    /// # Errors
    /// It may not.
    pub fn may_operate(&self, what: &str) -> Result<(), Refusal> {
        if self.role == Role::Admin { Ok(()) } else { Err(self.refused(what.to_owned())) }
    }

    /// Whether an object that is to be written has to be known as it is.
    pub fn is_judged_by_content(&self) -> bool {
        self.role == Role::Node
    }

    fn has_namespace(&self, key: &Key) -> bool {
        self.namespaces.is_empty() || key.kind.is_namespaced() && self.namespaces.contains(&key.namespace)
    }

    fn refused(&self, what: String) -> Refusal {
        let namespaces: Vec<&str> = self.namespaces.iter().map(String::as_str).collect();
        let confined = match namespaces.as_slice() {
            [] => String::new(),
            some => format!(" of namespace {}", some.join(" and ")),
        };
        Refusal { caller: self.name.clone(), role: self.role, confined, what }
    }
}

/// What the cluster runs on, which is not for operators.
fn is_machinery(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Node
            | Kind::KubernetesNode
            | Kind::IPPool
            | Kind::IPReservation
            | Kind::IPAMConfiguration
            | Kind::IPAMBlock
            | Kind::BlockAffinity
            | Kind::FelixConfiguration
            | Kind::BGPConfiguration
            | Kind::BGPPeer
            | Kind::BGPFilter
            | Kind::ClusterInformation
            | Kind::KubeControllersConfiguration
            | Kind::CalicoNodeStatus
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::load;

    fn object(kind: &str, metadata: &str, spec: &str) -> Resource {
        let text = format!(
            "apiVersion: projectcalico.org/v3\nkind: {kind}\nmetadata: {{{metadata}}}\nspec: {{{spec}}}"
        );
        load(&text).unwrap_or_else(|errors| panic!("{errors:?}")).remove(0)
    }

    fn endpoint(node: &str) -> Resource {
        let spec = format!("node: {node}, orchestrator: k8s, pod: web, endpoint: eth0, interfaceName: cali1");
        object("WorkloadEndpoint", "name: a-k8s-web-eth0, namespace: shop", &spec)
    }

    #[test]
    fn each_role_may_what_is_its_and_no_more() {
        let policy = object("NetworkPolicy", "name: web, namespace: shop", "selector: all()");
        let global = object("GlobalNetworkPolicy", "name: web", "selector: all()");
        let pool = object("IPPool", "name: pods", "cidr: 10.0.0.0/16");
        let (own, others) = (object("Node", "name: a", ""), object("Node", "name: b", ""));
        let all = [&policy, &global, &pool, &own, &others, &endpoint("a"), &endpoint("b")];
        let may = |caller: &Caller| {
            all.map(|object| {
                let key = object.key();
                let written = caller.may_write(&key, None, Some(object));
                assert_eq!(
                    written.is_ok(),
                    caller.may_write(&key, Some(object), None).is_ok(),
                    "deleted alike"
                );
                if written.is_ok() { 'w' } else { '-' }
            })
            .iter()
            .collect::<String>()
        };
        assert_eq!(may(&Caller::new("root", Role::Admin)), "wwwwwww");
        assert_eq!(may(&Caller::new("ann", Role::Operator)), "ww---ww");
        assert_eq!(may(&Caller::new("ann", Role::Viewer)), "-------");
        assert_eq!(may(&Caller::new("a", Role::Node)), "---w-w-");
        let confined = |role| Caller { namespaces: ["shop".to_owned()].into(), ..Caller::new("ann", role) };
        assert_eq!(may(&confined(Role::Operator)), "w----ww");
        let elsewhere =
            Caller { namespaces: ["test".to_owned()].into(), ..Caller::new("bob", Role::Operator) };
        assert_eq!(may(&elsewhere), "-------");

        // Neither to take another's, nor to give one away.
        let (node, key) = (Caller::new("a", Role::Node), endpoint("a").key());
        assert!(node.may_write(&key, Some(&endpoint("b")), Some(&endpoint("a"))).is_err());
        assert!(node.may_write(&key, Some(&endpoint("a")), Some(&endpoint("b"))).is_err());
        assert!(node.may_write(&key, None, None).is_err(), "whose it is has to be known");

        let reads = |caller: &Caller, kind, namespace| caller.may_read(kind, namespace).is_ok();
        let (some, viewer) = (Some(Kind::NetworkPolicy), confined(Role::Viewer));
        assert!(reads(&viewer, some, "shop") && !reads(&viewer, some, "") && !reads(&viewer, some, "test"));
        assert!(!reads(&viewer, Some(Kind::Tier), "shop") && !reads(&viewer, None, "shop"));
        assert!(reads(&Caller::new("a", Role::Node), None, ""));
        for role in [Role::Operator, Role::Viewer, Role::Node] {
            assert!(Caller::new("x", role).may_operate("attach containers").is_err());
        }
        assert_eq!(
            confined(Role::Viewer).may_write(&policy.key(), None, None).unwrap_err().to_string(),
            "ann (viewer of namespace shop) may not write NetworkPolicy shop/web: ask somebody who may, or for another role"
        );
    }

    #[test]
    fn names_of_roles_are_read_as_they_are_written() {
        for (role, name) in Role::ALL {
            assert_eq!((name.parse(), role.to_string().as_str()), (Ok(role), name));
        }
        assert!("root".parse::<Role>().unwrap_err().contains("none of admin, operator"));
    }
}
