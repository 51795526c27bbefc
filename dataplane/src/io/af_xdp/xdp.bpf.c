// SPDX-License-Identifier: Apache-2.0
//
// Which frames of an interface are the dataplane's. Two programs, one for each role; the
// sockets stand in `sockets` under the receive queue that they are bound to.

#include <linux/bpf.h>
#include <linux/if_ether.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "kernels.h"

#define MAX_VLAN_TAGS 2

// Whose a destination is, as `ours4` and `ours6` say.
#define WORKLOADS 1
#define HOSTS 2

// What is served at a port, as `served` says.
#define TUNNEL 2

#define ICMP 1
#define IPIP 4
#define TCP 6
#define UDP 17
#define SCTP 132

#define ICMP_HEADER 8

struct prefix4 {
	__u32 length;
	__u8 address[4];
};

struct prefix6 {
	__u32 length;
	__u8 address[16];
};

// The loader sets the number of receive queues.
struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} sockets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, struct prefix4);
	__type(value, __u8);
} ours4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, struct prefix6);
	__type(value, __u8);
} ours6 SEC(".maps");

// 1: a host endpoint protects the interface. Its host's addresses stand in `ours4` and `ours6` then.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} guarded SEC(".maps");

// An address of the host, IPv4 mapped, a port and a protocol at which a service is served, or a
// tunnel ends.
struct socket {
	__u8 address[16];
	__u8 port[2];
	__u8 protocol;
	__u8 zero;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 262144);
	__type(key, struct socket);
	__type(value, __u8);
} served SEC(".maps");

// What the segment at `at`, which may begin anywhere, is for at the host's address that `key` has:
// nothing of ours, a service or a tunnel.
static __always_inline int what_is_served(struct socket *key, __u8 protocol, __u8 *at, void *end)
{
	if (protocol != TCP && protocol != UDP && protocol != SCTP && protocol != IPIP)
		return 0;
	if ((void *)(at + 4) > end)
		return 0;
	key->protocol = protocol;
	if (protocol != IPIP)
		__builtin_memcpy(key->port, at + 2, sizeof(key->port));
	__u8 *what = bpf_map_lookup_elem(&served, key);

	return what ? *what : 0;
}

// Whether the ICMP message at `at` says that a tunnel's packet, which this host sent, was larger than
// its way takes. The kernel knows nothing of our tunnels.
static __always_inline int is_tunnels_path4(__u8 *at, void *end)
{
	struct socket from = { .address = { [10] = 0xff, [11] = 0xff } };
	__u8 *quote = at + ICMP_HEADER;

	if ((void *)(quote + IP4_HEADER) > end || at[0] != 3 || at[1] != 4)
		return 0;
	__builtin_memcpy(from.address + 12, quote + 12, 4);
	return what_is_served(&from, quote[9], quote + (quote[0] & 0xf) * 4, end) == TUNNEL;
}

static __always_inline int is_tunnels_path6(__u8 *at, void *end)
{
	struct socket from = {};
	__u8 *quote = at + ICMP_HEADER;

	if ((void *)(quote + IP6_HEADER) > end || at[0] != 2)
		return 0;
	__builtin_memcpy(from.address, quote + 8, sizeof(from.address));
	return what_is_served(&from, quote[6], quote + IP6_HEADER, end) == TUNNEL;
}

static __always_inline int is_guarded(void)
{
	__u32 first = 0;
	__u32 *on = bpf_map_lookup_elem(&guarded, &first);

	return on && *on;
}

// Without a socket the frame is dropped: what is for workloads never takes a way around policy.
static __always_inline int to_socket(struct xdp_md *ctx)
{
	return bpf_redirect_map(&sockets, ctx->rx_queue_index, XDP_DROP);
}

// The host's end of a workload's veth: everything is ours.
SEC("xdp")
int workload(struct xdp_md *ctx)
{
	return to_socket(ctx);
}

// An interface that the host uses too: only packets to our prefixes are ours, and, while it is
// guarded, those to the host, save what the kernel does for its neighbours and groups. Other VLANs
// than ours are the kernel's.
SEC("xdp")
int uplink(struct xdp_md *ctx)
{
	void *end = (void *)(long)ctx->data_end;
	struct ethhdr *ethernet = (void *)(long)ctx->data;
	__u8 *at = (void *)(ethernet + 1);

	if ((void *)at > end)
		return XDP_PASS;
	int group = ethernet->h_dest[0] & 1;
	__be16 type = ethernet->h_proto;
	__u16 vlan = 0;

#pragma unroll
	for (int tag = 0; tag < MAX_VLAN_TAGS; tag++) {
		if (type != bpf_htons(ETH_P_8021Q) && type != bpf_htons(ETH_P_8021AD))
			break;
		if ((void *)(at + 4) > end)
			return XDP_PASS;
		// Number 0 is no VLAN: the kernel takes the frame as if it had no tag.
		vlan |= bpf_ntohs(*(__be16 *)at) & 0xfff;
		type = *(__be16 *)(at + 2);
		at += 4;
	}

	if (type == bpf_htons(ETH_P_IP)) {
		struct prefix4 key = { .length = 32 };

		if ((void *)(at + IP4_HEADER) > end)
			return XDP_PASS;
		__builtin_memcpy(key.address, at + 16, sizeof(key.address));
		__u8 *whose = bpf_map_lookup_elem(&ours4, &key);
		if (whose && *whose == WORKLOADS)
			return to_socket(ctx);
		if (!vlan && (whose || (group && is_guarded())) && !is_kernels4(at[9]))
			return to_socket(ctx);
		// Later fragments have no ports, and are the kernel's.
		if (!((at[6] & 0x1f) | at[7])) {
			struct socket to = { .address = { [10] = 0xff, [11] = 0xff } };

			__builtin_memcpy(to.address + 12, at + 16, 4);
			if (what_is_served(&to, at[9], at + (at[0] & 0xf) * 4, end))
				return to_socket(ctx);
			if (at[9] == ICMP && is_tunnels_path4(at + (at[0] & 0xf) * 4, end))
				return to_socket(ctx);
		}
	} else if (type == bpf_htons(ETH_P_IPV6)) {
		struct prefix6 key = { .length = 128 };
		__u8 next, option_next = 0, kind = 0;

		if ((void *)(at + IP6_HEADER) > end)
			return XDP_PASS;
		__builtin_memcpy(key.address, at + 24, sizeof(key.address));
		__u8 *whose = bpf_map_lookup_elem(&ours6, &key);
		if (whose && *whose == WORKLOADS)
			return to_socket(ctx);
		struct socket to = {};

		__builtin_memcpy(to.address, at + 24, sizeof(to.address));
		if (what_is_served(&to, at[6], at + IP6_HEADER, end))
			return to_socket(ctx);
		if (at[6] == ICMP6 && is_tunnels_path6(at + IP6_HEADER, end))
			return to_socket(ctx);
		if (vlan || (!whose && !(group && is_guarded())))
			return XDP_PASS;
		next = at[6];
		at += IP6_HEADER;
		if (next == HOP_BY_HOP && (void *)(at + OPTIONS) <= end && !at[1]) {
			option_next = at[0];
			at += OPTIONS;
		}
		if ((void *)(at + 1) <= end)
			kind = at[0];
		if (!is_kernels6(next, option_next, kind))
			return to_socket(ctx);
	}
	return XDP_PASS;
}

char _license[] SEC("license") = "Apache-2.0";
