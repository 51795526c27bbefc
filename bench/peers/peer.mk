# How a peer is built: PEER of SOURCE, with LIBS of DPDK. No part of the product.
#
#   make            installs Debian's libdpdk-dev where it is missing, and builds ./$(PEER)

CFLAGS ?= -O3 -march=native
CFLAGS += -std=gnu11 -Wall -Wextra -Werror -Wno-unused-parameter -DPEER='"$(PEER)"'

$(PEER): $(SOURCE) ../dpdk.h | deps
	$(CC) $(CFLAGS) $(shell pkg-config --cflags libdpdk | sed 's/-march=[^ ]*//; s/-I/-isystem /g') -o $@ $< $(LIBS)

.PHONY: deps clean
deps:
	../../../hack/deps libdpdk-dev make pkg-config

clean:
	rm -f $(PEER)
