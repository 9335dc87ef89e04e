#!/usr/bin/env bash
# Installs what building and testing need and this machine lacks. Debian 12; does nothing when all is there.
#   deps.sh [build] [kafka] [ceph] [mediawiki] [helm]     default: all of them
set -euo pipefail

declare -A PACKAGES=(
  # rdkafka-sys builds librdkafka by configure and make, against the system's OpenSSL and zlib.
  [build]="build-essential pkg-config libssl-dev zlib1g-dev openssl"
  [kafka]=""
  [ceph]="ceph-mon ceph-osd radosgw ceph-common curl openssl"
  # --no-install-recommends below: else a web server comes along.
  [mediawiki]="mediawiki php-cli php-sqlite3 php-mbstring php-xml php-intl"
  [helm]=""
)

installed() { [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

missing=()
for group in "${@:-build kafka ceph mediawiki helm}"; do
  for name in $group; do
    [ -n "${PACKAGES[$name]+known}" ] || { echo "deps.sh: unknown group '$name'; known: ${!PACKAGES[*]}" >&2; exit 2; }
    for package in ${PACKAGES[$name]}; do installed "$package" || missing+=("$package"); done
    # A JDK and Maven are often installed from elsewhere: the commands count, not the packages.
    if [ "$name" = kafka ]; then
      command -v java >/dev/null || missing+=(openjdk-17-jre-headless)
      command -v mvn >/dev/null || missing+=(maven)
    fi
    if [ "$name" = helm ] && ! command -v helm >/dev/null; then
      python3 -m pip --version >/dev/null 2>&1 || missing+=(python3-pip)
    fi
    if [ "$name" = build ] && ! command -v cargo >/dev/null; then
      echo "deps.sh: cargo is missing; install Rust from https://rustup.rs and start again" >&2
      exit 1
    fi
  done
done
[ ${#missing[@]} -eq 0 ] && exit 0

if [ "$(id -u)" = 0 ]; then
  root=()
elif sudo -n true 2>/dev/null; then
  root=(sudo -n)
else
  echo "deps.sh: missing Debian packages, and neither root nor password-less sudo to install them. As root, run:" >&2
  echo "  apt-get update && apt-get install --no-install-recommends ${missing[*]}" >&2
  exit 1
fi
echo "deps.sh: installing ${missing[*]}"
"${root[@]}" apt-get update -qq
"${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
