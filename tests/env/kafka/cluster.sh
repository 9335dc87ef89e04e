#!/usr/bin/env bash
# Three Kafka brokers in KRaft mode on loopback, each also a controller, everything on all three, two must have a write.
#   cluster.sh up DIR          starts them; prints BOOTSTRAP_SERVERS=127.0.0.1:port,127.0.0.1:port,127.0.0.1:port
#   cluster.sh kill DIR N      SIGKILL of broker N (1, 2 or 3)
#   cluster.sh stop DIR N      SIGTERM: a controlled shutdown, its leaderships move first
#   cluster.sh start DIR N     starts it again, same ports, same data, and waits until it serves
#   cluster.sh pause DIR N     SIGSTOP
#   cluster.sh resume DIR N    SIGCONT
#   cluster.sh down DIR        ends all three, paused ones too, and deletes DIR
# Environment: KAFKA_HEAP (default 256m)
#   KAFKA_PROXY=p1,p2,p3  the ports of three proxies: up gives each broker a listener that advertises its proxy and
#                         prints PROXIED=127.0.0.1:port,..., where each has to forward to. Several such groups, with a
#                         space between: a listener for each, for clients that are to have links of their own
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/../lib.sh"
. "$here/broker.sh"
export KAFKA_HEAP=${KAFKA_HEAP:-256m}

replicated() {
  sed -e '/^default.replication.factor=/s/=.*/=3/' -e '/^min.insync.replicas=/s/=.*/=2/' \
    -e '/^[a-z.]*replication.factor=1$/s/=.*/=3/' -e '/^[a-z.]*min.isr=1$/s/=.*/=2/' -i "$1/server.properties"
}

up() {
  local dir=$1 id n group voters='' bootstrap='' proxied='' ports=() controllers=() pairs=() groups=() proxies=() port upstreams=''
  mkdir -p "$dir"
  dir=$(cd "$dir" && pwd)
  id=$(cluster_id)
  for n in 1 2 3; do
    ports[n]=$(free_port) controllers[n]=$(free_port) pairs[n]=''
    voters+=${voters:+,}$n@127.0.0.1:${controllers[n]}
    bootstrap+=${bootstrap:+,}127.0.0.1:${ports[n]}
  done
  read -ra groups <<<"${KAFKA_PROXY:-}"
  for group in "${groups[@]}"; do
    IFS=, read -ra proxies <<<"$group"
    [ "${#proxies[@]}" = 3 ] || { echo "KAFKA_PROXY: three ports, not ${#proxies[@]}" >&2; exit 2; }
    upstreams=
    for n in 1 2 3; do
      port=$(free_port)
      pairs[n]+=" $port ${proxies[n - 1]}"
      upstreams+=${upstreams:+,}127.0.0.1:$port
    done
    proxied+=${proxied:+ }$upstreams
  done
  for n in 1 2 3; do
    mkdir -p "$dir/$n"
    # shellcheck disable=SC2086
    properties "$dir/$n" "$n" "$voters" "${ports[n]}" "${controllers[n]}" ${pairs[n]}
    replicated "$dir/$n"
    format "$dir/$n" "$id"
    launch "$dir/$n"
  done
  for n in 1 2 3; do served "$dir/$n" "$dir"; done
  echo "BOOTSTRAP_SERVERS=$bootstrap"
  [ -z "$proxied" ] || echo "PROXIED=$proxied"
}

# to SIGNAL DIR N: the signal to the one process of broker N.
to() { alive "$2/$3/kafka.pid" "$2/$3" && kill "-$1" "$(cat "$2/$3/kafka.pid")"; }

down() {
  local dir=$1 n
  for n in 1 2 3; do
    to CONT "$dir" "$n" 2>/dev/null || true
    # A controlled shutdown would wait for a quorum that is going away.
    stop "$dir/$n/kafka.pid" "$dir/$n" KILL
  done
  rm -rf "$dir"
}

command=${1:-} dir=
if [ -n "$command" ]; then
  dir=${2:?DIR}
  [ "$command" = up ] || { [ -d "$dir" ] || { [ "$command" = down ] && exit 0; echo "no folder $dir" >&2; exit 1; }; dir=$(cd "$dir" && pwd); }
fi
case $command in
  up) up "$dir" ;;
  kill) stop "$dir/${3:?N}/kafka.pid" "$dir/$3" KILL ;;
  stop) stop "$dir/${3:?N}/kafka.pid" "$dir/$3" ;;
  start) start "$dir/${3:?N}" "$dir" ;;
  pause) to STOP "$dir" "${3:?N}" ;;
  resume) to CONT "$dir" "${3:?N}" ;;
  down) down "$dir" ;;
  *) sed -n '2,13p' "$0" >&2; exit 2 ;;
esac
