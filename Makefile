# `make` lists what there is. Whatever a target needs from Debian is installed by tests/env/deps.sh.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

BIN := $(or $(CARGO_TARGET_DIR),target)/debug
DEMO ?=
CASE ?=
SEEDS ?= 1000
FIRST_SEED ?= 0
EVENTS ?= 100000
PROFILE ?= release
PART ?= compare
SEED ?= 1
MINUTES ?= 10
ONE_BY_ONE ?= 0
ONLY ?=
TRANSACTIONS ?= 5000
WITHOUT ?= 2000

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## Build all three programs
	@tests/env/deps.sh build
	cargo build --locked --workspace --bins

.PHONY: demo
demo: build ## Run everything embedded until ctrl-C (DEMO='--events 2000 --output json': that many, verified)
	@$(BIN)/weir demo $(DEMO)

.PHONY: demo-kafka
demo-kafka: build ## The same on a real broker: exactly once, 5,000 events, a taskmanager killed on the way
	@tests/env/deps.sh kafka
	@folder=$$(mktemp -d); \
	trap 'tests/env/kafka/kafka.sh down "$$folder"' EXIT; \
	started=$$(tests/env/kafka/kafka.sh up "$$folder"); \
	$(BIN)/weir demo --bootstrap-servers "$${started#BOOTSTRAP_SERVERS=}" $(or $(DEMO),--kill --events 5000 --output json)

.PHONY: test
test: ## Every test: units, properties, simulation, end to end on real parts
	@tests/run.sh

.PHONY: e2e
e2e: ## End to end on Kafka, Ceph RGW and MediaWiki (CASE=name: that one)
	@tests/run.sh e2e $(CASE)

.PHONY: sim
sim: ## Seeded simulation of jobmanagers, taskmanagers and all around them (SEEDS=1000 FIRST_SEED=0)
	@tests/env/deps.sh build
	WEIR_SIM_SEEDS=$(SEEDS) WEIR_SIM_FIRST_SEED=$(FIRST_SEED) \
		cargo test --locked --workspace --test simulation -- --nocapture schedules

.PHONY: chaos
chaos: ## Random faults on real parts, by a seed (SEED=1 MINUTES=10 ONLY=broker; ONE_BY_ONE=1: what each kind costs alone)
	@WEIR_CHAOS_ONLY='$(ONLY)' WEIR_CHAOS_SEED=$(SEED) WEIR_CHAOS_MINUTES=$(MINUTES) WEIR_CHAOS_ONE_BY_ONE=$(ONE_BY_ONE) tests/run.sh e2e chaos

.PHONY: doubt
doubt: ## Transactions disturbed on the wire, exact with the doubt rule and not without (TRANSACTIONS=5000 WITHOUT=2000 SEED=1)
	@tests/env/deps.sh kafka
	@tests/env/kafka/kafka.sh jars
	WEIR_DOUBT_TRANSACTIONS=$(TRANSACTIONS) WEIR_DOUBT_WITHOUT=$(WITHOUT) WEIR_DOUBT_SEED=$(SEED) \
		cargo test --locked --workspace --test doubt -- --ignored --nocapture --test-threads 1

.PHONY: bench
bench: ## Events/s, CPU and memory beside bare loops, on real Kafka (EVENTS=100000 PART='compare memory' SEED=1 PROFILE=release)
	@WEIR_BENCH_SEED=$(SEED) PROFILE=$(PROFILE) tests/bench/figures.sh $(EVENTS) $(PART)

.PHONY: verify
verify: ## Check format, lints, dependencies and chart; writes nothing
	@tests/env/deps.sh build
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	@tests/mk/dependencies.sh
	@tests/mk/chart.sh

.PHONY: fix
fix: ## Format, and apply what clippy can
	cargo fmt --all
	cargo clippy --workspace --all-targets --fix --allow-dirty --allow-staged
	cargo fmt --all
