#!/usr/bin/env bash
# Lints the chart and renders it with each of its example values, where helm is installed.
set -euo pipefail
cd "$(dirname "$0")/../../charts/weir"

command -v helm >/dev/null || { echo "chart: helm is not installed, not checked"; exit 0; }
for values in ci/*-values.yaml; do
  helm lint --strict --quiet --values "$values" .
  helm template check . --values "$values" >/dev/null
  echo "chart: renders with $values"
done
