/*
 * Seals and opens packets with ChaCha20-Poly1305 of Intel's multi-buffer library, as many as it takes. A peer for
 * measurements: it is driven over standard input, and takes turns with whoever it is compared with.
 *
 *   ipsec_mb LENGTH...
 *
 * A vector has as many packets as there are lengths, each in a frame of 2,048 bytes, and goes in bursts of 32 jobs, as
 * VPP gives them. Packet n has the nonce n, and the text of zeros; the key is bytes 0, 1, 2 and so on.
 *
 * Commands, a line each:
 *   seal MILLISECONDS   seals the vector again and again
 *   open MILLISECONDS   opens it again and again
 *   tag N               the tag of packet N, in hexadecimal
 *
 * Every answer is a line of JSON; the first, without a command, tells of the library.
 */
#include <intel-ipsec-mb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { FRAME = 2048, TEXT = 270, TAG = 16, BURST = 32, PACKETS = 256 };

static IMB_MGR *manager;
static uint8_t key[32];
static uint8_t nonces[PACKETS][12];
static uint8_t tags[PACKETS][TAG], found[PACKETS][TAG];
static uint8_t *frames;
static unsigned lengths[PACKETS], count;

static void fail(const char *why)
{
	fprintf(stderr, "ipsec_mb: %s\n", why);
	exit(1);
}

static double busy(void)
{
	struct timespec now;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	return now.tv_sec * 1e9 + now.tv_nsec;
}

static void done(const IMB_JOB *job)
{
	if (job && job->status != IMB_STATUS_COMPLETED)
		fail("a job was not completed");
}

/* The whole vector, once. Tags go to `to`. */
static void turn(int open, uint8_t (*to)[TAG])
{
	for (unsigned at = 0; at < count; ++at) {
		IMB_JOB *job = IMB_GET_NEXT_JOB(manager);
		uint8_t *text = frames + (size_t)at * FRAME + TEXT;
		job->cipher_mode = IMB_CIPHER_CHACHA20_POLY1305;
		job->hash_alg = IMB_AUTH_CHACHA20_POLY1305;
		job->cipher_direction = open ? IMB_DIR_DECRYPT : IMB_DIR_ENCRYPT;
		job->chain_order = open ? IMB_ORDER_HASH_CIPHER : IMB_ORDER_CIPHER_HASH;
		job->enc_keys = job->dec_keys = key;
		job->key_len_in_bytes = sizeof key;
		job->iv = nonces[at];
		job->iv_len_in_bytes = sizeof nonces[at];
		job->src = job->dst = text;
		job->cipher_start_src_offset_in_bytes = job->hash_start_src_offset_in_bytes = 0;
		job->msg_len_to_cipher_in_bytes = job->msg_len_to_hash_in_bytes = lengths[at];
		job->u.CHACHA20_POLY1305.aad = NULL;
		job->u.CHACHA20_POLY1305.aad_len_in_bytes = 0;
		job->auth_tag_output = to[at];
		job->auth_tag_output_len_in_bytes = TAG;
		done(IMB_SUBMIT_JOB_NOCHECK(manager));
		if (at % BURST == BURST - 1 || at + 1 == count)
			for (const IMB_JOB *left; (left = IMB_FLUSH_JOB(manager));)
				done(left);
	}
}

/* Every vector is sealed, then opened; only the wanted half is timed. */
static void run(int open, double millis)
{
	double spent = 0, operations = 0;
	while (spent < millis * 1e6) {
		double start = busy();
		turn(0, tags);
		double middle = busy();
		turn(1, found);
		int same = memcmp(tags, found, sizeof tags) == 0;
		double end = busy();
		if (!same)
			fail("a tag is wrong");
		spent += open ? end - middle : middle - start;
		operations += count;
	}
	printf("{\"nanos\": %.3f}\n", spent / operations);
}

int main(int arguments, char **argument)
{
	char line[64];
	count = arguments - 1;
	if (count == 0 || count > PACKETS)
		fail("give 1 to 256 lengths");
	for (unsigned at = 0; at < count; ++at) {
		lengths[at] = strtoul(argument[at + 1], NULL, 10);
		if (lengths[at] > FRAME - TEXT - TAG)
			fail("a packet is too long for a frame");
		memcpy(nonces[at] + 4, &(uint64_t){ at }, 8);
	}
	for (unsigned at = 0; at < sizeof key; ++at)
		key[at] = at;
	frames = aligned_alloc(64, (size_t)PACKETS * FRAME);
	manager = alloc_mb_mgr(0);
	if (!frames || !manager)
		fail("out of memory");
	memset(frames, 0, (size_t)PACKETS * FRAME);
	IMB_ARCH arch;
	init_mb_mgr_auto(manager, &arch);
	turn(0, tags);
	turn(1, found);
	printf("{\"version\": \"%s\", \"arch\": %d}\n", imb_get_version_str(), arch);
	fflush(stdout);
	while (fgets(line, sizeof line, stdin)) {
		double number = 0;
		char what[8] = "";
		if (sscanf(line, "%7s %lf", what, &number) != 2)
			fail("a command is a word and a number");
		if (strcmp(what, "tag") == 0 && number < count) {
			printf("{\"tag\": \"");
			for (unsigned at = 0; at < TAG; ++at)
				printf("%02x", tags[(unsigned)number][at]);
			printf("\"}\n");
		} else {
			run(strcmp(what, "open") == 0, number);
		}
		fflush(stdout);
	}
	return 0;
}
