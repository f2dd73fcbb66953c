# Bongsu's commands. `make demo` and `make test` work on a fresh Debian machine with Rust, Java 17, Maven and make.
#
# Every cargo command selects the whole workspace: features are then the same in all of them, and DataFusion compiles once.
# Optimised code comes from one profile, `release`; the dev profile serves clippy only, which generates no code.

SHELL := /bin/bash
.DEFAULT_GOAL := help

export CARGO_TARGET_DIR ?= $(HOME)/.cache/bongsu/target
TOOLS := $(HOME)/.cache/bongsu/tools
CARGO_DENY := $(TOOLS)/bin/cargo-deny
BONGSU := $(CARGO_TARGET_DIR)/release/bongsu

.PHONY: help setup packages kafka build demo check test fmt clippy unit deny docs bench

help: ## what there is
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: packages kafka ## what building and testing need beyond Rust, Java and Maven
packages:
	@scripts/packages.sh
kafka:
	@scripts/kafka-jars.sh

build: packages ## the binary, at release/bongsu in the target folder
	cargo build --release --workspace --bins
	@echo "$(BONGSU)"

demo: packages ## the main job in one process: a shop, an outage, the alert; Ctrl-C ends it
	@cargo build --release --workspace --bins
	@$(BONGSU) demo

check: packages ## fast, while typing: format and types
	cargo fmt --all --check
	cargo check --workspace --all-targets

test: setup fmt clippy unit docs deny ## all that must hold; what .ci/run runs
fmt:
	cargo fmt --all --check
clippy:
	cargo clippy --workspace --all-targets -- -D warnings
# Without doc tests: `docs` runs them.
unit:
	cargo test --release --workspace --lib --bins --tests --examples --no-fail-fast
docs:
	cargo test --release --workspace --doc
# Other platforms' crates are looked at, too, though never compiled.
deny: $(CARGO_DENY)
	@cargo fetch --quiet --locked
	$(CARGO_DENY) --offline check --hide-inclusion-graph licenses bans sources
$(CARGO_DENY):
	@scripts/cargo-deny.sh "$(TOOLS)"

bench: setup ## events per CPU-second and the rest; takes minutes
	cargo bench --workspace --bench '*'
