# Builds the binary, then leaves everything but it behind.
FROM rust:1.95-slim-bookworm AS build
RUN apt-get update \
    && apt-get install --yes --no-install-recommends build-essential pkg-config libssl-dev zlib1g-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY . .
RUN cargo build --release --locked --workspace --bins --target-dir /target

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates libssl3 zlib1g \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir /var/lib/bongsu --create-home bongsu
COPY --from=build /target/release/bongsu /usr/local/bin/bongsu
USER bongsu
WORKDIR /var/lib/bongsu
EXPOSE 7070
ENTRYPOINT ["bongsu"]
CMD ["run", "--config", "/etc/bongsu/bongsu.yaml"]
