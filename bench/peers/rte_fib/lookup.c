/*
 * Looks addresses up in a table of routes, with DPDK's rte_fib (dir24_8, two bytes a next hop) or
 * rte_fib6 (trie, four bytes). A peer for measurements: it is driven over standard input, so that
 * it builds once and then takes turns with whoever it is compared with.
 *
 *   rte_fib 4|6 ROUTES ADDRESSES...
 *
 * ROUTES holds a prefix and a number a line, each file of ADDRESSES an address a line.
 * Commands, a line each:
 *   run FILE BATCH MILLISECONDS   looks up the addresses of a file, from 0, again and again
 *   answers FILE                  the number each address led to; -1: none
 *   change FILE                   routes as in ROUTES, added or replaced one by one
 *
 * Every answer is a line of JSON; the first, without a command, tells of the build.
 */
#include "../dpdk.h"

#include <arpa/inet.h>
#include <stdbool.h>

#include <rte_fib.h>
#include <rte_fib6.h>

enum { MAX_BATCH = 256, MAX_FILES = 8 };
/* A number that no route has. */
enum { NONE4 = 0x7fff, NONE6 = 0x7fffffff };

struct route {
	uint8_t addr[16];
	uint32_t value;
	uint8_t depth;
};

struct addresses {
	uint32_t count;
	uint32_t *v4;
	uint8_t (*v6)[16];
};

static bool six;
static struct rte_fib *fib4;
static struct rte_fib6 *fib6;

static struct route *read_routes(const char *path, uint32_t *count)
{
	FILE *file = open_or_fail(path);
	struct route *routes = NULL;
	char line[128];
	for (*count = 0; fgets(line, sizeof line, file); ++*count) {
		routes = grow(routes, *count, sizeof *routes);
		struct route *route = &routes[*count];
		char text[64];
		unsigned depth;
		if (sscanf(line, "%63[^/]/%u %" SCNu32, text, &depth, &route->value) != 3 ||
		    inet_pton(six ? AF_INET6 : AF_INET, text, route->addr) != 1)
			fail("no route", line);
		route->depth = depth;
	}
	fclose(file);
	return routes;
}

static struct addresses read_addresses(const char *path)
{
	FILE *file = open_or_fail(path);
	struct addresses all = { 0 };
	char line[128];
	for (; fgets(line, sizeof line, file); ++all.count) {
		line[strcspn(line, "\n")] = 0;
		uint8_t addr[16];
		if (inet_pton(six ? AF_INET6 : AF_INET, line, addr) != 1)
			fail("no address", line);
		if (six) {
			all.v6 = grow(all.v6, all.count, sizeof *all.v6);
			memcpy(all.v6[all.count], addr, 16);
		} else {
			all.v4 = grow(all.v4, all.count, sizeof *all.v4);
			memcpy(&all.v4[all.count], addr, 4);
			all.v4[all.count] = ntohl(all.v4[all.count]);
		}
	}
	fclose(file);
	return all;
}

static void create(uint32_t routes)
{
	if (six) {
		struct rte_fib6_conf conf = {
			.type = RTE_FIB6_TRIE,
			.default_nh = NONE6,
			.max_routes = 2 * routes + 1024,
			.trie = { .nh_sz = RTE_FIB6_TRIE_4B, .num_tbl8 = 300000 },
		};
		fib6 = rte_fib6_create("peer", 0, &conf);
		if (!fib6)
			fail("cannot create", rte_strerror(rte_errno));
		if (rte_fib6_select_lookup(fib6, RTE_FIB6_LOOKUP_TRIE_VECTOR_AVX512))
			fputs("rte_fib: no AVX-512: the default lookup is used\n", stderr);
	} else {
		struct rte_fib_conf conf = {
			.type = RTE_FIB_DIR24_8,
			.default_nh = NONE4,
			.max_routes = 2 * routes + 1024,
			.dir24_8 = { .nh_sz = RTE_FIB_DIR24_8_2B, .num_tbl8 = 32767 },
		};
		fib4 = rte_fib_create("peer", 0, &conf);
		if (!fib4)
			fail("cannot create", rte_strerror(rte_errno));
		if (rte_fib_select_lookup(fib4, RTE_FIB_LOOKUP_DIR24_8_VECTOR_AVX512))
			fputs("rte_fib: no AVX-512: the default lookup is used\n", stderr);
	}
}

static void add(const struct route *routes, uint32_t count)
{
	for (uint32_t at = 0; at < count; ++at) {
		const struct route *route = &routes[at];
		uint32_t v4;
		memcpy(&v4, route->addr, 4);
		int error = six ? rte_fib6_add(fib6, route->addr, route->depth, route->value)
				: rte_fib_add(fib4, ntohl(v4), route->depth, route->value);
		if (error)
			fail("cannot add a route", rte_strerror(-error));
	}
}

static void look_up(struct addresses *all, uint64_t *answers, uint32_t batch)
{
	for (uint32_t at = 0; at < all->count; at += batch) {
		uint32_t left = all->count - at;
		uint32_t n = left < batch ? left : batch;
		if (six)
			rte_fib6_lookup_bulk(fib6, all->v6 + at, answers + at, n);
		else
			rte_fib_lookup_bulk(fib4, all->v4 + at, answers + at, n);
	}
}

int main(int argc, char **argv)
{
	if (argc < 4 || argc > 3 + MAX_FILES)
		fail("usage", "rte_fib 4|6 ROUTES ADDRESSES...");
	six = argv[1][0] == '6';
	start_dpdk();

	uint32_t count;
	struct route *routes = read_routes(argv[2], &count);
	struct addresses files[MAX_FILES];
	unsigned known = argc - 3;
	uint32_t most = 0;
	for (unsigned at = 0; at < known; ++at) {
		files[at] = read_addresses(argv[3 + at]);
		most = files[at].count > most ? files[at].count : most;
	}
	uint64_t *answers = calloc(most + 1, sizeof *answers);
	if (!answers)
		fail("out of memory", "answers");
	size_t before = allocated();
	uint64_t start = cpu_nanos();
	create(count);
	add(routes, count);
	printf("{\"routes\": %u, \"build_seconds\": %.6f, \"bytes\": %zu}\n", count, (cpu_nanos() - start) / 1e9,
		allocated() - before);
	setvbuf(stdout, NULL, _IOLBF, 0);
	fflush(stdout);

	char line[512], path[400];
	unsigned file, batch, millis;
	while (fgets(line, sizeof line, stdin)) {
		if (sscanf(line, "answers %u", &file) == 1 && file < known) {
			look_up(&files[file], answers, MAX_BATCH);
			printf("{\"answers\": [");
			for (uint32_t at = 0; at < files[file].count; ++at) {
				bool none = answers[at] == (six ? NONE6 : NONE4);
				printf("%s%" PRId64, at ? ", " : "", none ? -1 : (int64_t)answers[at]);
			}
			printf("]}\n");
		} else if (sscanf(line, "run %u %u %u", &file, &batch, &millis) == 3 && file < known &&
			   batch >= 1 && batch <= MAX_BATCH) {
			uint64_t done = 0, from = cpu_nanos(), end;
			do {
				look_up(&files[file], answers, batch);
				done += files[file].count;
			} while ((end = cpu_nanos()) - from < millis * UINT64_C(1000000));
			printf("{\"nanos\": %.3f}\n", (double)(end - from) / done);
		} else if (sscanf(line, "change %399s", path) == 1) {
			uint32_t changes;
			struct route *changed = read_routes(path, &changes);
			uint64_t from = cpu_nanos();
			add(changed, changes);
			printf("{\"nanos\": %.3f}\n", (double)(cpu_nanos() - from) / changes);
			free(changed);
		} else {
			fail("no command", line);
		}
		fflush(stdout);
	}
	return 0;
}
