use crate::model::{FailsafePort, Kind, Protocol, Resource, load};

fn object(kind: &str, spec: &str) -> Resource {
    let text =
        format!("{{apiVersion: projectcalico.org/v3, kind: {kind}, metadata: {{name: x}}, spec: {spec}}}");
    match load(&text) {
        Ok(mut objects) => objects.remove(0),
        Err(errors) => panic!("{spec}: {errors:?}"),
    }
}

fn fields(kind: &str, spec: &str) -> Vec<String> {
    object(kind, spec).validate().into_iter().map(|e| e.field).collect()
}

fn policy(rule: &str) -> Vec<String> {
    fields("NetworkPolicy", &format!("{{ingress: [{{action: Allow, {rule}}}]}}"))
}

#[test]
fn every_error_is_reported_and_not_just_the_first() {
    let found = fields(
        "GlobalNetworkPolicy",
        "{selector: 'a = b', types: [Ingress, Ingress], doNotTrack: true, preDNAT: true, egress: [
            {action: Deny, http: {methods: [GET, GET]}, destination: {ports: [80], notNets: [0.0.0.0/0]}}]}",
    );
    let wanted = [
        "spec.selector",
        "spec.types",
        "spec.preDNAT",
        "spec.applyOnForward",
        "spec.egress",
        "spec.egress[0].destination.ports",
        "spec.egress[0].destination.notNets",
        "spec.egress[0].http",
        "spec.egress[0].http.methods",
        "spec.egress[0].http",
    ];
    assert_eq!(found, wanted);
}

#[test]
fn limits_of_size() {
    let many = |n: usize, entry: &str| vec![entry; n].join(", ");
    let at = |side: &str| vec![format!("spec.ingress[0].source.{side}")];
    assert_eq!(policy(&format!("source: {{nets: [{}]}}", many(256, "10.0.0.0/8"))), [""; 0]);
    assert_eq!(policy(&format!("source: {{nets: [{}]}}", many(257, "10.0.0.0/8"))), at("nets"));
    assert_eq!(policy(&format!("protocol: TCP, source: {{ports: [{}]}}", many(51, "80"))), at("ports"));
    let selector = |n: usize| format!("source: {{selector: \"a == '{}'\"}}", "x".repeat(n - "a == ''".len()));
    assert_eq!(policy(&selector(1024)), [""; 0]);
    assert_eq!(policy(&selector(1025)), at("selector"));
    let rules = |n| format!("{{ingress: [{}]}}", many(n, "{action: Allow}"));
    assert_eq!(fields("NetworkPolicy", &rules(1024)), [""; 0]);
    assert_eq!(fields("NetworkPolicy", &rules(1025)), ["spec.ingress"]);
}

#[test]
fn ports_need_a_protocol_that_has_them() {
    assert_eq!(policy("destination: {ports: [80]}"), ["spec.ingress[0].destination.ports"]);
    assert_eq!(policy("protocol: ICMP, destination: {ports: [http]}"), ["spec.ingress[0].destination.ports"]);
    assert_eq!(policy("protocol: udp, destination: {ports: [80, '90:99', http]}"), [""; 0]);
    // A name alone is one of TCP, as Calico has it.
    let named = object("NetworkPolicy", "{ingress: [{action: Allow, destination: {ports: [http]}}]}");
    assert_eq!((named.validate(), named.unsupported()), (vec![], vec![]));
}

#[test]
fn selectors_of_namespaces_are_global_alone_or_not_at_all() {
    assert_eq!(policy("source: {namespaceSelector: 'global( )'}"), [""; 0]);
    for bad in ["'!global()'", "'global() || has(a)'"] {
        assert_eq!(
            policy(&format!("source: {{namespaceSelector: {bad}}}")),
            ["spec.ingress[0].source.namespaceSelector"]
        );
    }
    assert_eq!(policy("source: {notSelector: 'global()'}"), ["spec.ingress[0].source.notSelector"]);
    assert_eq!(
        policy("source: {serviceAccounts: {selector: 'global()'}}"),
        ["spec.ingress[0].source.serviceAccounts.selector"]
    );
}

#[test]
fn what_this_release_does_not_honour_is_refused_by_name() {
    for (kind, spec, field) in [
        ("NetworkPolicy", "{ingress: [{action: Allow, http: {methods: [GET]}}]}", "spec.ingress[0].http"),
        ("NetworkPolicy", "{egress: [{action: Allow, notICMP: {type: 8}}]}", "spec.egress[0].notICMP"),
        ("StagedGlobalNetworkPolicy", "{applyOnForward: true}", "spec.applyOnForward"),
        (
            "IPPool",
            "{cidr: 10.0.0.0/16, nodeSelector: all(), allowedUses: [LoadBalancer]}",
            "spec.allowedUses",
        ),
        ("IPAMConfiguration", "{strictAffinity: true}", "metadata.name"),
        ("WorkloadEndpoint", "{node: n, interfaceName: '*'}", "spec.interfaceName"),
        ("WorkloadEndpoint", "{interfaceName: eth0}", "spec.node"),
        (
            "Node",
            "{bgp: {ipv4Address: 10.0.0.1/24}, wireguard: {interfaceIPv4Address: 10.1.0.1}}",
            "spec.wireguard",
        ),
        ("BGPPeer", "{peerIP: 10.0.0.1, asNumber: 1, reachableBy: 10.0.0.2}", "spec.reachableBy"),
        ("BGPPeer", "{peerIP: 10.0.0.1, asNumber: 1, keepaliveTime: 90ms}", "spec.keepaliveTime"),
        (
            "BGPPeer",
            "{peerIP: 10.0.0.1, asNumber: 1, numAllowedLocalASNumbers: -1}",
            "spec.numAllowedLocalASNumbers",
        ),
        ("BGPPeer", "{peerIP: 10.0.0.1, password: {secretKeyRef: {name: a, key: b}}}", "spec.password"),
        (
            "BGPFilter",
            "{importV4: [{cidr: 10.0.0.0/8, matchOperator: In, prefixLength: {max: 4}, action: Accept}]}",
            "spec.importV4[0].prefixLength",
        ),
        (
            "BGPFilter",
            "{exportV6: [{action: Accept, operations: [{setPriority: {value: 5}}]}]}",
            "spec.exportV6[0].operations[0].setPriority",
        ),
    ] {
        let object = object(kind, spec);
        assert_eq!(object.validate(), [], "{spec}");
        let refused = object.admit().unwrap_err();
        assert_eq!(refused.iter().map(|e| e.field.as_str()).collect::<Vec<_>>(), [field], "{spec}");
    }
}

#[test]
fn settings_of_addresses_that_nothing_acts_on_are_refused() {
    for (spec, refused) in [
        ("{strictAffinity: true, maxBlocksPerHost: 2, ipCooldownSeconds: 60}", None),
        ("{kubeVirtVMAddressPersistence: Disabled}", None),
        ("{kubeVirtVMAddressPersistence: Enabled}", Some("spec.kubeVirtVMAddressPersistence")),
        ("{minIPReclaimAgeSeconds: 5}", Some("spec.minIPReclaimAgeSeconds")),
    ] {
        let mut settings = object("IPAMConfiguration", spec);
        settings.metadata_mut().name = "default".into();
        let found = settings.admit().err().unwrap_or_default();
        assert_eq!(found.first().map(|error| error.field.as_str()), refused, "{spec}");
    }
}

#[test]
fn what_a_user_of_calico_writes_is_admitted() {
    for (kind, spec) in [
        (
            "IPPool",
            "{cidr: 10.0.0.0/16, blockSize: 26, ipipMode: Never, vxlanMode: Never, nodeSelector: all()}",
        ),
        ("IPPool", "{cidr: 'fd00:1::/64', vxlanMode: CrossSubnet}"),
        ("IPPool", "{cidr: 10.0.0.0/16, ipipMode: Always}"),
        (
            "Node",
            "{bgp: {ipv4Address: 10.0.0.1/24, ipv4IPIPTunnelAddr: 10.9.0.1}, vxlanTunnelMACAddr: '02:00:00:00:00:01'}",
        ),
        ("IPPool", "{cidr: 10.0.0.0/16, natOutgoing: true}"),
        ("IPPool", "{cidr: 10.0.0.0/16, disabled: true}"),
        ("IPPool", "{cidr: 10.0.0.0/16, blockSize: 28, nodeSelector: a == 'b', allowedUses: [Tunnel]}"),
        ("IPPool", "{cidr: 10.0.0.0/16, namespaceSelector: a == 'b', assignmentMode: Manual}"),
        ("IPReservation", "{reservedCIDRs: [10.0.0.1]}"),
        ("Node", "{bgp: {ipv4Address: 10.0.0.1/24, ipv6Address: 'fd00::1/64'}}"),
        (
            "Profile",
            "{ingress: [{action: Allow}], egress: [{action: Allow}], labelsToApply: {pcns.team: red}}",
        ),
        ("Tier", "{order: 5, defaultAction: Pass}"),
        ("GlobalNetworkSet", "{nets: [192.0.2.0/24, 198.51.100.7]}"),
        (
            "WorkloadEndpoint",
            "{node: n, interfaceName: cali1, ipNetworks: [10.0.0.1/32], mac: '02:00:00:00:00:01'}",
        ),
        ("GlobalNetworkPolicy", "{doNotTrack: true, applyOnForward: true, egress: [{action: Allow}]}"),
        ("GlobalNetworkPolicy", "{preDNAT: true, applyOnForward: true, ingress: [{action: Allow}]}"),
        (
            "HostEndpoint",
            "{node: n, interfaceName: '*', ports: [{name: kubelet, protocol: TCP, port: 10250}]}",
        ),
        ("HostEndpoint", "{node: n, expectedIPs: [10.0.0.1, 'fd00::1'], profiles: [nodes]}"),
        (
            "NetworkPolicy",
            "{serviceAccountSelector: role == 'web', performanceHints: [AssumeNeededOnEveryNode], egress: [
                {action: Pass, protocol: ICMP, icmp: {type: 8}, source: {serviceAccounts: {names: [a]}}}]}",
        ),
    ] {
        let admitted = object(kind, spec).admit().unwrap_or_else(|errors| panic!("{spec}: {errors:?}"));
        assert_eq!(
            admitted.clone().admit().as_ref(),
            Ok(&admitted),
            "what was admitted once is admitted again"
        );
    }
}

#[test]
fn a_host_endpoint_is_an_interface_of_a_node() {
    for (spec, field) in [
        ("{interfaceName: eth0}", "spec.node"),
        ("{node: n}", "spec.interfaceName"),
        ("{node: n, interfaceName: 'eth 0'}", "spec.interfaceName"),
        ("{node: n, interfaceName: eth0, profiles: ['']}", "spec.profiles[0]"),
        (
            "{node: n, interfaceName: eth0, ports: [{name: a, protocol: ICMP, port: 1}]}",
            "spec.ports[0].protocol",
        ),
        ("{node: n, interfaceName: eth0, ports: [{name: a, protocol: TCP, port: 0}]}", "spec.ports[0].port"),
        ("{node: n, interfaceName: eth0, ports: [{name: A-, protocol: TCP, port: 1}]}", "spec.ports[0].name"),
    ] {
        assert_eq!(fields("HostEndpoint", spec), [field], "{spec}");
    }
}

#[test]
fn a_staged_policy_is_checked_as_what_it_stands_for() {
    for kind in ["StagedNetworkPolicy", "StagedGlobalNetworkPolicy"] {
        let ingress = |rule: &str| format!("{{stagedAction: Set, ingress: [{rule}]}}");
        let rule = "{action: Allow, destination: {ports: [80]}}";
        assert_eq!(fields(kind, &ingress(rule)), ["spec.ingress[0].destination.ports"]);
        assert_eq!(fields(kind, "{stagedAction: Delete, tier: a}"), [""; 0]);
        assert_eq!(fields(kind, "{stagedAction: Delete, order: 1}"), ["spec"]);
        let admitted = object(kind, "{stagedAction: Delete}").admit().unwrap();
        assert_eq!(admitted.clone().admit().as_ref(), Ok(&admitted), "defaults leave a deletion valid");
        let set = object(kind, "{}").admit().unwrap().to_value();
        assert_eq!(
            (&set["spec"]["stagedAction"], &set["spec"]["types"][0]),
            (&"Set".into(), &"Ingress".into())
        );
    }
    let unknown = "{apiVersion: projectcalico.org/v3, kind: StagedNetworkPolicy, metadata: {name: x}, \
                   spec: {stagedAction: Set, ingres: [], egress: [{action: Alow}]}}";
    let mut errors: Vec<_> = load(unknown).unwrap_err().iter().map(ToString::to_string).collect();
    errors.sort_unstable();
    assert_eq!(errors.len(), 2, "{errors:?}");
    assert!(
        errors[0].contains("spec.egress[0].action: \"Alow\" is not a valid value; did you mean Allow?"),
        "{errors:?}"
    );
    assert!(errors[1].contains("spec.ingres: unknown field; did you mean ingress?"), "{errors:?}");
}

#[test]
fn names_and_namespaces() {
    let errors = |kind: &str, metadata: &str| {
        let spec = if kind == "WorkloadEndpoint" { "{node: n, interfaceName: i}" } else { "{}" };
        let text =
            format!("{{apiVersion: projectcalico.org/v3, kind: {kind}, metadata: {metadata}, spec: {spec}}}");
        load(&text).unwrap().remove(0).validate().into_iter().map(|e| e.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(errors("NetworkPolicy", "{name: web, namespace: red}"), [""; 0]);
    for (kind, metadata, wanted) in [
        ("NetworkPolicy", "{}", "metadata.name: missing"),
        ("NetworkPolicy", "{name: web, namespace: a.b}", "metadata.namespace: \"a.b\" is not a namespace"),
        ("Tier", "{name: sec, namespace: red}", "metadata.namespace: \"red\" given"),
        ("Tier", "{name: a.b}", "metadata.name: \"a.b\" has too many dots"),
        ("Node", "{name: -a}", "metadata.name: \"-a\" is not a name"),
        ("Node", "{name: a..b}", "metadata.name: \"a..b\" is not a name"),
        ("Node", "{name: a, labels: {'a/b/c': x}}", "metadata.labels: \"a/b/c\" is not a valid key"),
        ("Node", "{name: a, labels: {a: 'b '}}", "metadata.labels[\"a\"]: \"b \" is not a valid value"),
        ("Node", "{name: a, annotations: {'a b': x}}", "metadata.annotations: \"a b\" is not a valid key"),
        (
            "NetworkSet",
            "{name: a, labels: {projectcalico.org/namespace: x}}",
            "metadata.labels: projectcalico.org/",
        ),
    ] {
        let found = errors(kind, metadata);
        assert!(found.len() == 1 && found[0].starts_with(wanted), "{metadata}: {found:?}");
    }
}
#[test]
fn settings_are_refused_by_name_where_nothing_acts_on_them() {
    let felix = |name: &str, spec: &str| {
        let text = format!(
            "{{apiVersion: projectcalico.org/v3, kind: FelixConfiguration, metadata: {{name: {name}}}, spec: {spec}}}"
        );
        let object = load(&text).unwrap().remove(0);
        assert_eq!(object.validate(), []);
        object.unsupported().into_iter().map(|e| e.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(felix("default", "{bpfLogLevel: ''}"), [""; 0]);
    assert_eq!(felix("node.a", "{}"), [""; 0]);
    assert!(felix("other", "{}")[0].contains("\"other\" is read by nobody"));
    assert_eq!(felix("default", "{vxlanMTU: 1400, ipipMTU: 0, vxlanPort: 8472, vxlanVNI: 7}"), [""; 0]);
    for (spec, field) in
        [("vxlanMTU: 100", "vxlanMTU"), ("vxlanPort: 0", "vxlanPort"), ("vxlanVNI: 16777216", "vxlanVNI")]
    {
        let found = felix("default", &format!("{{{spec}}}"));
        assert!(
            found.len() == 1 && found[0].contains(field) && found[0].contains("is not within"),
            "{found:?}"
        );
    }
    assert_eq!(felix("default", "{serviceLoopPrevention: Reject}"), [""; 0]);
    let encryption = "{wireguardEnabled: true, wireguardEnabledV6: true, wireguardListeningPort: 4000, wireguardMTU: 1400, \
                      wireguardKeepAlive: 25s, wireguardHostEncryptionEnabled: true}";
    assert_eq!(felix("default", encryption), [""; 0]);
    assert!(felix("default", "{wireguardMTUV6: 1000}")[0].contains("is not within 1280"));
    let found = felix("default", "{bpfEnabled: false}");
    assert!(found.len() == 1 && found.iter().all(|e| e.contains("not supported yet")), "{found:?}");
}

#[test]
fn settings_of_bgp_are_of_all_nodes_or_of_one() {
    let bgp = |name: &str, spec: &str| {
        let text = format!(
            "{{apiVersion: projectcalico.org/v3, kind: BGPConfiguration, metadata: {{name: {name}}}, spec: {spec}}}"
        );
        load(&text).unwrap().remove(0).unsupported().into_iter().map(|e| e.to_string()).collect::<Vec<_>>()
    };
    let blocks = "serviceClusterIPs: [{cidr: 10.96.0.0/12}], serviceLoadBalancerIPs: [{cidr: 192.0.2.0/24}]";
    assert_eq!(bgp("default", &format!("{{{blocks}}}")), [""; 0]);
    assert!(bgp("a", "{}")[0].contains("is read by nobody"));
    assert_eq!(bgp("default", "{asNumber: 64512, programClusterRoutes: EnabledNoEncapOnly}"), [""; 0]);
    assert_eq!(bgp("node.a", "{logSeverityScreen: Debug}"), [""; 0]);
    for (name, spec, field) in [
        ("node.a", "{asNumber: 64512}", "spec.asNumber"),
        ("default", "{localWorkloadPeeringIPV4: 10.0.0.1}", "spec.localWorkloadPeeringIPV4"),
        ("default", "{programClusterRoutes: Enabled}", "spec.programClusterRoutes"),
        ("default", "{nodeMeshMaxRestartTime: 2h}", "spec.nodeMeshMaxRestartTime"),
    ] {
        let found = bgp(name, spec);
        assert!(found.len() == 1 && found[0].contains(field), "{found:?}");
    }
}

#[test]
fn settings_of_the_dataplane() {
    for (spec, field) in [
        ("{kubeNodePortRanges: [http]}", "spec.kubeNodePortRanges[0]"),
        ("{externalNodesList: ['fd00::/64']}", "spec.externalNodesList[0]"),
        (
            "{failsafeInboundHostPorts: [{protocol: ICMP, port: 1}]}",
            "spec.failsafeInboundHostPorts[0].protocol",
        ),
        ("{routeTableRange: {min: 1, max: 2}, routeTableRanges: [{min: 1, max: 2}]}", "spec.routeTableRange"),
        ("{routeTableRanges: [{min: 1, max: 40000}, {min: 40001, max: 65536}]}", "spec.routeTableRanges"),
        ("{healthTimeoutOverrides: [{name: 'a,b', timeout: 5s}]}", "spec.healthTimeoutOverrides[0].name"),
        ("{bpfLogFilters: {'a b': tcp}}", "spec.bpfLogFilters"),
    ] {
        assert_eq!(fields("FelixConfiguration", spec), [field], "{spec}");
    }
    assert_eq!(fields("FelixConfiguration", "{failsafeOutboundHostPorts: []}"), [""; 0]);
    assert_eq!(FailsafePort::INBOUND[0].protocol(), Protocol::TCP);
}

#[test]
fn bgp() {
    for severity in ["info", "INFO", "Verbose"] {
        let text = format!(
            "{{apiVersion: projectcalico.org/v3, kind: BGPConfiguration, metadata: {{name: default}}, \
             spec: {{logSeverityScreen: {severity}}}}}"
        );
        let error = load(&text).unwrap_err()[0].to_string();
        assert!(error.contains("spec.logSeverityScreen") && error.contains(severity), "{error}");
    }
    for (spec, field) in [
        ("{communities: [{name: a, value: '1:2'}]}", "spec.communities"),
        (
            "{prefixAdvertisements: [{cidr: 10.0.0.0/8, communities: [blue]}]}",
            "spec.prefixAdvertisements[0].communities[0]",
        ),
        ("{prefixAdvertisements: [{cidr: 10.0.0.0/8}]}", "spec.prefixAdvertisements[0].communities"),
        ("{nodeToNodeMeshEnabled: false, nodeMeshMaxRestartTime: 5s}", "spec.nodeMeshMaxRestartTime"),
        ("{ignoredInterfaces: [a, a]}", "spec.ignoredInterfaces"),
    ] {
        assert_eq!(fields("BGPConfiguration", spec), [field], "{spec}");
    }
    for (spec, field) in [
        ("{node: a, nodeSelector: all()}", "spec.node"),
        ("{peerSelector: all(), asNumber: 1}", "spec.asNumber"),
        ("{localWorkloadSelector: all()}", "spec.asNumber"),
        ("{reachableBy: 192.0.2.1}", "spec.reachableBy"),
        ("{peerSelector: 'a ='}", "spec.peerSelector"),
    ] {
        assert_eq!(fields("BGPPeer", spec), [field], "{spec}");
    }
    assert_eq!(
        fields(
            "BGPPeer",
            "{peerSelector: all(), asNumber: 0, keepOriginalNextHop: false, nextHopMode: Keep}"
        ),
        [""; 0]
    );
    for (spec, field) in [
        ("{importV4: [{source: RemotePeers, action: Accept}]}", "spec.importV4[0].source"),
        ("{exportV4: [{prefixLength: {min: 1}, action: Accept}]}", "spec.exportV4[0].prefixLength"),
        ("{exportV6: [{cidr: 10.0.0.0/8, matchOperator: In, action: Accept}]}", "spec.exportV6[0].cidr"),
        (
            "{exportV4: [{action: Reject, operations: [{setPriority: {value: 5}}]}]}",
            "spec.exportV4[0].operations",
        ),
        ("{exportV4: [{action: Accept, operations: [{}]}]}", "spec.exportV4[0].operations[0]"),
        (
            "{exportV4: [{action: Accept, communities: {values: ['1:2', '1:3']}}]}",
            "spec.exportV4[0].communities.values",
        ),
    ] {
        assert_eq!(fields("BGPFilter", spec), [field], "{spec}");
    }
}

#[test]
fn address_management_and_controllers() {
    for (kind, spec, field) in [
        (
            "IPAMConfiguration",
            "{strictAffinity: false, autoAllocateBlocks: false}",
            "spec.autoAllocateBlocks",
        ),
        ("IPAMConfiguration", "{maxBlocksPerHost: 3}", "spec.maxBlocksPerHost"),
        ("IPReservation", "{reservedCIDRs: [10.0.0.1, 10.0.0.1/32]}", "spec.reservedCIDRs"),
        ("BlockAffinity", "{cidr: 10.0.0.0/26, node: a, state: '', deleted: true}", "spec.deleted"),
        ("CalicoNodeStatus", "{node: a, classes: [BGP, BGP], updatePeriodSeconds: 5}", "spec.classes"),
        (
            "KubeControllersConfiguration",
            "{controllers: {node: {hostEndpoint: {templates: [{labels: {'a b': c}}]}}}}",
            "spec.controllers.node.hostEndpoint.templates[0].labels",
        ),
    ] {
        assert_eq!(fields(kind, spec), [field], "{spec}");
    }
}

#[test]
fn a_kind_without_effect_is_refused_as_a_whole() {
    for kind in Kind::ALL.into_iter().filter(|kind| !kind.is_acted_on()) {
        let spec = match kind {
            Kind::BlockAffinity | Kind::IPAMBlock => "{cidr: 10.0.0.0/26}",
            Kind::IPAMHandle => "{handleID: h}",
            Kind::CalicoNodeStatus => "{node: n, classes: [BGP], updatePeriodSeconds: 5}",
            _ => "{}",
        };
        let object = object(kind.name(), spec);
        assert_eq!(object.validate(), [], "{kind}");
        let refused = object.admit().unwrap_err();
        assert_eq!(refused.len(), 1);
        let text = refused[0].to_string();
        assert!(
            text.starts_with("kind: nothing in this version acts on a ")
                && text.contains("margayctl validate"),
            "{text}"
        );
    }
}
