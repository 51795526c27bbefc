# Two images of one layer: margay-dataplane and margay-agent, both with margayctl and margay-cni. hack/image builds them; where no
# registry can be reached it builds the programs itself, and takes what follows "FROM scratch" from here.

FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN hack/deps && hack/programs && hack/rootfs /rootfs

FROM scratch AS margay
COPY --from=build /rootfs /
ENV PATH=/usr/bin
ARG VERSION
ARG REVISION
LABEL org.opencontainers.image.title="Margay" \
      org.opencontainers.image.description="Network policy and routing for nodes that move a lot of packets" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

FROM margay AS agent
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s CMD ["margayctl", "--timeout", "4s", "get", "tiers"]
ENTRYPOINT ["margay-agent"]

FROM margay AS dataplane
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s CMD ["margayctl", "--timeout", "4s", "dp", "runtime"]
ENTRYPOINT ["margay-dataplane"]
