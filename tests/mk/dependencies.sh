#!/usr/bin/env bash
# Checks the dependencies against deny.toml: by cargo-deny where it is installed (`cargo install --locked cargo-deny`,
# some minutes), else the two rules that matter most, licences and banned crates, with cargo alone.
set -euo pipefail
cd "$(dirname "$0")/../.."

if cargo deny --version >/dev/null 2>&1; then
  exec cargo deny --log-level error check bans licenses sources
fi

# Strings of the array KEY in section [SECTION] of deny.toml; of tables, the crate's name.
array() { awk -v section="[$1]" -v key="$2" '/^\[/ { here = $0 == section } here && $1 == key { in_array = 1 } here && in_array' deny.toml |
  sed '/^\]/q' | sed -nE 's/^ *(\{ crate = )?"([^"]+)".*/\2/p'; }

crates=$(cargo tree --locked --workspace --edges normal,build --prefix none --format '{p}|{l}' | sed 's/ (\*)$//' | sort -u)
bad=0
while IFS= read -r banned; do
  if grep -q "^$banned v" <<<"$crates"; then
    echo "deny.toml bans $banned, but the workspace depends on it: cargo tree --locked --invert $banned" >&2
    bad=1
  fi
done < <(array bans deny)

# A licence expression passes when every part of its ANDs offers an allowed alternative.
awk -F '|' -v allowed="$(array licenses allow | tr '\n' '|')" '
  BEGIN { split(allowed, list, "|"); for (i in list) ok[list[i]] = 1 }
  {
    expression = $2; gsub(/[()]/, "", expression); gsub(/ ?\/ ?/, " OR ", expression)
    parts = split(expression, part, / AND /)
    for (p = 1; p <= parts; p++) {
      found = 0; alternatives = split(part[p], alternative, / OR /)
      for (a = 1; a <= alternatives; a++) if (alternative[a] in ok) found = 1
      if (!found) { print "licence not allowed by deny.toml: " $1 ": " $2 > "/dev/stderr"; bad = 1 }
    }
  }
  END { exit bad }' <<<"$crates" || bad=1
[ "$bad" = 0 ] && echo "dependencies: $(wc -l <<<"$crates") crates, licences and bans in order (cargo-deny is not installed: no more was checked)"
exit "$bad"
