// SPDX-License-Identifier: Apache-2.0
//
// A workload's packets go by way of a tap to the dataplane and come back from there, super-frames whole and checksums
// as the stacks left them.
//
//   workload ─► its link's ingress: from_workload ─► tap ─► dataplane
//   dataplane ─► tap ingress: to_workload ─► workload
//
// Nothing else of the host sees them.

#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

// The loader writes it, before anything is attached.
volatile struct {
	__u32 link;
	__u32 tap;
	// The link is a veth: its other end can be reached without a queue between.
	__u32 is_veth;
} ends;

// On the workload's link, inwards.
SEC("classifier")
int from_workload(struct __sk_buff *skb)
{
	(void)skb;
	return bpf_redirect(ends.tap, 0);
}

// On the tap, inwards: what the dataplane let pass.
SEC("classifier")
int to_workload(struct __sk_buff *skb)
{
	(void)skb;
	return ends.is_veth ? bpf_redirect_peer(ends.link, 0) : bpf_redirect(ends.link, 0);
}

char _license[] SEC("license") = "Apache-2.0";
