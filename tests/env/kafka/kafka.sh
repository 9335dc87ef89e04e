#!/usr/bin/env bash
# One Kafka broker in KRaft mode on loopback, with fresh data in a folder of its own.
#   kafka.sh jars            prints the folder with the broker's jars; fetches them by Maven the first time
#   kafka.sh up DIR          starts a broker; prints BOOTSTRAP_SERVERS=127.0.0.1:port
#   kafka.sh kill DIR        SIGKILL
#   kafka.sh start DIR       starts it again, same port, same data
#   kafka.sh down DIR        stops it and deletes DIR
#   kafka.sh tool CLASS ...  a command line tool, for example org.apache.kafka.tools.TopicCommand
# Environment: KAFKA_HEAP (default 320m)
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/../lib.sh"

jars() {
  local key cache work
  key=$(sha256sum "$here/pom.xml" | cut -c1-16)
  cache=${XDG_CACHE_HOME:-$HOME/.cache}/weir/kafka-$key
  if [ ! -d "$cache" ]; then
    mkdir -p "$(dirname "$cache")"
    exec 8>"$cache.lock"; flock 8
    if [ ! -d "$cache" ]; then
      echo "fetching Kafka's jars into $cache" >&2
      work=$(mktemp -d "$cache.XXXXXX")
      mvn -q -B -f "$here/pom.xml" dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$work" >&2 ||
        { rm -rf "$work"; echo "kafka.sh: Maven could not fetch the jars (see above)" >&2; return 1; }
      mv -T "$work" "$cache"   # whole or not at all
    fi
    exec 8>&-
  fi
  echo "$cache"
}

# Compiling with C1 alone halves the CPU time of a start.
jvm() { echo "-XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Djava.awt.headless=true -Dlog4j2.configurationFile=$here/log4j2.properties"; }
tool() { java -Xmx128m $(jvm) -Dweir.log.level=error -cp "$(jars)/*" "$@"; }

start() {
  local dir=$1 heap=${KAFKA_HEAP:-320m}
  : >"$dir/kafka.log"
  # shellcheck disable=SC2046
  setsid java "-Xms${heap}" "-Xmx${heap}" $(jvm) -cp "$(jars)/*" kafka.Kafka "$dir/server.properties" \
    >>"$dir/kafka.log" 2>&1 </dev/null &
  echo $! >"$dir/kafka.pid"
  started() {
    alive "$dir/kafka.pid" "$dir" || { echo "the broker ended:" >&2; tail -5 "$dir/kafka.log" >&2; exit 1; }
    grep -q 'Kafka Server started' "$dir/kafka.log"
  }
  wait_for 120 "Kafka ($dir/kafka.log)" started
}

up() {
  local dir=$1 port controller uuid
  mkdir -p "$dir"
  dir=$(cd "$dir" && pwd)
  port=$(free_port) controller=$(free_port)
  sed -e "s|@DIR@|$dir|g" -e "s|@PORT@|$port|g" -e "s|@CONTROLLER@|$controller|g" "$here/server.properties" >"$dir/server.properties"
  uuid=K$(head -c 16 /dev/urandom | base64 | tr '+/' '-_' | tr -d '=' | cut -c2-)  # never a leading dash
  tool kafka.tools.StorageTool format -t "$uuid" -c "$dir/server.properties" >"$dir/format.log" 2>&1 ||
    { cat "$dir/format.log" >&2; exit 1; }
  start "$dir"
  echo "BOOTSTRAP_SERVERS=127.0.0.1:$port"
}

case ${1:-} in
  jars) jars ;;
  up) up "${2:?DIR}" ;;
  start) start "$(cd "${2:?DIR}" && pwd)" ;;
  kill) stop "${2:?DIR}/kafka.pid" "$(cd "$2" && pwd)" KILL ;;
  down) [ -d "${2:?DIR}" ] && { stop "$2/kafka.pid" "$(cd "$2" && pwd)"; rm -rf "$2"; } ;;
  tool) shift; tool "$@" ;;
  *) sed -n '2,9p' "$0" >&2; exit 2 ;;
esac
