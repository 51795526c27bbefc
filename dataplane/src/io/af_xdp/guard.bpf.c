// SPDX-License-Identifier: Apache-2.0
//
// The host's own packets on a protected uplink go by way of a tap to the dataplane and come back
// from there. Its sockets, routes and firewall see the uplink as if nothing stood between.
//
//   stack ─► uplink egress: from_host ─► tap ─► dataplane ─► AF_XDP on the uplink
//   AF_XDP on the uplink ─► dataplane ─► tap ingress: to_host ─► uplink ingress ─► stack
//
// What AF_XDP sends passes no queueing discipline, and what is redirected to the uplink's ingress
// meets no XDP program in the driver: nothing goes round.

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/pkt_cls.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "kernels.h"

// The loader writes it, before anything is attached.
volatile struct {
	__u32 uplink;
	__u32 tap;
} ends;

struct address {
	__u8 bytes[16];
};

// The host's addresses; of IPv4 in mapped form.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, struct address);
	__type(value, __u8);
} addresses SEC(".maps");

// On the uplink, outwards. Ours is what the host sends: what its stack made, and what left another
// interface of it under an address of the host's. What it merely routes for others is not.
SEC("classifier")
int from_host(struct __sk_buff *skb)
{
	struct address source = {};
	// Of a VLAN on the uplink, which is another interface of the host's.
	if (skb->vlan_present)
		return TC_ACT_UNSPEC;
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		__u8 protocol;

		if (bpf_skb_load_bytes(skb, ETH_HLEN + 9, &protocol, 1) || is_kernels4(protocol))
			return TC_ACT_UNSPEC;
		source.bytes[10] = 0xff;
		source.bytes[11] = 0xff;
		if (bpf_skb_load_bytes(skb, ETH_HLEN + 12, source.bytes + 12, 4))
			return TC_ACT_UNSPEC;
	} else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		__u8 next, option[2] = {}, kind = 0;
		__u32 at = ETH_HLEN + IP6_HEADER;

		if (bpf_skb_load_bytes(skb, ETH_HLEN + 6, &next, 1) ||
		    bpf_skb_load_bytes(skb, ETH_HLEN + 8, source.bytes, sizeof(source.bytes)))
			return TC_ACT_UNSPEC;
		if (next == HOP_BY_HOP && !bpf_skb_load_bytes(skb, at, option, 2) && !option[1])
			at += OPTIONS;
		if (!bpf_skb_load_bytes(skb, at, &kind, 1) && is_kernels6(next, option[0], kind))
			return TC_ACT_UNSPEC;
	} else {
		return TC_ACT_UNSPEC;
	}
	if (skb->ingress_ifindex && !bpf_map_lookup_elem(&addresses, &source))
		return TC_ACT_UNSPEC;
	return bpf_redirect(ends.tap, 0);
}

// On the tap, inwards: what the dataplane let pass.
SEC("classifier")
int to_host(struct __sk_buff *skb)
{
	(void)skb;
	return bpf_redirect(ends.uplink, BPF_F_INGRESS);
}

char _license[] SEC("license") = "Apache-2.0";
