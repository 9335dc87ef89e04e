#!/usr/bin/env bash
# Figures of the whole system on this machine: real Kafka and Ceph RGW, a stub of the API. Prints tables; see
# docs/benchmark.md for what they say and tests/src/bin/figures for how they are made.
#   figures.sh [EVENTS [PART...]]      default 100000, all of: compare memory guarantee checkpoints taskmanager jobmanager moves
# Environment: PROFILE=dev measures the development profile (default: release, built first), WEIR_BENCH_SEED (default 1)
set -euo pipefail
cd "$(dirname "$0")/../.."
tests/env/deps.sh
tests/env/kafka/kafka.sh jars >/dev/null
# The broker shares the machine with what is measured: as fast as it gets.
export KAFKA_JIT=full
if [ "${PROFILE:-release}" = release ]; then
  cargo build --locked --quiet --release --workspace --bins
  exec "${CARGO_TARGET_DIR:-target}/release/figures" "${@:-100000}"
fi
cargo build --locked --quiet --workspace --bins
exec "${CARGO_TARGET_DIR:-target}/debug/figures" "${@:-100000}"
