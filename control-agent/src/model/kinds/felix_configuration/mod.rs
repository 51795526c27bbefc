//! Settings of every node's dataplane, of one node, or of both.

mod choices;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

pub use choices::*;

use crate::model::net::{Port, SubnetAddr, empty_is_none};
use crate::model::scalar::{
    BindHost, BpfTimeout, Dscp, Duration, FeatureGates, FeatureOverrides, InterfaceFilter, InterfaceName,
    LogPrefix, Pattern, RateLimit, Region, Whole, settings,
};
use crate::model::{Cidr, Metadata, Protocol};

/// `default` is for all nodes; `node.NAME` counts more for that node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct FelixConfiguration {
    /// Name and labels.
    pub metadata: Metadata,
    /// What it says.
    pub spec: Box<FelixConfigurationSpec>,
}

impl FelixConfiguration {
    /// The annotation that says what a change of policy means for live sessions: `Keep`, as in Calico, or
    /// `Recheck`. Calico has no such setting, so it is none of the specification's.
    pub const ESTABLISHED: &str = "margay.io/established";
}

/// A port that a socket listens on; 0 is none.
pub type ListenPort = Whole<0, 65535>;
/// The metric of a route.
pub type RoutePriority = Whole<1, 2_147_483_646>;

settings! {
    /// What a [`FelixConfiguration`] says. What is absent is as its line says.
    pub struct FelixConfigurationSpec {
        // Process
        /// Whether the process programs the dataplane itself; true.
        use_internal_dataplane_driver: bool, "useInternalDataplaneDriver";
        /// The program that does so where the process does not.
        dataplane_driver: String | "", "dataplaneDriver";
        /// How long the dataplane has to show that it lives; 90s. Superseded by `healthTimeoutOverrides`.
        dataplane_watchdog_timeout: Duration | "", "dataplaneWatchdogTimeout";
        /// Features of the kernel taken as there or not, whatever is found.
        feature_detect_override: FeatureOverrides | "", "featureDetectOverride";
        /// Previews switched on or off.
        feature_gates: FeatureGates | "", "featureGates";
        /// Growth of the heap, in percent, between garbage collections; 40, -1 for none.
        go_gc_threshold: Whole<-1, { i64::MAX }>, "goGCThreshold";
        /// Processors in use at once; -1 for all.
        go_max_procs: Whole<-1, { i64::MAX }>, "goMaxProcs";
        /// Memory to stay below, in MB; -1 for no limit.
        go_memory_limit_mb: Whole<-1, { i64::MAX }>, "goMemoryLimitMB";
        /// Whether to wait for the file that says the MTU; false.
        require_mtu_file: bool, "requireMTUFile";
        /// Where the hierarchy of control groups is, if not where usual.
        cgroup_v2_path: String | "", "cgroupV2Path";
        // Health
        /// Whether to answer on liveness and readiness; false.
        health_enabled: bool, "healthEnabled";
        /// Where it answers; localhost.
        health_host: String | "", "healthHost";
        /// The port on which it answers; 9099.
        health_port: ListenPort, "healthPort";
        /// Other times for parts of the process to show that they live.
        health_timeout_overrides: Vec<HealthTimeoutOverride>, "healthTimeoutOverrides";
        // Logs
        /// How often the action Log writes a line; absent: always.
        log_action_rate_limit: RateLimit | "", "logActionRateLimit";
        /// Lines beyond that rate in a burst; 5.
        log_action_rate_limit_burst: Whole<0, 9999>, "logActionRateLimitBurst";
        /// Source files whose debug lines are written; absent: all.
        log_debug_filename_regex: Pattern | "", "logDebugFilenameRegex";
        /// The file to write to; /var/log/calico/felix.log.
        log_file_path: String | "", "logFilePath";
        /// What lines of the action Log begin with; calico-packet.
        log_prefix: LogPrefix | "", "logPrefix";
        /// The least severity written to the file; Info.
        log_severity_file: LogSeverity | "", "logSeverityFile";
        /// The least severity written to standard output; Info.
        log_severity_screen: LogSeverity | "", "logSeverityScreen";
        /// The least severity written to syslog; Info.
        log_severity_sys: LogSeverity | "", "logSeveritySys";
        // Metrics
        /// With metrics of the Go runtime; true.
        prometheus_go_metrics_enabled: bool, "prometheusGoMetricsEnabled";
        /// Certificates of those who may read metrics.
        prometheus_metrics_ca_file: String | "", "prometheusMetricsCAFile";
        /// The certificate under which metrics are served.
        prometheus_metrics_cert_file: String | "", "prometheusMetricsCertFile";
        /// What readers of metrics must present; NoClientCert.
        prometheus_metrics_client_auth: MetricsClientAuth | "", "prometheusMetricsClientAuth";
        /// Whether metrics are served; false.
        prometheus_metrics_enabled: bool, "prometheusMetricsEnabled";
        /// Where metrics are served; on every address.
        prometheus_metrics_host: BindHost | "", "prometheusMetricsHost";
        /// The key to that certificate.
        prometheus_metrics_key_file: String | "", "prometheusMetricsKeyFile";
        /// The port on which metrics are served; 9091.
        prometheus_metrics_port: ListenPort, "prometheusMetricsPort";
        /// With metrics of the process; true.
        prometheus_process_metrics_enabled: bool, "prometheusProcessMetricsEnabled";
        /// With metrics of WireGuard; true.
        prometheus_wire_guard_metrics_enabled: bool, "prometheusWireGuardMetricsEnabled";
        // Reports
        /// Whether to report version and size of the cluster to Calico's authors; true.
        usage_reporting_enabled: bool, "usageReportingEnabled";
        /// How long after the start at least; 5m.
        usage_reporting_initial_delay: Duration | "", "usageReportingInitialDelay";
        /// How often; 24h.
        usage_reporting_interval: Duration | "", "usageReportingInterval";
        /// How often the node writes its status into the store; 30s, 0 for never.
        reporting_interval: Duration | "", "reportingInterval";
        /// How long such a status counts; 90s.
        reporting_ttl: Duration | "", "reportingTTL";
        /// Whether the status of endpoints is written into the store, for OpenStack; false.
        endpoint_reporting_enabled: bool, "endpointReportingEnabled";
        /// How long that waits; 1s.
        endpoint_reporting_delay: Duration | "", "endpointReportingDelay";
        /// The directory for files with the status of endpoints; /var/run/calico.
        endpoint_status_path_prefix: String | "", "endpointStatusPathPrefix";
        // Dataplane
        /// Whether workloads may send IPIP; false.
        allow_ipip_packets_from_workloads: bool, "allowIPIPPacketsFromWorkloads";
        /// Whether workloads may send VXLAN; false.
        allow_vxlan_packets_from_workloads: bool, "allowVXLANPacketsFromWorkloads";
        /// Whether rules go before or after those of others; Insert.
        chain_insert_mode: ChainInsertMode | "", "chainInsertMode";
        /// What happens to packets from a workload to its own host that the workload's policy let pass;
        /// Drop.
        default_endpoint_to_host_action: EndpointToHostAction | "", "defaultEndpointToHostAction";
        /// The protocol number of routes made here; 3.
        device_route_protocol: i64, "deviceRouteProtocol";
        /// The source hint of IPv4 routes.
        device_route_source_address: Ipv4Addr | "", "deviceRouteSourceAddress";
        /// The source hint of IPv6 routes.
        device_route_source_address_i_pv6: Ipv6Addr | "", "deviceRouteSourceAddressIPv6";
        /// Whether packets that fit no connection pass; false.
        disable_conntrack_invalid_check: bool, "disableConntrackInvalidCheck";
        /// Nodes of other clusters from which tunnels are accepted.
        external_nodes_list: Vec<SubnetAddr>, "externalNodesList";
        /// Ports of the host that stay open to others; [`FailsafePort::INBOUND`].
        failsafe_inbound_host_ports: Vec<FailsafePort>, "failsafeInboundHostPorts";
        /// Ports of others that stay open to the host; [`FailsafePort::OUTBOUND`].
        failsafe_outbound_host_ports: Vec<FailsafePort>, "failsafeOutboundHostPorts";
        /// Whether floating addresses of workloads are programmed; Disabled.
        floating_ips: Switch | "", "floatingIPs";
        /// Interfaces that are no host endpoints, by name or /pattern/; kube-ipvs0.
        interface_exclude: String | "", "interfaceExclude";
        /// What the names of workloads' interfaces begin with; cali.
        interface_prefix: String | "", "interfacePrefix";
        /// How often interfaces are read again; 90s, 0 for never.
        interface_refresh_interval: Duration | "", "interfaceRefreshInterval";
        /// Whether the host is made to forward; Enabled.
        ip_forwarding: Switch | "", "ipForwarding";
        /// The metric of IPv4 routes that win for a while; 512.
        ipv4_elevated_route_priority: RoutePriority, "ipv4ElevatedRoutePriority";
        /// The metric of IPv4 routes; 1024.
        ipv4_normal_route_priority: RoutePriority, "ipv4NormalRoutePriority";
        /// The metric of IPv6 routes that win for a while; 512.
        ipv6_elevated_route_priority: RoutePriority, "ipv6ElevatedRoutePriority";
        /// The metric of IPv6 routes; 1024.
        ipv6_normal_route_priority: RoutePriority, "ipv6NormalRoutePriority";
        /// Whether IPv6 is forwarded; true.
        ipv6_support: bool, "ipv6Support";
        /// Whether to make way for Istio's ambient mesh; Disabled.
        istio_ambient_mode: Switch | "", "istioAmbientMode";
        /// The mark of packets on their way to that mesh; 23.
        istio_dscp_mark: Dscp, "istioDSCPMark";
        /// How long the routes of a migrated workload win; 30s.
        live_migration_route_convergence_time: Duration | "", "liveMigrationRouteConvergenceTime";
        /// Whether ARP and ND are answered for workloads in the host's subnet; Disabled.
        local_subnet_l2_reachability: LocalSubnetL2Reachability | "", "localSubnetL2Reachability";
        /// How often they are announced again; 120s.
        local_subnet_l2_reachability_refresh_interval: Duration | "", "localSubnetL2ReachabilityRefreshInterval";
        /// Interfaces whose MTU counts.
        mtu_iface_pattern: Pattern | "", "mtuIfacePattern";
        /// The source of what natOutgoing masquerades; that of the interface.
        nat_outgoing_address: Ipv4Addr | "", "natOutgoingAddress";
        /// Destinations that natOutgoing leaves alone; IPPoolsOnly.
        nat_outgoing_exclusions: NatOutgoingExclusions | "", "natOutgoingExclusions";
        /// Source ports for natOutgoing; the kernel's choice.
        nat_port_range: Port, "natPortRange";
        /// How long the kernel has to answer; 10s.
        netlink_timeout: Duration | "", "netlinkTimeout";
        /// Where policy is handed to those who enforce HTTP matches.
        policy_sync_path_prefix: String | "", "policySyncPathPrefix";
        /// Which routes to other nodes are made here and not by BGP; EnabledIPIPOnly.
        program_cluster_routes: ProgramClusterRoutes | "", "programClusterRoutes";
        /// Whether routes of others to workloads are removed; true.
        remove_external_routes: bool, "removeExternalRoutes";
        /// How often routes are read again; 90s, 0 for never.
        route_refresh_interval: Duration | "", "routeRefreshInterval";
        /// What routes follow from; CalicoIPAM.
        route_source: RouteSource | "", "routeSource";
        /// Whether routes are left alone; false.
        route_sync_disabled: bool, "routeSyncDisabled";
        /// Routing tables to use. Superseded by `routeTableRanges`.
        route_table_range: RouteTables<250>, "routeTableRange";
        /// Routing tables to use, at most 65,535.
        route_table_ranges: Vec<RouteTables<0xffff_ffff>>, "routeTableRanges";
        /// What happens to packets to services that nobody has; Drop.
        service_loop_prevention: ServiceLoopPrevention | "", "serviceLoopPrevention";
        /// Whether sockets of one node are joined past the network; false.
        sidecar_acceleration_enabled: bool, "sidecarAccelerationEnabled";
        /// Whether workloads may ask for more sources to send from; Disabled.
        workload_source_spoofing: WorkloadSourceSpoofing | "", "workloadSourceSpoofing";
        // iptables, IP sets and nftables
        /// How often IP sets are read again; 90s, 0 for never.
        ipsets_refresh_interval: Duration | "", "ipsetsRefreshInterval";
        /// Which kind of iptables; Auto.
        iptables_backend: IptablesBackend | "", "iptablesBackend";
        /// What Allow does; Accept.
        iptables_filter_allow_action: AllowAction | "", "iptablesFilterAllowAction";
        /// What Deny does; Drop.
        iptables_filter_deny_action: DenyAction | "", "iptablesFilterDenyAction";
        /// Where the lock of iptables is. Without effect since version 1.8 of iptables.
        iptables_lock_file_path: String | "", "iptablesLockFilePath";
        /// How often that lock is tried; 50ms.
        iptables_lock_probe_interval: Duration | "", "iptablesLockProbeInterval";
        /// How long; 0s for not at all.
        iptables_lock_timeout: Duration | "", "iptablesLockTimeout";
        /// What Allow does before destination NAT; Accept.
        iptables_mangle_allow_action: AllowAction | "", "iptablesMangleAllowAction";
        /// Bits of the packet's mark to use; 0xffff0000.
        iptables_mark_mask: u32, "iptablesMarkMask";
        /// Interfaces on which natOutgoing masquerades; all.
        iptables_nat_outgoing_interface_filter: InterfaceFilter | "", "iptablesNATOutgoingInterfaceFilter";
        /// How soon after a write the tables are read again; 5s.
        iptables_post_write_check_interval: Duration | "", "iptablesPostWriteCheckInterval";
        /// How often the tables are read again; 180s, 0 for never.
        iptables_refresh_interval: Duration | "", "iptablesRefreshInterval";
        /// Ports of services on nodes; 30000:32767. At most 7 ranges.
        kube_node_port_ranges: Vec<Port>, "kubeNodePortRanges";
        /// Members that an IP set may have; 1048576.
        max_ipset_size: i64, "maxIpsetSize";
        /// What Allow does; Accept.
        nftables_filter_allow_action: AllowAction | "", "nftablesFilterAllowAction";
        /// What Deny does; Drop.
        nftables_filter_deny_action: DenyAction | "", "nftablesFilterDenyAction";
        /// Interfaces whose flows are offloaded.
        nftables_flow_table_data_iface_pattern: Pattern | "", "nftablesFlowTableDataIfacePattern";
        /// Whether flows are offloaded; Disabled.
        nftables_flow_table_offload: FlowTableOffload | "", "nftablesFlowTableOffload";
        /// What Allow does before destination NAT; Accept.
        nftables_mangle_allow_action: AllowAction | "", "nftablesMangleAllowAction";
        /// Bits of the packet's mark to use; 0xffff0000.
        nftables_mark_mask: u32, "nftablesMarkMask";
        /// Whether nftables is used; Auto.
        nftables_mode: NftablesMode | "", "nftablesMode";
        /// How often the rules are read again; 180s, 0 for never.
        nftables_refresh_interval: Duration | "", "nftablesRefreshInterval";
        // eBPF
        /// How programs hang on interfaces; Netkit.
        bpf_attach_type: BpfAttachType | "", "bpfAttachType";
        /// `all`: the connect-time load balancer logs too.
        bpf_ctlb_log_filter: String | "", "bpfCTLBLogFilter";
        /// Whether services are resolved at connect(); TCP.
        bpf_connect_time_load_balancing: ConnectTimeLoadBalancing | "", "bpfConnectTimeLoadBalancing";
        /// The same as yes or no. Superseded.
        bpf_connect_time_load_balancing_enabled: bool, "bpfConnectTimeLoadBalancingEnabled";
        /// What the cleaning of connection tracking logs; Off.
        bpf_conntrack_log_level: BpfConntrackLogLevel | "", "bpfConntrackLogLevel";
        /// Who cleans connection tracking; Auto.
        bpf_conntrack_mode: BpfConntrackMode | "", "bpfConntrackMode";
        /// How long connections live without a packet.
        bpf_conntrack_timeouts: BpfConntrackTimeouts, "bpfConntrackTimeouts";
        /// Clients that get no direct return.
        bpf_dsr_optout_cidrs: Vec<SubnetAddr>, "bpfDSROptoutCIDRs";
        /// Interfaces that lead to other hosts.
        bpf_data_iface_pattern: Pattern | "", "bpfDataIfacePattern";
        /// Interfaces without receive offload.
        bpf_disable_gro_for_ifaces: Pattern | "", "bpfDisableGROForIfaces";
        /// Whether others than root are kept from eBPF; true.
        bpf_disable_unprivileged: bool, "bpfDisableUnprivileged";
        /// Whether the dataplane is eBPF; false.
        bpf_enabled: bool, "bpfEnabled";
        /// How strictly sources are checked on the host's interfaces; Loose.
        bpf_enforce_rpf: EnforceRpf | "", "bpfEnforceRPF";
        /// Addresses of services left to the host.
        bpf_exclude_cidrs_from_nat: Vec<SubnetAddr>, "bpfExcludeCIDRsFromNAT";
        /// Size of the buffer for events, in MB; 1.
        bpf_export_buffer_size_mb: i64, "bpfExportBufferSizeMB";
        /// The mark of connections from outside to a local service; 0.
        bpf_ext_to_service_connmark: Whole<0, 0xffff_ffff>, "bpfExtToServiceConnmark";
        /// How packets from outside reach a backend on another node; Tunnel.
        bpf_external_service_mode: ExternalServiceMode | "", "bpfExternalServiceMode";
        /// Interfaces whose packets the kernel tracks all the same; docker+.
        bpf_force_track_packets_from_ifaces: Vec<InterfaceFilter>, "bpfForceTrackPacketsFromIfaces";
        /// Whether the kernel's connection tracking is passed by; false.
        bpf_host_conntrack_bypass: bool, "bpfHostConntrackBypass";
        /// Whether services are resolved for the host without connect(); Enabled.
        bpf_host_networked_nat_without_ctlb: Switch | "", "bpfHostNetworkedNATWithoutCTLB";
        /// How long fragments wait for the rest; 0s.
        bpf_ip_frag_timeout: Duration | "", "bpfIPFragTimeout";
        /// Whether fragments out of order are put together; true.
        bpf_ip_fragment_reassembly_enabled: bool, "bpfIPFragmentReassemblyEnabled";
        /// Whether the compiler's hardening stays strict; Auto.
        bpf_jit_hardening: BpfJitHardening | "", "bpfJITHardening";
        /// Without effect.
        bpf_kube_proxy_endpoint_slices_enabled: bool, "bpfKubeProxyEndpointSlicesEnabled";
        /// Where the health of the service proxy is told; 10256.
        bpf_kube_proxy_healthz_port: i64, "bpfKubeProxyHealthzPort";
        /// Whether kube-proxy's rules are removed; true.
        bpf_kube_proxy_iptables_cleanup_enabled: bool, "bpfKubeProxyIptablesCleanupEnabled";
        /// How often services are programmed at most; 1s.
        bpf_kube_proxy_min_sync_period: Duration | "", "bpfKubeProxyMinSyncPeriod";
        /// Interfaces that lead to other hosts and have no Ethernet.
        bpf_l3_iface_pattern: Pattern | "", "bpfL3IfacePattern";
        /// What is logged, as pcap filters by interface.
        bpf_log_filters: BTreeMap<String, String>, "bpfLogFilters";
        /// What programs log; Off.
        bpf_log_level: BpfLogLevel | "", "bpfLogLevel";
        /// Backends of a service with Maglev; 100.
        bpf_maglev_max_endpoints_per_service: Whole<1, 3000>, "bpfMaglevMaxEndpointsPerService";
        /// Services with Maglev; 100.
        bpf_maglev_max_services: Whole<1, 3000>, "bpfMaglevMaxServices";
        /// Connections tracked; 512000.
        bpf_map_size_conntrack: i64, "bpfMapSizeConntrack";
        /// Connections that wait to be cleaned; 100000.
        bpf_map_size_conntrack_cleanup_queue: Whole<1, { i64::MAX }>, "bpfMapSizeConntrackCleanupQueue";
        /// Whether more are made room for; DoubleIfFull.
        bpf_map_size_conntrack_scaling: ConntrackScaling | "", "bpfMapSizeConntrackScaling";
        /// Members of all IP sets; 1048576.
        bpf_map_size_ip_sets: i64, "bpfMapSizeIPSets";
        /// Interfaces; 1000.
        bpf_map_size_if_state: i64, "bpfMapSizeIfState";
        /// Clients with an affinity; 65536.
        bpf_map_size_nat_affinity: i64, "bpfMapSizeNATAffinity";
        /// Backends of services; 262144.
        bpf_map_size_nat_backend: i64, "bpfMapSizeNATBackend";
        /// Addresses and ports of services; 65536.
        bpf_map_size_nat_frontend: i64, "bpfMapSizeNATFrontend";
        /// Connections tracked for each processor; 0: `bpfMapSizeConntrack`.
        bpf_map_size_per_cpu_conntrack: i64, "bpfMapSizePerCpuConntrack";
        /// Routes; 262144.
        bpf_map_size_route: i64, "bpfMapSizeRoute";
        /// The source of the host's own packets in tunnels; TunnelAddress.
        bpf_overlay_host_source_ip: OverlayHostSource | "", "bpfOverlayHostSourceIP";
        /// Source ports to resolve collisions with; 20000:29999.
        bpf_psnat_ports: Port, "bpfPSNATPorts";
        /// Whether compiled policy is kept to look at; true.
        bpf_policy_debug_enabled: bool, "bpfPolicyDebugEnabled";
        /// Whether programs are timed; Disabled.
        bpf_profiling: Switch | "", "bpfProfiling";
        /// Whether packets skip the host's side of a workload's link; Enabled.
        bpf_redirect_to_peer: RedirectToPeer | "", "bpfRedirectToPeer";
        // XDP
        /// Whether XDP without a driver's help will do; false.
        generic_xdp_enabled: bool, "genericXDPEnabled";
        /// Whether untracked denials run in XDP; true.
        xdp_enabled: bool, "xdpEnabled";
        /// How often XDP's state is read again; 90s, 0 for never.
        xdp_refresh_interval: Duration | "", "xdpRefreshInterval";
        // Tunnels
        /// Whether there is an IPIP device; as the pools need.
        ipip_enabled: bool, "ipipEnabled";
        /// Its MTU; 0 for what fits.
        ipip_mtu: i64, "ipipMTU";
        /// Whether there is a VXLAN device; as the pools need.
        vxlan_enabled: bool, "vxlanEnabled";
        /// The MTU of VXLAN over IPv4; 0 for what fits.
        vxlan_mtu: i64, "vxlanMTU";
        /// The MTU of VXLAN over IPv6; 0 for what fits.
        vxlan_mtuv6: i64, "vxlanMTUV6";
        /// The UDP port of VXLAN; 4789.
        vxlan_port: i64, "vxlanPort";
        /// The network identifier of VXLAN; 4096.
        vxlan_vni: i64, "vxlanVNI";
        /// Whether IPv4 between nodes is encrypted; false.
        wireguard_enabled: bool, "wireguardEnabled";
        /// Whether IPv6 between nodes is encrypted; false.
        wireguard_enabled_v6: bool, "wireguardEnabledV6";
        /// Whether that holds for hosts' own packets too; false.
        wireguard_host_encryption_enabled: bool, "wireguardHostEncryptionEnabled";
        /// The IPv4 device; wireguard.cali.
        wireguard_interface_name: InterfaceName | "", "wireguardInterfaceName";
        /// The IPv6 device; wg-v6.cali.
        wireguard_interface_name_v6: InterfaceName | "", "wireguardInterfaceNameV6";
        /// How often a silent peer is called; 0s for never.
        wireguard_keep_alive: Duration | "", "wireguardKeepAlive";
        /// The UDP port over IPv4; 51820.
        wireguard_listening_port: Whole<1, 65535>, "wireguardListeningPort";
        /// The UDP port over IPv6; 51821.
        wireguard_listening_port_v6: Whole<1, 65535>, "wireguardListeningPortV6";
        /// The MTU over IPv4; 0 for what fits.
        wireguard_mtu: i64, "wireguardMTU";
        /// The MTU over IPv6; 0 for what fits.
        wireguard_mtuv6: i64, "wireguardMTUV6";
        /// The priority of the routing rule; 99.
        wireguard_routing_rule_priority: Whole<1, 32765>, "wireguardRoutingRulePriority";
        /// Whether the device has threads of its own; false.
        wireguard_threading_enabled: bool, "wireguardThreadingEnabled";
        // Flow logs
        /// Whether the collector logs all it sees; false.
        flow_logs_collector_debug_trace: bool, "flowLogsCollectorDebugTrace";
        /// How often flows are sent; 300s.
        flow_logs_flush_interval: Duration | "", "flowLogsFlushInterval";
        /// Where flows are sent.
        flow_logs_goldmane_server: String | "", "flowLogsGoldmaneServer";
        /// Whether a local socket gives flows; Disabled.
        flow_logs_local_reporter: Switch | "", "flowLogsLocalReporter";
        /// Whether live flows are judged again by policy as it is; Continuous.
        flow_logs_policy_evaluation_mode: PolicyEvaluationMode | "", "flowLogsPolicyEvaluationMode";
        // OpenStack, AWS and Windows
        /// The server for metadata of virtual machines; 127.0.0.1.
        metadata_addr: String | "", "metadataAddr";
        /// Its port; 8775.
        metadata_port: ListenPort, "metadataPort";
        /// The region of the node.
        openstack_region: Region | "", "openstackRegion";
        /// What to do about the source check of an EC2 instance; DoNothing.
        aws_src_dst_check: AwsSrcDstCheck | "", "awsSrcDstCheck";
        /// Whether rules of the Windows firewall are made; Disabled.
        windows_manage_firewall_rules: Switch | "", "windowsManageFirewallRules";
        // Tests
        /// Whether logging waits rather than drops; false.
        debug_disable_log_dropping: bool, "debugDisableLogDropping";
        /// Where profiles are served; localhost.
        debug_host: String | "", "debugHost";
        /// Where a memory profile is written on a signal.
        debug_memory_profile_path: String | "", "debugMemoryProfilePath";
        /// The port on which profiles are served; absent: none.
        debug_port: ListenPort, "debugPort";
        /// Makes the calculation hang, for tests.
        debug_simulate_calc_graph_hang_after: Duration | "", "debugSimulateCalcGraphHangAfter";
        /// Makes the dataplane slow, for tests.
        debug_simulate_dataplane_apply_delay: Duration | "", "debugSimulateDataplaneApplyDelay";
        /// Makes the dataplane hang, for tests.
        debug_simulate_dataplane_hang_after: Duration | "", "debugSimulateDataplaneHangAfter";
    }
}

/// The time that a part of the process has to show that it lives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct HealthTimeoutOverride {
    /// Of letters, digits, spaces, `_` and `-`.
    pub name: String,
    /// How long.
    pub timeout: Duration,
}

/// Numbers of routing tables, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct RouteTables<const MAX: i64> {
    /// Lowest.
    pub min: Whole<1, MAX>,
    /// Highest.
    pub max: Whole<1, MAX>,
}

/// A port of the host that stays open whatever policy says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct FailsafePort {
    /// TCP, UDP or SCTP; absent: TCP.
    #[serde(default, deserialize_with = "empty_is_none", skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// The port.
    pub port: u16,
    /// Only from (outbound: to) these addresses; absent: any.
    #[serde(default, deserialize_with = "empty_is_none", skip_serializing_if = "Option::is_none")]
    pub net: Option<SubnetAddr>,
}

impl FailsafePort {
    const fn tcp(port: u16) -> Self {
        Self { protocol: Some(Protocol::TCP), port, net: None }
    }

    const fn udp(port: u16) -> Self {
        Self { protocol: Some(Protocol::UDP), port, net: None }
    }

    /// SSH, DHCP, BGP, etcd, Typha and the API of Kubernetes: what stays open to a host that says
    /// nothing else.
    pub const INBOUND: [Self; 9] = [
        Self::tcp(22),
        Self::udp(68),
        Self::tcp(179),
        Self::tcp(2379),
        Self::tcp(2380),
        Self::tcp(5473),
        Self::tcp(6443),
        Self::tcp(6666),
        Self::tcp(6667),
    ];

    /// DNS, DHCP, BGP, etcd, Typha and the API of Kubernetes: what stays open from a host that
    /// says nothing else.
    pub const OUTBOUND: [Self; 9] = [
        Self::udp(53),
        Self::udp(67),
        Self::tcp(179),
        Self::tcp(2379),
        Self::tcp(2380),
        Self::tcp(5473),
        Self::tcp(6443),
        Self::tcp(6666),
        Self::tcp(6667),
    ];

    /// The protocol, TCP where none is given.
    pub fn protocol(&self) -> Protocol {
        self.protocol.unwrap_or(Protocol::TCP)
    }

    /// The peers, `None` for any.
    pub fn peers(&self) -> Option<Cidr> {
        self.net.map(|net| net.subnet())
    }
}

settings! {
    /// How long entries of connection tracking live without a packet.
    pub struct BpfConntrackTimeouts {
        /// Of any new connection, at least; 10s.
        creation_grace_period: BpfTimeout | "", "creationGracePeriod";
        /// After a SYN without an answer; 20s.
        tcp_syn_sent: BpfTimeout | "", "tcpSynSent";
        /// Of an idle TCP connection; 1h.
        tcp_established: BpfTimeout | "", "tcpEstablished";
        /// After both FINs; Auto.
        tcp_fins_seen: BpfTimeout | "", "tcpFinsSeen";
        /// After a RST; 40s.
        tcp_reset_seen: BpfTimeout | "", "tcpResetSeen";
        /// Of UDP; 60s.
        udp_timeout: BpfTimeout | "", "udpTimeout";
        /// Of other protocols; 10m.
        generic_timeout: BpfTimeout | "", "genericTimeout";
        /// Of ICMP; 5s.
        icmp_timeout: BpfTimeout | "", "icmpTimeout";
    }
}
