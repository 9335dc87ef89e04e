#!/usr/bin/env bash
# Debian's MediaWiki on SQLite behind PHP's own web server, several wikis by Host header.
#   mediawiki.sh up DIR NAME=DOMAIN...   makes the wikis and serves them; prints API=http://127.0.0.1:port/w/api.php
#   mediawiki.sh load DIR NAME           makes pages: operations as in makePages.php on standard input
#   mediawiki.sh truth DIR NAME          prints what the wiki's database holds, JSON lines (see truth.php)
#   mediawiki.sh down DIR                stops the server and deletes DIR
# Environment: PHP_WORKERS (default 4)
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/../lib.sh"
# The code is used where Debian put it; all that varies is in DIR.
export MW_INSTALL_PATH=/usr/share/mediawiki
# PHP's cache of compiled code also for single requests from the command line.
php() { command php -d opcache.enable_cli=1 -d memory_limit=512M -d display_errors=stderr -d error_reporting=8191 "$@"; }

up() {
  local dir=$1 port first=""; shift
  command -v php >/dev/null && [ -f $MW_INSTALL_PATH/api.php ] ||
    { echo "mediawiki.sh: PHP or MediaWiki is missing; run tests/env/deps.sh mediawiki" >&2; exit 1; }
  mkdir -p "$dir"
  dir=$(cd "$dir" && pwd)
  mkdir -p "$dir"/{db,cache,www,install}
  for wiki in "$@"; do echo "${wiki%%=*} ${wiki#*=}"; done >"$dir/wikis"
  for wiki in "$@"; do
    if [ -z "$first" ]; then
      first=${wiki%%=*}
      php $MW_INSTALL_PATH/maintenance/install.php --dbtype sqlite --dbpath "$dir/db" --dbname "$first" \
        --confpath "$dir/install" --scriptpath /w --server http://localhost --pass "weir test password" --with-extensions=no \
        wiki Admin >"$dir/install.log" 2>&1 || { tail -20 "$dir/install.log" >&2; exit 1; }
      cp "$dir/db/$first.sqlite" "$dir/pristine.sqlite"
    else
      cp "$dir/pristine.sqlite" "$dir/db/${wiki%%=*}.sqlite"
    fi
  done
  export WEIR_MEDIAWIKI_DIR=$dir MW_CONFIG_FILE=$here/LocalSettings.php
  ln -s $MW_INSTALL_PATH "$dir/www/w"
  port=$(free_port)
  PHP_CLI_SERVER_WORKERS=${PHP_WORKERS:-4} setsid php -S "127.0.0.1:$port" -t "$dir/www" >"$dir/php.log" 2>&1 </dev/null &
  echo $! >"$dir/php.pid"
  ready() { curl -sf -o /dev/null -H "Host: $(cut -d' ' -f2 "$dir/wikis" | head -1)" \
    "http://127.0.0.1:$port/w/api.php?action=query&format=json"; }
  wait_for 60 "MediaWiki ($dir/php.log)" ready
  echo "API=http://127.0.0.1:$port/w/api.php"
}

load() {
  local dir; dir=$(cd "$1" && pwd)
  WEIR_WIKI=$2 WEIR_MEDIAWIKI_DIR=$dir MW_CONFIG_FILE=$here/LocalSettings.php php "$here/makePages.php"
}

case ${1:-} in
  up) shift; up "${1:?DIR}" "${@:2}" ;;
  load) load "${2:?DIR}" "${3:?NAME}" ;;
  truth) php "$here/truth.php" "${2:?DIR}/db/${3:?NAME}.sqlite" ;;
  down) [ -d "${2:?DIR}" ] && { dir=$(cd "$2" && pwd); stop "$dir/php.pid" "$dir"; rm -rf "$dir"; } ;;
  *) sed -n '2,7p' "$0" >&2; exit 2 ;;
esac
