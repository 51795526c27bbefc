// SPDX-License-Identifier: Apache-2.0
//
// What stays the kernel's also where a host endpoint protects an interface: how it finds its
// neighbours, routers and groups. ARP is not IP and is never looked at.

#define IP4_HEADER 20
#define IP6_HEADER 40

#define IGMP 2
#define ICMP6 58

// An IPv6 header of options of the least length, as multicast listener discovery carries one.
#define HOP_BY_HOP 0
#define OPTIONS 8

// Group membership.
static __always_inline int is_kernels4(__u8 protocol)
{
	return protocol == IGMP;
}

// Multicast listener discovery (130 to 132, 143) and neighbour discovery (133 to 137), without
// an extension header or behind one of options.
static __always_inline int is_kernels6(__u8 next, __u8 option_next, __u8 kind)
{
	if (next != ICMP6 && !(next == HOP_BY_HOP && option_next == ICMP6))
		return 0;
	return (kind >= 130 && kind <= 137) || kind == 143;
}
