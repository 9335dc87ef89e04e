#!/usr/bin/env bash
# Lints the chart and renders it with each of its example values.
set -euo pipefail
cd "$(dirname "$0")/../.."
helm=$(tests/env/helm.sh)
cd charts/weir
for values in ci/*-values.yaml; do
  "$helm" lint --strict --quiet --values "$values" .
  "$helm" template check . --values "$values" >/dev/null
  echo "chart: renders with $values"
done
