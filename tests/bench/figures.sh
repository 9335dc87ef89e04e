#!/usr/bin/env bash
# Figures of the whole system on this machine: real Kafka and Ceph RGW, a stub wiki with 10 KB pages. Prints tables; see
# tests/src/bin/figures for what is measured.
#   figures.sh [EVENTS [PART...]]      default 20000, all of: throughput guarantee checkpoints taskmanager jobmanager moves
# Environment: PROFILE=release measures optimised programs (builds them first; default: the development profile).
set -euo pipefail
cd "$(dirname "$0")/../.."
tests/env/deps.sh
tests/env/kafka/kafka.sh jars >/dev/null
if [ "${PROFILE:-dev}" = release ]; then
  cargo build --locked --quiet --release --workspace --bins
  exec "${CARGO_TARGET_DIR:-target}/release/figures" "${@:-20000}"
fi
cargo build --locked --quiet --workspace --bins
exec "${CARGO_TARGET_DIR:-target}/debug/figures" "${@:-20000}"
