//! Services as the dataplane is told them.

use super::*;
use crate::calc::ServiceKey;
use margay_api::dataplane::v1::{Service, service::Backend};

const WEB: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  type: LoadBalancer
  clusterIPs: [10.96.0.1, "fd96::1"]
  externalIPs: [203.0.113.1]
  externalTrafficPolicy: Local
  loadBalancerSourceRanges: [172.16.0.0/12]
  sessionAffinity: ClientIP
  ports: [{name: http, port: 80, nodePort: 30080}, {name: dns, port: 53, protocol: UDP}]
status: {loadBalancer: {ingress: [{ip: 198.51.100.1}, {ip: 198.51.100.2, ipMode: Proxy}, {hostname: example.org}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
endpoints:
- {addresses: [10.0.0.7], nodeName: a, zone: east, hints: {forZones: [{name: east}]}}
- {addresses: [10.0.1.7], nodeName: b, zone: west, conditions: {ready: false, serving: true, terminating: true}}
ports: [{name: http, port: 8080}, {name: dns, port: 5353}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-2, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
endpoints: [{addresses: [10.0.0.7], nodeName: a, hints: {forZones: [{name: east}]}}]
ports: [{name: dns, port: 5353, protocol: UDP}]
"#;

fn service<'a>(desired: &'a Desired, name: &str) -> &'a Service {
    &desired.services[&ServiceKey { namespace: "shop".into(), name: name.into() }]
}

fn backend(service: &Service, address: [u8; 4]) -> &Backend {
    service.backends.iter().find(|backend| backend.address == address).expect("it is a backend")
}

#[test]
fn a_service_is_sent_with_its_backends() {
    let desired = on("a", &[WEB]);
    let web = service(&desired, "web");
    assert_eq!(web.cluster_ips.len(), 2);
    assert_eq!(
        (&web.external_ips[..], &web.load_balancer_ips[..]),
        (&[vec![203, 0, 113, 1]][..], &[vec![198, 51, 100, 1]][..])
    );
    assert_eq!((web.external_traffic_local, web.internal_traffic_local), (true, false));
    assert_eq!(web.client_affinity_seconds, 10_800);
    assert_eq!(web.load_balancer_source_ranges, [packed(cidr("172.16.0.0/12"))]);
    let ports: Vec<_> = web.ports.iter().map(|port| (port.protocol, port.port, port.node_port)).collect();
    assert_eq!(ports, [(6, 80, 30_080), (17, 53, 0)]);

    let near = backend(web, [10, 0, 0, 7]);
    assert_eq!((near.ready, near.serving, near.terminating, near.local), (true, true, false, true));
    // Of all slices that have the address, those ports whose protocol is the service's.
    assert_eq!(near.ports, [("http".to_owned(), 8080), ("dns".to_owned(), 5353)].into());
    let far = backend(web, [10, 0, 1, 7]);
    assert_eq!((far.ready, far.serving, far.terminating, far.local), (false, true, true, false));
    assert_eq!(far.ports, [("http".to_owned(), 8080)].into());
    assert!(backend(service(&on("b", &[WEB]), "web"), [10, 0, 1, 7]).local);
    assert_eq!(desired.problems, [""; 0]);
}

#[test]
fn names_and_services_of_other_proxies_are_not_sent() {
    let of = |name: &str, labels: &str, spec: &str| {
        format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: {name}, namespace: shop, labels: {{{labels}}}}}, spec: {{{spec}}}}}\n---\n"
        )
    };
    let ports = "clusterIP: 10.96.0.9, ports: [{port: 80}]";
    let manifests = [
        of("headless", "", "clusterIP: None, ports: [{port: 80}]"),
        of("external", "", "type: ExternalName, externalName: example.org"),
        of("proxied", "service.kubernetes.io/service-proxy-name: other", ports),
        of("labelled", "service.kubernetes.io/headless: ''", ports),
        of("ours", "", ports),
    ];
    let desired = on("a", &[&manifests.concat()]);
    assert_eq!(desired.services.keys().map(|key| key.name.as_str()).collect::<Vec<_>>(), ["ours"]);
}

#[test]
fn load_balancers_are_told_of_nodes_with_backends() {
    let port = |web: &str, port: u16| {
        web.replace(
            "externalTrafficPolicy: Local",
            &format!("externalTrafficPolicy: Local\n  healthCheckNodePort: {port}"),
        )
    };
    let web = port(WEB, 30_999);
    assert_ne!(web, WEB);
    let checks = |node: &str| {
        let checks = on(node, &[&web]).health_checks;
        checks.iter().map(|(port, check)| (*port, check.local_endpoints)).collect::<Vec<_>>()
    };
    // The backend of node b is there, and not ready.
    assert_eq!([checks("a"), checks("b")], [[(30_999, 1)], [(30_999, 0)]]);
    assert!(on("a", &[WEB]).health_checks.is_empty());
    let other = "{apiVersion: v1, kind: Service, metadata: {name: zoo, namespace: shop}, spec: {type: LoadBalancer, \
                 clusterIP: 10.96.0.9, externalTrafficPolicy: Local, healthCheckNodePort: 30999, ports: [{port: 80}]}}";
    let both = on("a", &[&web, other]);
    assert_eq!(both.health_checks[&30_999].service.name, "web");
    assert!(both.problems[0].contains("healthCheckNodePort 30999 of service shop/zoo is service shop/web's"));
}

#[test]
fn hints_count_where_they_leave_everybody_a_backend() {
    let node = |zone: &str| {
        format!(
            "apiVersion: projectcalico.org/v3\nkind: Node\nmetadata: {{name: z, labels: {{topology.kubernetes.io/zone: {zone}}}}}\n\
             spec: {{bgp: {{ipv4Address: 192.168.9.1/24}}}}\n"
        )
    };
    let web = |hints: [&str; 3]| {
        let endpoint =
            |(at, hints): (usize, &&str)| format!("{{addresses: [10.0.2.{at}], hints: {{{hints}}}}}");
        let endpoints: Vec<String> = hints.iter().enumerate().map(endpoint).collect();
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: web, namespace: shop}}\n\
             spec: {{clusterIP: 10.96.0.1, ports: [{{port: 80}}]}}\n---\n\
             apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
             metadata: {{name: web-1, namespace: shop, labels: {{kubernetes.io/service-name: web}}}}\n\
             addressType: IPv4\nendpoints: [{}]\nports: [{{port: 80}}]\n",
            endpoints.join(", ")
        )
    };
    let preferred = |zone: &str, hints: [&str; 3]| -> Vec<bool> {
        let desired = on("z", &[&node(zone), &web(hints)]);
        service(&desired, "web").backends.iter().map(|backend| backend.preferred).collect()
    };
    let [east, west] = ["forZones: [{name: east}]", "forZones: [{name: west}]"];
    assert_eq!(preferred("east", [east, west, east]), [true, false, true]);
    assert_eq!(preferred("north", [east, west, east]), [true; 3], "no zone's clients go without");
    assert_eq!(preferred("east", [east, west, ""]), [true; 3], "a backend without a hint");
    let [here, there] = [
        "forNodes: [{name: z}], forZones: [{name: east}]",
        "forNodes: [{name: y}], forZones: [{name: east}]",
    ];
    assert_eq!(preferred("east", [here, there, there]), [true, false, false]);
    assert_eq!(preferred("east", [there, there, there]), [true; 3]);
    assert_eq!(preferred("east", [here, there, east]), [true; 3], "all are of the zone");
}

#[test]
fn of_two_services_with_one_address_the_first_is_served() {
    let of = |name: &str, spec: &str| {
        format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: {name}, namespace: shop}}, spec: {{{spec}}}}}\n---\n"
        )
    };
    let first = of(
        "a",
        "type: NodePort, clusterIP: 10.96.0.1, externalIPs: [203.0.113.1], ports: [{port: 80, nodePort: 30080}]",
    );
    let second = of(
        "b",
        "type: NodePort, clusterIP: 10.96.0.2, externalIPs: [203.0.113.1], ports: [{port: 80, nodePort: 30080}]",
    );
    let desired = on("a", &[&first, &second]);
    let b = service(&desired, "b");
    assert_eq!((b.external_ips.len(), b.ports[0].node_port, b.cluster_ips.len()), (0, 0, 1));
    assert_eq!(service(&desired, "a").external_ips.len(), 1);
    let [port, address] = desired.problems.as_slice() else { panic!("{:?}", desired.problems) };
    assert!(address.contains("shop/b is not served at 203.0.113.1: service shop/a"), "{address}");
    assert!(port.contains("nodePort 30080 of service shop/b is service shop/a's"), "{port}");
    let other = second.replace("port: 80, nodePort: 30080", "port: 81, nodePort: 30081");
    assert_eq!(on("a", &[&first, &other]).problems, [""; 0], "another port of one address");
}

#[test]
fn what_nobody_gives_out_is_told() {
    let text = "{apiVersion: v1, kind: Service, metadata: {name: web, namespace: shop}, spec: {type: NodePort, ports: [{port: 80}]}}";
    let problems = on("a", &[text]).problems;
    assert!(problems[0].contains("no nodePort") && problems[1].contains("no clusterIP"), "{problems:?}");
}

#[test]
fn settings_of_services_are_the_nodes() {
    let of = |name: &str, annotations: &str| {
        format!(
            "{{apiVersion: projectcalico.org/v3, kind: FelixConfiguration, metadata: {{name: {name}, annotations: {{{annotations}}}}}, spec: {{}}}}\n---\n"
        )
    };
    let all = of(
        "default",
        "margay.io/node-port-addresses: '10.0.0.0/8, fd00::/8', margay.io/removed-backends: Reset",
    );
    let own = of("node.a", "margay.io/removed-backends: Drain");
    let (a, b) = (on("a", &[&all, &own]).config, on("b", &[&all, &own]).config);
    assert_eq!((a.node_port_nets.len(), b.node_port_nets.len()), (2, 2));
    assert_eq!((a.removed_backend, b.removed_backend), (0, 1));
    let wrong = load(&of("default", "margay.io/node-port-addresses: ten, margay.io/removed-backends: Now"))
        .unwrap()
        .remove(0);
    let errors = wrong.admit().unwrap_err();
    assert_eq!(errors.len(), 2, "{errors:?}");
}
