//! The endpoint of an attachment, and its profile.

use super::{Attachment, CniError};
use crate::model::{
    ATTACHMENT, Action, Cidr, EntityRule, FieldError, Metadata, Profile, ProfileSpec, Resource, Rule,
    WorkloadEndpoint, WorkloadEndpointSpec, namespace_profile,
};
use margay_api::control::v1::CniAddRequest;
use sha1::{Digest, Sha1};
use std::net::IpAddr;

/// The namespace of what is no pod.
const NAMESPACE: &str = "default";

/// Names of objects are at most as long (RFC 1123).
const NAME: usize = 253;

/// The endpoint that `request` asks for on `node`. `pod` is what the store knows of its pod.
pub(super) fn endpoint(
    node: &str,
    attachment: &Attachment,
    request: &CniAddRequest,
    addresses: &[IpAddr],
    pod: Option<&WorkloadEndpoint>,
) -> Result<WorkloadEndpoint, CniError> {
    let interface = label(&attachment.interface);
    let container = label(&attachment.container);
    let is_pod = !request.pod_name.is_empty();
    let (orchestrator, workload) = if is_pod { ("k8s", &request.pod_name) } else { ("cni", &container) };
    let escaped = [node, orchestrator, workload, &interface].map(|part| part.replace('-', "--"));
    let mut link = WorkloadEndpoint {
        metadata: Metadata {
            name: name(&escaped.join("-")),
            namespace: if is_pod { request.pod_namespace.clone() } else { NAMESPACE.to_owned() },
            labels: request.labels.clone().into_iter().collect(),
            annotations: [(ATTACHMENT.to_owned(), attachment.to_string())].into(),
            ..Metadata::default()
        },
        spec: WorkloadEndpointSpec {
            orchestrator: orchestrator.to_owned(),
            workload: if is_pod { String::new() } else { workload.clone() },
            pod: request.pod_name.clone(),
            node: node.to_owned(),
            container_id: container,
            endpoint: interface,
            ip_networks: addresses.iter().copied().map(Cidr::host).collect(),
            profiles: vec![if is_pod {
                namespace_profile(&request.pod_namespace)
            } else {
                attachment.network.clone()
            }],
            interface_name: request.host_interface.clone(),
            mac: request.mac.clone(),
            ..WorkloadEndpointSpec::default()
        },
    };
    if let Some(pod) = pod {
        link.follow(pod);
    }
    match Resource::from(link.clone()).admit() {
        Ok(_) => Ok(link),
        Err(errors) => Err(CniError::Invalid(format!("the endpoint of {attachment}: {}", sentence(&errors)))),
    }
}

/// The profile of a network whose containers are no pods, as Calico's plugin makes it.
pub(super) fn profile(network: &str) -> Profile {
    let rule = |source| Rule {
        action: Action::Allow,
        ip_version: None,
        protocol: None,
        not_protocol: None,
        icmp: None,
        not_icmp: None,
        source,
        destination: EntityRule::default(),
        http: None,
        metadata: None,
    };
    let same = EntityRule { selector: format!("has({network})"), ..EntityRule::default() };
    Profile {
        metadata: Metadata { name: network.to_owned(), ..Metadata::default() },
        spec: ProfileSpec {
            ingress: vec![rule(same)],
            egress: vec![rule(EntityRule::default())],
            labels_to_apply: [(network.to_owned(), String::new())].into(),
        },
    }
}

/// The text where it can be the name of an object, and its digest where it cannot.
fn name(text: &str) -> String {
    if text.len() <= NAME && text.split('.').all(is_label) { text.to_owned() } else { digest(text) }
}

/// The same of a name without dots.
fn label(text: &str) -> String {
    if text.len() <= NAME && is_label(text) { text.to_owned() } else { digest(text) }
}

fn is_label(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let end = |byte: Option<&u8>| byte.copied().is_some_and(plain);
    let bytes = text.as_bytes();
    end(bytes.first()) && end(bytes.last()) && bytes.iter().all(|byte| plain(*byte) || *byte == b'-')
}

fn digest(text: &str) -> String {
    Sha1::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn sentence(errors: &[FieldError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::load;

    fn attachment(container: &str, interface: &str) -> Attachment {
        Attachment { network: "net".into(), container: container.into(), interface: interface.into() }
    }

    fn request(pod: &str) -> CniAddRequest {
        CniAddRequest {
            pod_namespace: if pod.is_empty() { String::new() } else { "shop".into() },
            pod_name: pod.into(),
            host_interface: "cali0123456789a".into(),
            mac: "02:00:00:00:00:01".into(),
            labels: [("app".to_owned(), "db".to_owned())].into(),
            ..CniAddRequest::default()
        }
    }

    #[test]
    fn a_pods_is_called_as_calico_calls_it() {
        let addresses = ["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
        let link =
            endpoint("node-a", &attachment("c1", "eth0"), &request("web-1"), &addresses, None).unwrap();
        assert_eq!(link.metadata.name, "node--a-k8s-web--1-eth0");
        assert_eq!((link.metadata.namespace.as_str(), link.spec.orchestrator.as_str()), ("shop", "k8s"));
        assert_eq!(link.spec.profiles, ["kns.shop"]);
        assert_eq!(
            link.spec.ip_networks.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["10.0.0.1/32", "fd00::1/128"]
        );
        assert_eq!(link.metadata.annotations[ATTACHMENT], "net/c1/eth0");
        assert_eq!(link.metadata.labels["app"], "db");
    }

    #[test]
    fn what_is_no_pod_is_of_its_networks_profile() {
        let link = endpoint("a", &attachment("Abc_1.2", "eth_0"), &request(""), &[], None).unwrap();
        assert_eq!((link.metadata.namespace.as_str(), link.spec.orchestrator.as_str()), ("default", "cni"));
        assert_eq!(link.spec.profiles, ["net"]);
        // printf Abc_1.2 | sha1sum
        assert_eq!(link.spec.workload, "2495bfa0ed3ed69207836e5d7d5fc110d0f999b1");
        assert_eq!(link.metadata.annotations[ATTACHMENT], "net/Abc_1.2/eth_0");
        let profile = Resource::from(profile("net")).admit().expect("a profile");
        assert_eq!(profile.to_value()["spec"]["labelsToApply"]["net"], "");
    }

    #[test]
    fn what_the_store_knows_of_a_pod_counts() {
        let pod = "{apiVersion: projectcalico.org/v3, kind: WorkloadEndpoint, metadata: {name: p, namespace: shop, \
                   labels: {app: web}}, spec: {node: a, interfaceName: i, profiles: [kns.shop, ksa.shop.default], \
                   ports: [{name: http, protocol: TCP, port: 80}]}}";
        let Resource::WorkloadEndpoint(pod) = load(pod).unwrap().remove(0) else { panic!("an endpoint") };
        let link = endpoint("a", &attachment("c", "eth0"), &request("p"), &[], Some(&pod)).unwrap();
        assert_eq!((link.metadata.labels["app"].as_str(), link.spec.ports.len()), ("web", 1));
        assert_eq!(link.spec.profiles, ["kns.shop", "ksa.shop.default"]);
        assert_eq!(link.spec.interface_name, "cali0123456789a");
    }

    #[test]
    fn what_is_no_endpoint_is_refused_by_its_field() {
        let error = endpoint("a", &attachment("c", "eth0"), &request("Not A Pod"), &[], None).unwrap_err();
        assert!(error.to_string().contains("spec.pod"), "{error}");
        let labels = CniAddRequest { labels: [("a b".to_owned(), String::new())].into(), ..request("p") };
        assert!(endpoint("a", &attachment("c", "eth0"), &labels, &[], None).is_err());
    }
}
