//! What Calico has and this release does not honour yet, refused by name.
//!
//! Kept apart from [`super::validate`], which says what Calico accepts: a feature that arrives
//! loses its line here and changes nothing there.

use super::encryption::{ENCRYPTION, is_required};
use super::kinds::{
    AllowedUse, BgpConfiguration, BgpFilterRule, BgpFilterSpec, BgpPeerSpec, FelixConfiguration,
    GlobalNetworkPolicySpec, IpPoolSpec, IpamConfiguration, MatchOperator, NodeSpec, ProgramClusterRoutes,
    Switch, WorkloadEndpointSpec,
};
use super::metadata::Metadata;
use super::net::{Port, Protocol};
use super::resource::Resource;
use super::rule::Rule;
use super::scalar::Duration;
use super::services::{
    NAT_MAPPING, NODE_PORT_ADDRESSES, NatMapping, REMOVED_BACKENDS, RemovedBackends, node_port_addresses,
};
use super::tracking::{MIDSTREAM, TCP_WINDOWS, is_strict, picks_up};
use super::validate::FieldError;

/// One error a field that would otherwise be ignored.
pub(super) fn refusals(resource: &Resource) -> Vec<FieldError> {
    let mut refused = Refused(Vec::new());
    let kind = resource.kind();
    if kind.is_internal() {
        let message = format!(
            "a {kind} is kept by the agents and can be read only; remove it. `margayctl ipam` shows and changes what it says"
        );
        return vec![FieldError::new("kind", message)];
    }
    if !kind.is_acted_on() {
        let message = format!(
            "nothing in this version acts on a {kind}, so it is not stored; remove it. `margayctl validate` checks it"
        );
        return vec![FieldError::new("kind", message)];
    }
    if !kind.is_kubernetes() {
        refused.metadata(resource.metadata());
    }
    match resource {
        Resource::FelixConfiguration(f) => refused.felix(f),
        Resource::BGPConfiguration(b) => refused.bgp(b),
        Resource::NetworkPolicy(p) => refused.rules(&p.spec.ingress, &p.spec.egress),
        Resource::GlobalNetworkPolicy(p) => refused.rules(&p.spec.ingress, &p.spec.egress),
        Resource::StagedNetworkPolicy(p) => refused.rules(&p.spec.policy.ingress, &p.spec.policy.egress),
        Resource::StagedGlobalNetworkPolicy(p) => refused.staged(&p.spec.policy),
        Resource::Profile(p) => refused.rules(&p.spec.ingress, &p.spec.egress),
        Resource::IPPool(p) => refused.pool(&p.spec),
        Resource::WorkloadEndpoint(w) => refused.workload(&w.spec),
        Resource::Node(n) => refused.node(&n.spec),
        Resource::IPAMConfiguration(i) => refused.addresses(i),
        Resource::BGPPeer(p) => refused.bgp_peer(&p.spec),
        Resource::BGPFilter(f) => refused.bgp_filter(&f.spec),
        Resource::Tier(_)
        | Resource::NetworkSet(_)
        | Resource::GlobalNetworkSet(_)
        | Resource::IPReservation(_)
        | Resource::HostEndpoint(_)
        | Resource::Kubernetes(_) => {}
        Resource::ClusterInformation(_)
        | Resource::KubeControllersConfiguration(_)
        | Resource::BlockAffinity(_)
        | Resource::IPAMBlock(_)
        | Resource::IPAMHandle(_)
        | Resource::CalicoNodeStatus(_) => {}
    }
    refused.0
}

/// The settings of a [`FelixConfiguration`] that something acts on.
const FELIX_HONOURED: [&str; 27] = [
    "allowIPIPPacketsFromWorkloads",
    "allowVXLANPacketsFromWorkloads",
    "bpfConntrackTimeouts",
    "defaultEndpointToHostAction",
    "externalNodesList",
    "failsafeInboundHostPorts",
    "failsafeOutboundHostPorts",
    "ipipEnabled",
    "ipipMTU",
    "mtuIfacePattern",
    "natOutgoingAddress",
    "natOutgoingExclusions",
    "natPortRange",
    "serviceLoopPrevention",
    "vxlanEnabled",
    "vxlanMTU",
    "vxlanMTUV6",
    "vxlanPort",
    "vxlanVNI",
    "wireguardEnabled",
    "wireguardEnabledV6",
    "wireguardHostEncryptionEnabled",
    "wireguardKeepAlive",
    "wireguardListeningPort",
    "wireguardListeningPortV6",
    "wireguardMTU",
    "wireguardMTUV6",
];

/// The settings of a [`BgpConfiguration`] that something acts on.
const BGP_HONOURED: [&str; 15] = [
    "asNumber",
    "bindMode",
    "communities",
    "ignoredInterfaces",
    "ipv4NormalRoutePriority",
    "ipv6NormalRoutePriority",
    "listenPort",
    "logSeverityScreen",
    "nodeMeshMaxRestartTime",
    "nodeToNodeMeshEnabled",
    "prefixAdvertisements",
    "programClusterRoutes",
    "serviceClusterIPs",
    "serviceExternalIPs",
    "serviceLoadBalancerIPs",
];

/// Those that one for a single node may have.
const BGP_OF_NODE: [&str; 3] = ["communities", "logSeverityScreen", "prefixAdvertisements"];

/// The longest time that BGP can say for a restart (RFC 4724).
const LONGEST_RESTART: u64 = 4_095;
/// A third of the longest hold time (RFC 4271).
const LONGEST_KEEPALIVE: u64 = 21_845;

struct Refused(Vec<FieldError>);

impl Refused {
    /// `remedy` is what to do, after a reason where the field's name gives none.
    fn if_used(&mut self, used: bool, field: impl Into<String>, remedy: &str) {
        if used {
            self.0.push(FieldError::new(field, format!("not supported yet; {remedy}")));
        }
    }

    fn metadata(&mut self, metadata: &Metadata) {
        self.if_used(metadata.generate_name.is_some(), "metadata.generateName", "give metadata.name");
        self.if_used(!metadata.owner_references.is_empty(), "metadata.ownerReferences", "remove it");
        self.if_used(!metadata.finalizers.is_empty(), "metadata.finalizers", "remove it");
    }

    fn rules(&mut self, ingress: &[Rule], egress: &[Rule]) {
        for (direction, rules) in [("ingress", ingress), ("egress", egress)] {
            for (i, rule) in rules.iter().enumerate() {
                self.rule(rule, &format!("spec.{direction}[{i}]"));
            }
        }
    }

    fn rule(&mut self, rule: &Rule, at: &str) {
        let http = "an HTTP match that nobody enforces would allow every request; match on ports";
        self.if_used(rule.http.is_some(), format!("{at}.http"), http);
        let icmp = rule.protocol.is_some_and(Protocol::is_icmp);
        let remedy = "it needs the rule's protocol; set that to ICMP or ICMPv6";
        self.if_used(rule.not_icmp.is_some() && !icmp, format!("{at}.notICMP"), remedy);
    }

    fn felix(&mut self, felix: &FelixConfiguration) {
        let name = &felix.metadata.name;
        let read = name == "default" || name.strip_prefix("node.").is_some_and(|node| !node.is_empty());
        let message = format!("{name:?} is read by nobody; call it default, or node.NAME for one node");
        if !read {
            self.0.push(FieldError::new("metadata.name", message));
        }
        let established = felix.metadata.annotations.get(FelixConfiguration::ESTABLISHED);
        if let Some(other) = established.filter(|value| !matches!(value.as_str(), "Keep" | "Recheck")) {
            let field = format!("metadata.annotations[{}]", FelixConfiguration::ESTABLISHED);
            self.0.push(FieldError::new(field, format!("{other:?} is neither \"Keep\" nor \"Recheck\"")));
        }
        let annotations = &felix.metadata.annotations;
        let node_ports =
            annotations.get(NODE_PORT_ADDRESSES).and_then(|text| node_port_addresses(text).err());
        let removed = annotations.get(REMOVED_BACKENDS);
        let removed = removed.and_then(|text| text.parse::<RemovedBackends>().err());
        let midstream = annotations.get(MIDSTREAM).and_then(|text| picks_up(text).err());
        let windows = annotations.get(TCP_WINDOWS).and_then(|text| is_strict(text).err());
        let encryption = annotations.get(ENCRYPTION).and_then(|text| is_required(text).err());
        let mapping = annotations.get(NAT_MAPPING).and_then(|text| text.parse::<NatMapping>().err());
        for (name, wrong) in [
            (NODE_PORT_ADDRESSES, node_ports),
            (REMOVED_BACKENDS, removed),
            (MIDSTREAM, midstream),
            (TCP_WINDOWS, windows),
            (NAT_MAPPING, mapping),
            (ENCRYPTION, encryption),
        ] {
            self.0.extend(wrong.map(|why| FieldError::new(format!("metadata.annotations[{name:?}]"), why)));
        }
        for (field, why) in felix.spec.bpf_conntrack_timeouts.iter().flat_map(|timeouts| timeouts.refusals())
        {
            self.0.push(FieldError::new(format!("spec.bpfConntrackTimeouts.{field}"), why));
        }
        let named = matches!(felix.spec.nat_port_range, Some(Port::Named(_)));
        self.if_used(named, "spec.natPortRange", "give a range of numbers, like 61000:65535");
        // What a dataplane would have to refuse as a whole.
        for (name, value, least, most) in [
            ("vxlanPort", felix.spec.vxlan_port, 1, 65_535),
            ("vxlanVNI", felix.spec.vxlan_vni, 1, 0xff_ffff),
            ("ipipMTU", felix.spec.ipip_mtu.filter(|mtu| *mtu != 0), 576, 65_535),
            ("vxlanMTU", felix.spec.vxlan_mtu.filter(|mtu| *mtu != 0), 576, 65_535),
            ("vxlanMTUV6", felix.spec.vxlan_mtuv6.filter(|mtu| *mtu != 0), 1280, 65_535),
            ("wireguardMTU", felix.spec.wireguard_mtu.filter(|mtu| *mtu != 0), 576, 65_535),
            ("wireguardMTUV6", felix.spec.wireguard_mtuv6.filter(|mtu| *mtu != 0), 1280, 65_535),
        ] {
            if let Some(value) = value.filter(|value| !(least..=most).contains(value)) {
                let why = format!("{value} is not within {least} and {most}; change it, or remove it");
                self.0.push(FieldError::new(format!("spec.{name}"), why));
            }
        }
        self.settings(&felix.spec, &FELIX_HONOURED, "nothing here acts on it, so remove it");
    }

    /// Those of a kind that all are optional.
    fn settings(&mut self, spec: &impl serde::Serialize, honoured: &[&str], remedy: &str) {
        let spec = serde_json::to_value(spec).expect("settings have string keys and finite numbers only");
        for field in spec.as_object().into_iter().flat_map(serde_json::Map::keys) {
            self.if_used(!honoured.contains(&field.as_str()), format!("spec.{field}"), remedy);
        }
    }

    fn staged(&mut self, spec: &GlobalNetworkPolicySpec) {
        let remedy =
            "what it would do is reported for a host's own traffic and for workloads only; remove it";
        self.if_used(spec.do_not_track, "spec.doNotTrack", remedy);
        self.if_used(spec.pre_dnat, "spec.preDNAT", remedy);
        self.if_used(spec.apply_on_forward, "spec.applyOnForward", remedy);
        self.rules(&spec.ingress, &spec.egress);
    }

    fn pool(&mut self, spec: &IpPoolSpec) {
        let services = spec.allowed_uses.contains(&AllowedUse::LoadBalancer);
        let remedy = "nothing here gives addresses to services; remove it";
        self.if_used(services, "spec.allowedUses", remedy);
    }

    fn addresses(&mut self, configuration: &IpamConfiguration) {
        let (name, spec) = (&configuration.metadata.name, &configuration.spec);
        if name != "default" {
            let message = format!("{name:?} is read by nobody; call it default");
            self.0.push(FieldError::new("metadata.name", message));
        }
        let age = spec.min_ip_reclaim_age_seconds.is_some_and(|age| age.get() != 0);
        self.if_used(age, "spec.minIPReclaimAgeSeconds", "set ipCooldownSeconds instead");
        let machines = spec.kube_virt_vm_address_persistence == Some(Switch::Enabled);
        let remedy = "nothing here knows of virtual machines; set it to Disabled";
        self.if_used(machines, "spec.kubeVirtVMAddressPersistence", remedy);
    }

    fn workload(&mut self, spec: &WorkloadEndpointSpec) {
        if spec.node.is_empty() {
            self.0.push(FieldError::new("spec.node", "missing; name the node that the workload runs on"));
        }
        self.if_used(spec.interface_name == "*", "spec.interfaceName", "name one interface");
        self.if_used(!spec.ip_nats.is_empty(), "spec.ipNATs", "remove it");
        let gateway = "the gateway of every workload is 169.254.1.1 or fe80::ecee:eeff:feee:eeee; remove it";
        self.if_used(spec.ipv4_gateway.is_some(), "spec.ipv4Gateway", gateway);
        self.if_used(spec.ipv6_gateway.is_some(), "spec.ipv6Gateway", gateway);
        let qos = spec.qos_controls.clone().unwrap_or_default();
        for (name, limit) in [
            ("ingressBandwidth", qos.ingress_bandwidth),
            ("egressBandwidth", qos.egress_bandwidth),
            ("ingressBurst", qos.ingress_burst),
            ("egressBurst", qos.egress_burst),
            ("ingressPeakrate", qos.ingress_peakrate),
            ("egressPeakrate", qos.egress_peakrate),
            ("ingressMinburst", qos.ingress_minburst),
            ("egressMinburst", qos.egress_minburst),
            ("ingressPacketRate", qos.ingress_packet_rate),
            ("egressPacketRate", qos.egress_packet_rate),
            ("ingressPacketBurst", qos.ingress_packet_burst),
            ("egressPacketBurst", qos.egress_packet_burst),
        ] {
            self.if_used(
                limit != 0,
                format!("spec.qosControls.{name}"),
                "only connections are limited; remove it",
            );
        }
        for (i, port) in spec.ports.iter().enumerate() {
            self.if_used(port.host_port != 0, format!("spec.ports[{i}].hostPort"), "remove it");
            self.if_used(port.host_ip.is_some(), format!("spec.ports[{i}].hostIP"), "remove it");
        }
    }

    fn node(&mut self, spec: &NodeSpec) {
        self.if_used(spec.wireguard.is_some(), "spec.wireguard", "remove it");
        let own = "give the node's own address as spec.bgp.ipv4Address or spec.bgp.ipv6Address";
        self.if_used(!spec.interfaces.is_empty(), "spec.interfaces", own);
    }

    fn bgp(&mut self, bgp: &BgpConfiguration) {
        let name = &bgp.metadata.name;
        let of_node = name.strip_prefix("node.").is_some_and(|node| !node.is_empty());
        if name != "default" && !of_node {
            let message = format!("{name:?} is read by nobody; call it default, or node.NAME for one node");
            self.0.push(FieldError::new("metadata.name", message));
        }
        match of_node {
            true => {
                self.settings(&bgp.spec, &BGP_OF_NODE, "set it for all nodes, in default, if it is there")
            }
            false => self.settings(&bgp.spec, &BGP_HONOURED, "nothing here acts on it, so remove it"),
        }
        use ProgramClusterRoutes::{Enabled, EnabledIPIPOnly};
        let tunnels = matches!(bgp.spec.program_cluster_routes, Some(Enabled | EnabledIPIPOnly));
        let remedy = "tunnels are the dataplane's; write EnabledNoEncapOnly or Disabled";
        self.if_used(tunnels, "spec.programClusterRoutes", remedy);
        self.seconds(bgp.spec.node_mesh_max_restart_time, LONGEST_RESTART, "spec.nodeMeshMaxRestartTime");
    }

    fn bgp_peer(&mut self, spec: &BgpPeerSpec) {
        for (used, field) in [
            (spec.local_workload_selector.is_some(), "localWorkloadSelector"),
            (spec.password.is_some(), "password"),
            (spec.reachable_by.is_some(), "reachableBy"),
        ] {
            self.if_used(used, format!("spec.{field}"), "nothing here acts on it, so remove it");
        }
        let negative = spec.num_allowed_local_as_numbers.is_some_and(|n| !(0..=10).contains(&n.get()));
        self.if_used(negative, "spec.numAllowedLocalASNumbers", "write a number from 0 to 10");
        self.seconds(spec.max_restart_time, LONGEST_RESTART, "spec.maxRestartTime");
        self.seconds(spec.keepalive_time, LONGEST_KEEPALIVE, "spec.keepaliveTime");
    }

    fn seconds(&mut self, given: Option<Duration>, most: u64, field: &str) {
        const SECOND: u64 = 1_000_000_000;
        let fits = |nanos: u64| nanos.is_multiple_of(SECOND) && (1..=most).contains(&(nanos / SECOND));
        if let Some(given) = given.filter(|given| !fits(given.as_nanos())) {
            let why = format!("{given} is not a number of whole seconds from 1 to {most}; change it");
            self.0.push(FieldError::new(field, why));
        }
    }

    fn bgp_filter(&mut self, spec: &BgpFilterSpec) {
        self.bgp_rules(spec.export_v4.as_deref(), "exportV4");
        self.bgp_rules(spec.import_v4.as_deref(), "importV4");
        self.bgp_rules(spec.export_v6.as_deref(), "exportV6");
        self.bgp_rules(spec.import_v6.as_deref(), "importV6");
    }

    fn bgp_rules<const MAX: i64>(&mut self, rules: Option<&[BgpFilterRule<MAX>]>, list: &str) {
        for (i, rule) in rules.unwrap_or_default().iter().enumerate() {
            let at = format!("spec.{list}[{i}]");
            self.if_used(rule.priority.is_some(), format!("{at}.priority"), "remove it");
            let exact = matches!(rule.match_operator, Some(MatchOperator::Equal | MatchOperator::NotEqual));
            let remedy = "an equal prefix has one length; remove it, or match by In or NotIn";
            self.if_used(exact && rule.prefix_length.is_some(), format!("{at}.prefixLength"), remedy);
            if let (Some(cidr), Some(lengths)) = (rule.cidr, rule.prefix_length) {
                let least = lengths.min.map_or(cidr.len().into(), |min| min.get());
                let most = lengths.max.map_or(MAX, |max| max.get());
                if most < least {
                    let why =
                        format!("{least} to {most}: nothing is so long; give a max of {least} at least");
                    self.0.push(FieldError::new(format!("{at}.prefixLength"), why));
                }
            }
            for (j, operation) in rule.operations.iter().enumerate() {
                let field = format!("{at}.operations[{j}].setPriority");
                self.if_used(operation.set_priority.is_some(), field, "remove it");
            }
        }
    }
}
