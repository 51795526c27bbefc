/*
 * Looks up flow keys in DPDK's rte_hash, 64 at a time, as many as it takes. A peer for
 * measurements: it is driven over standard input, so that it fills its table once and then takes
 * turns with whoever it is compared with.
 *
 *   rte_hash BYTES KEYS ORDER...
 *
 * KEYS holds keys, 16 bytes apart, of which the first BYTES count; each ORDER is a list of 32-bit
 * numbers of keys, as this machine writes them. For keys of 16 bytes rte_hash has a comparison of
 * its own.
 *
 * Commands, a line each:
 *   run ORDER MILLISECONDS   looks up the keys of that order (from 0), again and again
 *
 * Every answer is a line of JSON; the first, without a command, tells of the table.
 */
#include "../dpdk.h"

#include <sys/stat.h>

#include <rte_hash.h>
#include <rte_hash_crc.h>

struct key {
	uint8_t bytes[16];
};

struct order {
	const struct key **keys;
	struct key *copies;
	uint32_t *numbers;
	uint32_t count;
};

static void *read_all(const char *path, size_t size, uint32_t *count)
{
	struct stat about;
	FILE *file = fopen(path, "r");
	if (!file || stat(path, &about))
		fail("cannot read", path);
	*count = about.st_size / size;
	void *items = aligned_alloc(2 << 20, (about.st_size + (2 << 20)) & ~(size_t)((2 << 20) - 1));
	if (!items)
		fail("out of memory", path);
	madvise(items, about.st_size, MADV_HUGEPAGE);
	if (fread(items, size, *count, file) != *count)
		fail("cannot read", path);
	fclose(file);
	return items;
}

static struct order read_order(const char *path, const struct key *keys, uint32_t key_count)
{
	struct order order;
	order.numbers = read_all(path, sizeof *order.numbers, &order.count);
	order.copies = calloc(order.count, sizeof *order.copies);
	order.keys = calloc(order.count, sizeof *order.keys);
	if (!order.copies || !order.keys || order.count < RTE_HASH_LOOKUP_BULK_MAX)
		fail("no order to look keys up in", path);
	for (uint32_t at = 0; at < order.count; ++at) {
		if (order.numbers[at] >= key_count)
			fail("there is no such key", path);
		order.copies[at] = keys[order.numbers[at]];
		order.keys[at] = &order.copies[at];
	}
	return order;
}

/* Looks each key up; returns how many were not found, or not where they were put. */
static uint64_t look_up(const struct rte_hash *table, const struct order *order, const int32_t *places)
{
	int32_t found[RTE_HASH_LOOKUP_BULK_MAX];
	uint64_t wrong = 0;
	for (uint32_t at = 0; at + RTE_HASH_LOOKUP_BULK_MAX <= order->count; at += RTE_HASH_LOOKUP_BULK_MAX) {
		if (rte_hash_lookup_bulk(table, (const void **)&order->keys[at], RTE_HASH_LOOKUP_BULK_MAX, found))
			fail("cannot look up", "a batch");
		if (places) {
			for (uint32_t k = 0; k < RTE_HASH_LOOKUP_BULK_MAX; ++k)
				wrong += found[k] != places[order->numbers[at + k]];
		} else {
			__asm__ volatile("" : : "r"(found) : "memory");
		}
	}
	return wrong;
}

int main(int argc, char **argv)
{
	uint32_t bytes = argc < 4 ? 0 : atoi(argv[1]);
	if (bytes < 1 || bytes > sizeof(struct key))
		fail("usage", "rte_hash BYTES KEYS ORDER...");
	start_dpdk();

	uint32_t count;
	struct key *keys = read_all(argv[2], sizeof *keys, &count);
	struct rte_hash_parameters parameters = {
		.name = "peer",
		.entries = count + count / 8 + 64,
		.key_len = bytes,
		.hash_func = rte_hash_crc,
		.hash_func_init_val = 1,
	};
	size_t before = allocated();
	struct rte_hash *table = rte_hash_create(&parameters);
	if (!table)
		fail("cannot make the table", rte_strerror(rte_errno));
	int32_t *places = calloc(count, sizeof *places);
	uint64_t start = cpu_nanos();
	for (uint32_t at = 0; at < count; ++at) {
		places[at] = rte_hash_add_key(table, &keys[at]);
		if (places[at] < 0)
			fail("cannot add a key", rte_strerror(-places[at]));
	}
	double add = (double)(cpu_nanos() - start) / count;
	int orders = argc - 3;
	struct order *order = calloc(orders, sizeof *order);
	for (int n = 0; n < orders; ++n) {
		order[n] = read_order(argv[3 + n], keys, count);
		if (look_up(table, &order[n], places))
			fail("wrong answers", argv[3 + n]);
	}
	printf("{\"keys\": %u, \"bytes\": %zu, \"add_nanos\": %.1f}\n", count, allocated() - before, add);
	fflush(stdout);

	char line[64];
	while (fgets(line, sizeof line, stdin)) {
		int which;
		unsigned millis;
		if (sscanf(line, "run %d %u", &which, &millis) != 2 || which < 0 || which >= orders)
			fail("no command", line);
		uint64_t done = 0, begin = cpu_nanos(), end;
		do {
			look_up(table, &order[which], NULL);
			done += order[which].count / RTE_HASH_LOOKUP_BULK_MAX * RTE_HASH_LOOKUP_BULK_MAX;
		} while ((end = cpu_nanos()) - begin < millis * UINT64_C(1000000));
		printf("{\"nanos\": %.3f}\n", (double)(end - begin) / done);
		fflush(stdout);
	}
	return 0;
}
