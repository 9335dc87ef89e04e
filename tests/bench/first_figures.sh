#!/usr/bin/env bash
# First figures of the whole system on this machine: real Kafka and Ceph RGW, a stub wiki with 10 KB pages that answers
# at once and after 50 ms. Prints a table; see tests/src/bin/figures.rs for what is measured.
#   first_figures.sh [EVENTS]      default 20000
# Environment: PROFILE=release measures optimised programs (builds them first; default: the development profile).
set -euo pipefail
cd "$(dirname "$0")/../.."
tests/env/deps.sh
tests/env/kafka/kafka.sh jars >/dev/null
if [ "${PROFILE:-dev}" = release ]; then
  cargo build --locked --quiet --release --workspace --bins
  exec "${CARGO_TARGET_DIR:-target}/release/figures" "${1:-20000}"
fi
cargo build --locked --quiet --workspace --bins
exec "${CARGO_TARGET_DIR:-target}/debug/figures" "${1:-20000}"
