/*
 * Classifies the packets of a ClassBench trace by the rules of a ClassBench filter set, with DPDK's
 * rte_acl. A peer for measurements: it is driven over standard input, so that it builds once and
 * then takes turns with whoever it is compared with.
 *
 *   rte_acl RULES TRACE
 *
 * Commands, a line each:
 *   run BATCH MILLISECONDS   classifies the trace, again and again, that many packets at once
 *   verdicts                 which rule each packet of the trace matched, from 0; -1: none
 *
 * Every answer is a line of JSON; the first, without a command, tells of the build.
 */
#include "../dpdk.h"

#include <rte_acl.h>
#include <rte_vect.h>

enum { PROTO, SRC, DST, SPORT, DPORT, FIELDS };
enum { MAX_BATCH = 256 };

/* As rte_acl wants it: big endian, four bytes an input index but for the first. */
struct packet {
	uint8_t proto;
	uint8_t unused[3];
	uint32_t src, dst;
	uint16_t sport, dport;
};

RTE_ACL_RULE_DEF(rule, FIELDS);

static const struct rte_acl_field_def fields[FIELDS] = {
	[PROTO] = { RTE_ACL_FIELD_TYPE_BITMASK, 1, PROTO, 0, offsetof(struct packet, proto) },
	[SRC] = { RTE_ACL_FIELD_TYPE_MASK, 4, SRC, 1, offsetof(struct packet, src) },
	[DST] = { RTE_ACL_FIELD_TYPE_MASK, 4, DST, 2, offsetof(struct packet, dst) },
	[SPORT] = { RTE_ACL_FIELD_TYPE_RANGE, 2, SPORT, 3, offsetof(struct packet, sport) },
	[DPORT] = { RTE_ACL_FIELD_TYPE_RANGE, 2, DPORT, 3, offsetof(struct packet, dport) },
};

static struct rule *read_rules(const char *path, uint32_t *count)
{
	FILE *file = open_or_fail(path);
	struct rule *rules = NULL;
	char line[512];
	for (*count = 0; fgets(line, sizeof line, file); ++*count) {
		unsigned s[5], d[5], sp[2], dp[2], proto, mask;
		int found = sscanf(line, "@%u.%u.%u.%u/%u %u.%u.%u.%u/%u %u : %u %u : %u %x/%x", &s[0], &s[1],
			&s[2], &s[3], &s[4], &d[0], &d[1], &d[2], &d[3], &d[4], &sp[0], &sp[1], &dp[0],
			&dp[1], &proto, &mask);
		if (found != 16)
			fail("no ClassBench rule", line);
		rules = grow(rules, *count, sizeof *rules);
		struct rule *rule = &rules[*count];
		memset(rule, 0, sizeof *rule);
		rule->data.category_mask = 1;
		rule->data.priority = RTE_ACL_MAX_PRIORITY - (int32_t)*count;
		rule->data.userdata = *count + 1;
		rule->field[PROTO].value.u8 = proto;
		rule->field[PROTO].mask_range.u8 = mask;
		rule->field[SRC].value.u32 = s[0] << 24 | s[1] << 16 | s[2] << 8 | s[3];
		rule->field[SRC].mask_range.u32 = s[4];
		rule->field[DST].value.u32 = d[0] << 24 | d[1] << 16 | d[2] << 8 | d[3];
		rule->field[DST].mask_range.u32 = d[4];
		rule->field[SPORT].value.u16 = sp[0];
		rule->field[SPORT].mask_range.u16 = sp[1];
		rule->field[DPORT].value.u16 = dp[0];
		rule->field[DPORT].mask_range.u16 = dp[1];
	}
	fclose(file);
	return rules;
}

static struct packet *read_trace(const char *path, uint32_t *count)
{
	FILE *file = open_or_fail(path);
	struct packet *packets = NULL;
	char line[256];
	for (*count = 0; fgets(line, sizeof line, file); ++*count) {
		uint32_t src, dst;
		unsigned sport, dport, proto;
		if (sscanf(line, "%" SCNu32 " %" SCNu32 " %u %u %u", &src, &dst, &sport, &dport, &proto) != 5)
			fail("no ClassBench packet", line);
		packets = grow(packets, *count, sizeof *packets);
		packets[*count] = (struct packet){
			.proto = proto,
			.src = rte_cpu_to_be_32(src),
			.dst = rte_cpu_to_be_32(dst),
			.sport = rte_cpu_to_be_16(sport),
			.dport = rte_cpu_to_be_16(dport),
		};
	}
	fclose(file);
	return packets;
}

static struct rte_acl_ctx *build(const struct rule *rules, uint32_t count)
{
	struct rte_acl_param param = { "peer", 0, RTE_ACL_RULE_SZ(FIELDS), count };
	struct rte_acl_ctx *acl = rte_acl_create(&param);
	if (!acl || rte_acl_add_rules(acl, (const struct rte_acl_rule *)rules, count))
		fail("cannot take the rules", rte_strerror(rte_errno));
	struct rte_acl_config config = { .num_categories = 1, .num_fields = FIELDS };
	memcpy(config.defs, fields, sizeof fields);
	size_t before = allocated();
	uint64_t start = cpu_nanos();
	int error = rte_acl_build(acl, &config);
	if (error)
		fail("cannot build", rte_strerror(-error));
	uint64_t nanos = cpu_nanos() - start;
	printf("{\"rules\": %u, \"build_seconds\": %.6f, \"bytes\": %zu}\n", count, nanos / 1e9,
		allocated() - before);
	return acl;
}

static uint64_t classify(const struct rte_acl_ctx *acl, enum rte_acl_classify_alg alg, const uint8_t **data,
	uint32_t *results, uint32_t count, uint32_t batch)
{
	for (uint32_t at = 0; at < count; at += batch) {
		uint32_t left = count - at;
		if (rte_acl_classify_alg(acl, data + at, results + at, left < batch ? left : batch, 1, alg))
			fail("cannot classify", "the algorithm is not supported here");
	}
	return count;
}

int main(int argc, char **argv)
{
	if (argc != 3)
		fail("usage", "rte_acl RULES TRACE");
	start_dpdk();

	uint32_t rule_count, packets;
	struct rule *rules = read_rules(argv[1], &rule_count);
	struct packet *trace = read_trace(argv[2], &packets);
	const uint8_t **data = calloc(packets + 1, sizeof *data);
	uint32_t *results = calloc(packets + 1, sizeof *results);
	if (!data || !results)
		fail("out of memory", "the trace");
	for (uint32_t at = 0; at < packets; ++at)
		data[at] = (const uint8_t *)&trace[at];
	struct rte_acl_ctx *acl = build(rules, rule_count);

	/* The widest that the processor has. */
	static const struct { enum rte_acl_classify_alg alg; const char *name; } algs[] = {
		{ RTE_ACL_CLASSIFY_AVX512X32, "avx512x32" }, { RTE_ACL_CLASSIFY_AVX512X16, "avx512x16" },
		{ RTE_ACL_CLASSIFY_AVX2, "avx2" }, { RTE_ACL_CLASSIFY_SSE, "sse" },
		{ RTE_ACL_CLASSIFY_SCALAR, "scalar" },
	};
	unsigned best = 0;
	while (best + 1 < RTE_DIM(algs) && rte_acl_set_ctx_classify(acl, algs[best].alg))
		++best;

	setvbuf(stdout, NULL, _IOLBF, 0);
	fflush(stdout);
	char line[64];
	while (fgets(line, sizeof line, stdin)) {
		unsigned batch, millis;
		if (!strncmp(line, "verdicts", 8)) {
			classify(acl, algs[best].alg, data, results, packets, MAX_BATCH);
			printf("{\"verdicts\": [");
			for (uint32_t at = 0; at < packets; ++at)
				printf("%s%d", at ? ", " : "", (int)results[at] - 1);
			printf("]}\n");
		} else if (sscanf(line, "run %u %u", &batch, &millis) == 2 && batch >= 1 && batch <= MAX_BATCH) {
			/* Both wide forms: which is faster depends on the rules. */
			double least = 0;
			const char *name = "";
			for (unsigned at = best; at < RTE_DIM(algs) && at < best + 2; ++at) {
				uint64_t done = 0, start = cpu_nanos(), end;
				do
					done += classify(acl, algs[at].alg, data, results, packets, batch);
				while ((end = cpu_nanos()) - start < millis * UINT64_C(500000));
				double nanos = (double)(end - start) / done;
				if (at == best || nanos < least) {
					least = nanos;
					name = algs[at].name;
				}
			}
			printf("{\"batch\": %u, \"algorithm\": \"%s\", \"nanos\": %.3f}\n", batch, name, least);
		} else {
			fail("no command", line);
		}
		fflush(stdout);
	}
	return 0;
}
