//! Why a packet was dropped: every reason, its name and its sentence.

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $name:literal: $sentence:literal,)+) => {
        /// Why a packet was dropped. A packet is never dropped without one.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum DropReason {
            #[default]
            $(#[doc = $sentence] $variant,)+
        }

        impl DropReason {
            /// Every reason, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// Short and stable: `policy-denied`.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// What happened, and where it helps what to do, for people.
            pub const fn sentence(self) -> &'static str {
                match self { $(Self::$variant => $sentence,)+ }
            }
        }
    };
}

reasons! {
    Unspecified = "unspecified": "A node sent the packet to drop and gave no reason: a bug, please report it.",
    Truncated = "truncated": "The frame ends before the headers that it announces.",
    NotForUs = "not-for-us": "The frame's destination address is another station's.",
    UnknownEtherType = "unknown-ether-type": "Neither IPv4, IPv6 nor ARP.",
    UnknownVlan = "unknown-vlan": "The frame carries a VLAN tag that no interface is configured for.",
    BadIpVersion = "bad-ip-version": "The IP version field disagrees with the frame's type.",
    BadIpHeader = "bad-ip-header": "The IP header's length fields contradict each other or the frame.",
    BadIpChecksum = "bad-ip-checksum": "The IPv4 header checksum is wrong.",
    SourceRoute = "source-route": "The packet asks for source routing, which is never honoured (RFC 7126, RFC 5095).",
    Martian = "martian": "The source or destination is an address that must not appear on a wire.",
    Multicast = "multicast": "Multicast and broadcast are not forwarded.",
    Fragment = "fragment": "A later fragment of a packet whose first one was refused, or whose flow is gone.",
    ExtensionHeaders = "extension-headers": "The IPv6 extension headers are too many, too long, or in a forbidden order.",
    BadL4Header = "bad-l4-header": "The TCP, UDP, SCTP or ICMP header is cut short or contradicts itself.",
    SpoofedSource = "spoofed-source": "A workload sent from an address that is not its own.",
    EncapFromWorkload = "encap-from-workload": "A workload sent VXLAN or IPIP, which only nodes may: see allowVXLANPacketsFromWorkloads and allowIPIPPacketsFromWorkloads.",
    BadArp = "bad-arp": "An ARP packet that is malformed, or that claims an address it must not.",
    BadNd = "bad-nd": "A neighbour discovery packet that fails the checks of RFC 4861.",
    RouterAdvertFromWorkload = "router-advert-from-workload": "A workload sent a router advertisement.",
    NotAnswered = "not-answered": "An ARP or neighbour request for an address that is not ours to answer for.",
    ConntrackInvalid = "conntrack-invalid": "The packet belongs to no flow and cannot begin one, or contradicts its flow's state.",
    FlowTableFull = "flow-table-full": "No room for a new flow: all are established. Raise --flows or find who opens so many.",
    NoRoute = "no-route": "No route to the destination.",
    Blackhole = "blackhole": "The destination is in a pool of workloads or a block of services, but nobody has the address.",
    EndpointToHost = "endpoint-to-host": "A workload spoke to its own host, and DefaultEndpointToHostAction is Drop.",
    NoHostPort = "no-host-port": "The packet is for this host, and the dataplane was given no tap to hand it over (--host-tap).",
    InterfaceDown = "interface-down": "The interface the packet should leave by is down or not attached.",
    EndpointInactive = "endpoint-inactive": "The workload is switched off: nothing passes in or out.",
    PolicyDenied = "policy-denied": "Policy denies it: see the rule that decided.",
    UntrackedDenied = "untracked-denied": "A host endpoint's doNotTrack policy denies it: see the rule that decided.",
    PreDnatDenied = "pre-dnat-denied": "A host endpoint's preDNAT policy denies it: see the rule that decided.",
    ForwardDenied = "forward-denied": "A host endpoint's applyOnForward policy denies forwarding it: see the rule that decided.",
    HostDenied = "host-denied": "A host endpoint's policy or profiles deny it to or from this host: see the rule that decided.",
    TtlExceeded = "ttl-exceeded": "The time to live, or hop limit, ran out here.",
    TooBig = "too-big": "The packet is larger than the way out takes, and must not or cannot be fragmented.",
    NeighbourUnresolved = "neighbour-unresolved": "The next hop did not answer ARP or neighbour discovery in time.",
    NeighbourQueueFull = "neighbour-queue-full": "Too many packets already wait for an answer to ARP or neighbour discovery.",
    HandoffFull = "handoff-full": "The ring to the worker that owns the flow is full: that worker is overloaded.",
    TxFull = "tx-full": "The interface's transmit ring is full: its receiver is slower than we are.",
    TxOversized = "tx-oversized": "The packet is longer, or shorter, than what the device can send.",
    NoFrames = "no-frames": "No free frame was left for a packet of our own. Raise --frames.",
    DeviceGone = "device-gone": "The packet was on its way to an interface that was removed.",
    NoBackend = "no-backend": "The service has no backend that is ready, on any node: the client is told that its port is closed.",
    NoLocalBackend = "no-local-backend": "The service's traffic policy is Local, or topology keeps it near, and no backend for it is on this node.",
    NoServicePort = "no-service-port": "The address is a service's, and no port of the service is behind this one.",
    ServiceSourceRange = "service-source-range": "The service's loadBalancerSourceRanges do not hold the client.",
    InjectedFault = "injected-fault": "Dropped on purpose, by the fault-injecting device of a test.",
    BadFragment = "bad-fragment": "The fragment's offset or length is impossible, or it is part of a message that is never cut.",
    FragmentTiny = "fragment-tiny": "The first fragment lacks part of the transport header, or a later one begins within it (RFC 1858, RFC 3128).",
    FragmentOverlap = "fragment-overlap": "Fragments of one packet overlap or contradict each other: from then on none passes (RFC 5722).",
    FragmentDuplicate = "fragment-duplicate": "The same fragment came before.",
    FragmentTimeout = "fragment-timeout": "The first fragment, which alone carries the ports, did not come in time.",
    QuotaFlows = "quota-flows": "A workload at one of the ends has as many flows as its quota allows (maxConnections).",
    QuotaRate = "quota-rate": "A workload at one of the ends opens flows, or is opened flows to, faster than its quota allows.",
    FragmentLimit = "fragment-limit": "The packet is in too many fragments, or fragments of too many packets wait for their first.",
    TcpOutOfWindow = "tcp-out-of-window": "The TCP segment's numbers are none that its sender can have sent now: old, or forged.",
    NatExhausted = "nat-exhausted": "No port is free to leave this node with towards this destination: widen natPortRange, or find who opens so many.",
    NoNatAddress = "no-nat-address": "The packet should leave with an address of this node, and the way out has none of its family: add one, or set natOutgoingAddress.",
    NoNatReturn = "nat-no-return": "The packet should leave with an address of this node, and the answers would not come here: the way out is a VLAN, or its host traffic cannot be led by way of the dataplane yet (see `margayctl dp interfaces`).",
    Untranslatable = "untranslatable": "The ports of an SCTP packet in fragments cannot be translated: its checksum covers what is not here.",
    BadTunnel = "bad-tunnel": "A tunnel's packet whose headers contradict themselves, or that ends before the packet inside.",
    TunnelFromStranger = "tunnel-from-stranger": "A tunnel's packet from an address that is no node's: see externalNodesList for nodes of other clusters.",
    TunnelFragment = "tunnel-fragment": "A tunnel's packet in fragments, which nodes do not put together: the sender's tunnel is set to more than the way takes.",
    TunnelCongestion = "tunnel-congestion": "There was congestion on a tunnel's way, and a loss is the only news that the sender inside understands (RFC 6040).",
    VxlanNetwork = "vxlan-network": "A VXLAN packet for another network than the cluster's (vxlanVNI).",
    SctpWrongTag = "sctp-wrong-tag": "The SCTP packet's verification tag is not the one its sender was given: old, or forged.",
    RouteUnreachable = "route-unreachable": "The route to the destination is of the kind unreachable: the sender is told that nobody is there.",
    RouteProhibited = "route-prohibited": "The route to the destination is of the kind prohibit: the sender is told that it is forbidden.",
    WireguardNoSession = "wireguard-no-session": "The node at the tunnel's other end did not agree on a session in time: it is down, out of reach, or has another key (see `margayctl wg show`).",
    WireguardQueueFull = "wireguard-queue-full": "Too many packets already wait for a session with the node at the tunnel's other end.",
    WireguardUnknownSession = "wireguard-unknown-session": "A WireGuard packet of a session that is over or never was: old, or forged.",
    WireguardForged = "wireguard-forged": "A WireGuard packet whose tag is wrong: it was changed on its way, or forged.",
    WireguardReplayed = "wireguard-replayed": "A WireGuard packet that came before, or is too old to tell.",
    WireguardSource = "wireguard-source": "The packet inside a WireGuard packet is from an address that is not routed to the node that sent it.",
    WireguardOverload = "wireguard-overload": "More WireGuard handshakes came than the control thread takes at a time.",
    NoLargeFrames = "no-large-frames": "No large buffer was left for a packet longer than a frame. Raise --large-frames.",
}

impl DropReason {
    /// A rule, or a default of policy, decided.
    pub const fn is_policy(self) -> bool {
        use DropReason::{ForwardDenied, HostDenied, PolicyDenied, PreDnatDenied, UntrackedDenied};
        matches!(self, PolicyDenied | UntrackedDenied | PreDnatDenied | ForwardDenied | HostDenied)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_numbers_dense() {
        let mut names: Vec<_> = DropReason::ALL.iter().map(|r| r.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), DropReason::ALL.len());
        for (number, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, number);
            assert!(reason.sentence().ends_with('.'), "{reason:?}");
        }
    }
}
