//! What settings of the dataplane may be set to by name.

use crate::model::scalar::choices;

choices! {
    /// On or off.
    Switch { /// On.
        Enabled, /// Off.
        Disabled }

    /// How much is written.
    LogSeverity(any case) { /// Everything.
        Trace, /// What helps to find faults.
        Debug, /// What happens.
        Info, /// What may need attention.
        Warning, /// What failed.
        Error, /// What ended the process.
        Fatal }

    /// What a reader of metrics must present.
    MetricsClientAuth { /// Nothing.
        NoClientCert, /// A certificate that is valid.
        RequireAndVerifyClientCert, /// A certificate.
        RequireAnyClientCert, /// Nothing, or a certificate that is valid.
        VerifyClientCertIfGiven }

    /// Where rules go among those of others.
    ChainInsertMode(any case) { /// Before them.
        Insert, /// After them.
        Append }

    /// What happens to packets from a workload to its own host, after the workload's policy.
    EndpointToHostAction(any case) { /// They are dropped.
        Drop, /// They reach the host.
        Accept, /// Policy of the host decides.
        Return }

    /// What Allow does.
    AllowAction(any case) { /// Nothing else is asked.
        Accept, /// The system's own rules are asked.
        Return }

    /// What Deny does.
    DenyAction(any case) { /// Nobody is told.
        Drop, /// The sender is told.
        Reject }

    /// What a local subnet's other hosts can reach.
    LocalSubnetL2Reachability { /// Nothing.
        Disabled, /// Workloads and addresses of services.
        PodsAndLoadBalancers }

    /// Destinations that natOutgoing leaves alone.
    NatOutgoingExclusions { /// Those in pools.
        IPPoolsOnly, /// Those in pools, and hosts.
        IPPoolsAndHostIPs }

    /// Which routes to other nodes are made without BGP.
    ProgramClusterRoutes { /// All.
        Enabled, /// None.
        Disabled, /// Those through IPIP.
        EnabledIPIPOnly, /// Those without a tunnel.
        EnabledNoEncapOnly }

    /// What routes follow from.
    RouteSource(any case) { /// The endpoints.
        WorkloadIPs, /// The blocks of addresses.
        CalicoIPAM }

    /// What happens to packets to services that nobody has.
    ServiceLoopPrevention { /// Nobody is told.
        Drop, /// The sender is told.
        Reject, /// They are forwarded.
        Disabled }

    /// Whether workloads may ask for more sources.
    WorkloadSourceSpoofing { /// No.
        Disabled, /// Yes, for any.
        Any }

    /// Kinds of iptables.
    IptablesBackend { /// Whichever is in use.
        Auto, /// The old one.
        Legacy, /// The one over nftables.
        Nft = "NFT" }

    /// Whether flows are offloaded.
    FlowTableOffload { /// All that can be.
        All, /// None.
        Disabled }

    /// Whether nftables is used.
    NftablesMode { /// If kube-proxy does.
        Auto, /// Yes.
        Enabled, /// No.
        Disabled }

    /// How eBPF programs hang on interfaces.
    BpfAttachType { /// By a queueing discipline.
        Tc = "TC", /// By a link.
        Tcx = "TCX", /// By the device pair itself.
        Netkit }

    /// Whether services are resolved at connect().
    ConnectTimeLoadBalancing { /// Those over TCP.
        Tcp = "TCP", /// All.
        Enabled, /// None.
        Disabled }

    /// What the cleaning of connection tracking logs.
    BpfConntrackLogLevel { /// Nothing.
        Off, /// What helps to find faults.
        Debug }

    /// Who cleans connection tracking.
    BpfConntrackMode { /// A program if there can be one.
        Auto, /// The process.
        Userspace, /// A program.
        BPFProgram }

    /// How strictly sources are checked.
    EnforceRpf(any case) { /// Not at all.
        Disabled, /// They must come by the way that leads back.
        Strict, /// Some way must lead back.
        Loose }

    /// How packets from outside reach a backend on another node.
    ExternalServiceMode(any case) { /// Through a tunnel, both ways.
        Tunnel, /// Through a tunnel, and directly back.
        Dsr = "DSR" }

    /// Whether the compiler's hardening stays strict.
    BpfJitHardening { /// Unless it costs too much.
        Auto, /// Yes.
        Strict }

    /// What programs log.
    BpfLogLevel(any case) { /// Nothing.
        Off, /// What happens.
        Info, /// Each packet.
        Debug }

    /// Whether more connections are made room for.
    ConntrackScaling(any case) { /// No.
        Disabled, /// Twice as many, when the room is used up.
        DoubleIfFull }

    /// The source of the host's own packets in tunnels.
    OverlayHostSource { /// The host's.
        HostAddress, /// The tunnel's.
        TunnelAddress }

    /// Whether packets skip the host's side of a workload's link.
    RedirectToPeer { /// From every interface.
        Enabled, /// No.
        Disabled, /// From interfaces with Ethernet.
        L2Only }

    /// Whether live flows are judged again.
    PolicyEvaluationMode { /// No.
        None, /// Yes.
        Continuous }

    /// The source check of an EC2 instance.
    AwsSrcDstCheck { /// It stays as it is.
        DoNothing, /// It is switched on.
        Enable, /// It is switched off.
        Disable }
}
