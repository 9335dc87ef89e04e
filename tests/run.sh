#!/usr/bin/env bash
# All tests: what `make test` runs. Prints how long each step took.
#   run.sh                 everything
#   run.sh e2e [CASE...]   the end-to-end cases alone, or these (`e2e --list` names them)
# Environment: E2E_ARGS (for example --keep), WEIR_SIM_SEEDS (default 100000)
set -euo pipefail
cd "$(dirname "$0")/.."
bin=${CARGO_TARGET_DIR:-target}/debug
names=() seconds=()
started=$SECONDS

# step NAME COMMAND...: runs it; a failure ends the run after the table.
step() {
  local name=$1 from=$SECONDS status=0; shift
  printf '\n== %s\n' "$name"
  "$@" || status=$?
  names+=("$name$([ $status = 0 ] || echo ': FAILED')") seconds+=($((SECONDS - from)))
  [ $status = 0 ] || exit $status
}
table() {
  printf '\n%-44s %8s\n' step seconds
  for i in "${!names[@]}"; do printf '%-44s %8d\n' "${names[$i]}" "${seconds[$i]}"; done
  printf '%-44s %8d\n' total $((SECONDS - started))
}
trap table EXIT

demo() {
  local log; log=$(mktemp)
  # Its last line is the verdict, in JSON.
  "$bin/weir" demo --events 2000 --output json >"$log" || { tail -20 "$log"; rm -f "$log"; return 1; }
  tail -1 "$log"
  rm -f "$log"
}

# The sink against a broker that keeps transactions.
exactly_once() {
  local folder started status=0; folder=$(mktemp -d)
  started=$(tests/env/kafka/kafka.sh up "$folder")
  WEIR_TEST_BOOTSTRAP_SERVERS=${started#BOOTSTRAP_SERVERS=} \
    cargo test --locked --quiet --workspace --test exactly_once -- --ignored || status=$?
  tests/env/kafka/kafka.sh down "$folder"
  return $status
}

# Disturbed transactions, with the doubt rule and without it; a broker of its own each.
doubt() {
  cargo test --locked --quiet --workspace --test doubt -- --ignored --nocapture --test-threads 1
}

step "Debian packages" tests/env/deps.sh
if [ "${1:-}" = e2e ]; then
  shift
  step "build" cargo build --locked --workspace --bins
  step "Kafka's jars" tests/env/kafka/kafka.sh jars
  step "end to end" "$bin/e2e" ${E2E_ARGS:-} "$@"
  exit
fi
step "format" cargo fmt --all --check
step "build" cargo build --locked --workspace --bins --tests
step "clippy" cargo clippy --locked --quiet --workspace --all-targets -- -D warnings
step "dependencies" tests/mk/dependencies.sh
step "chart" tests/mk/chart.sh
# Units, properties, protocol pairs, deliberate mistakes in the simulation.
step "units, properties" cargo test --locked --quiet --workspace
step "simulation" env WEIR_SIM_SEEDS="${WEIR_SIM_SEEDS:-100000}" \
  cargo test --locked --quiet --workspace --test simulation -- --nocapture schedules
step "demo: embedded, 2,000 events" demo
step "Kafka's jars" tests/env/kafka/kafka.sh jars
step "sink on a real broker" exactly_once
step "sink on a disturbed wire" doubt
step "end to end" "$bin/e2e" ${E2E_ARGS:-}
