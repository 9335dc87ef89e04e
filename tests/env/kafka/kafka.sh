#!/usr/bin/env bash
# One Kafka broker in KRaft mode on loopback, with fresh data in a folder of its own.
#   kafka.sh jars            prints the folder with the broker's jars; fetches them by Maven the first time
#   kafka.sh up DIR          starts a broker; prints BOOTSTRAP_SERVERS=127.0.0.1:port
#   kafka.sh kill DIR        SIGKILL
#   kafka.sh start DIR       starts it again, same port, same data
#   kafka.sh down DIR        stops it and deletes DIR
#   kafka.sh tool CLASS ...  a command line tool, for example org.apache.kafka.tools.TopicCommand
# Environment: KAFKA_HEAP (default 320m)
#   KAFKA_PROXY=port    the port of a proxy: up adds a listener that advertises it and prints PROXIED=127.0.0.1:port,
#                       where the proxy has to forward to
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/../lib.sh"
. "$here/broker.sh"

up() {
  local dir=$1 port controller upstream=
  mkdir -p "$dir"
  dir=$(cd "$dir" && pwd)
  port=$(free_port) controller=$(free_port)
  [ -z "${KAFKA_PROXY:-}" ] || upstream=$(free_port)
  # shellcheck disable=SC2086
  properties "$dir" 1 "1@127.0.0.1:$controller" "$port" "$controller" $upstream ${KAFKA_PROXY:-}
  format "$dir" "$(cluster_id)"
  start "$dir"
  echo "BOOTSTRAP_SERVERS=127.0.0.1:$port"
  [ -z "$upstream" ] || echo "PROXIED=127.0.0.1:$upstream"
}

case ${1:-} in
  jars) jars ;;
  up) up "${2:?DIR}" ;;
  start) start "$(cd "${2:?DIR}" && pwd)" ;;
  kill) stop "${2:?DIR}/kafka.pid" "$(cd "$2" && pwd)" KILL ;;
  down) [ -d "${2:?DIR}" ] && { stop "$2/kafka.pid" "$(cd "$2" && pwd)"; rm -rf "$2"; } ;;
  tool) shift; tool "$@" ;;
  *) sed -n '2,11p' "$0" >&2; exit 2 ;;
esac
