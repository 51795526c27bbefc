/* What all peers do alike: start DPDK without touching the machine, tell what is wrong, count time and memory. */
#ifndef MARGAY_PEERS_DPDK_H
#define MARGAY_PEERS_DPDK_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_malloc.h>
#include <rte_memory.h>

static inline void fail(const char *what, const char *detail)
{
	fprintf(stderr, PEER ": %s: %s\n", what, detail);
	exit(1);
}

static inline FILE *open_or_fail(const char *path)
{
	FILE *file = fopen(path, "r");
	if (!file)
		fail("cannot read", path);
	return file;
}

/* Makes room for one more item; `items` is reallocated at powers of two. */
static inline void *grow(void *items, size_t count, size_t size)
{
	if (count & (count - 1))
		return items;
	items = realloc(items, (count ? 2 * count : 1) * size);
	if (!items)
		fail("out of memory", "reading files");
	return items;
}

static inline uint64_t cpu_nanos(void)
{
	struct timespec now;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	return now.tv_sec * UINT64_C(1000000000) + now.tv_nsec;
}

static inline size_t allocated(void)
{
	struct rte_malloc_socket_stats stats;
	return rte_malloc_get_socket_stats(0, &stats) ? 0 : stats.heap_allocsz_bytes;
}

/* Without hugetlbfs, transparent huge pages: with small pages it would be slower. */
static inline int huge(const struct rte_memseg_list *list, void *arg)
{
	madvise(list->base_va, list->len, MADV_HUGEPAGE);
	return 0;
}

static inline void start_dpdk(void)
{
	char *eal[] = { PEER, "--no-huge", "-m", "3072", "--no-pci", "--no-telemetry", "--no-shconf",
		"--log-level=error", "--force-max-simd-bitwidth=512", "--lcores=0@0" };
	/* DPDK pins its threads; where we run is for whoever started us to say. */
	cpu_set_t cores;
	sched_getaffinity(0, sizeof cores, &cores);
	if (rte_eal_init(RTE_DIM(eal), eal) < 0)
		fail("cannot start DPDK", rte_strerror(rte_errno));
	sched_setaffinity(0, sizeof cores, &cores);
	rte_memseg_list_walk(huge, NULL);
}

#endif
