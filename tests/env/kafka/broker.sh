# Sourced by kafka.sh and cluster.sh: the broker's jars, its command line, its start.

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

# Compiling with C1 alone halves the CPU time of a start; KAFKA_JIT=full gives that up for a broker that costs less later.
jvm() { echo "-XX:+UseSerialGC $([ "${KAFKA_JIT:-}" = full ] || echo -XX:TieredStopAtLevel=1) -Djava.awt.headless=true -Dlog4j2.configurationFile=$here/log4j2.properties"; }
tool() { java -Xmx128m $(jvm) -Dweir.log.level=error -cp "$(jars)/*" "$@"; }

# start DIR [MARK]: the broker whose server.properties lie in DIR, until it serves. MARK is on the command line of the
# calling script too, which the process carries for a moment until it is Java's; DIR unless given.
start() { launch "$1"; served "$@"; }

launch() {
  local dir=$1 heap=${KAFKA_HEAP:-320m}
  : >"$dir/kafka.log"
  # shellcheck disable=SC2046
  setsid java "-Xms${heap}" "-Xmx${heap}" $(jvm) -cp "$(jars)/*" kafka.Kafka "$dir/server.properties" \
    >>"$dir/kafka.log" 2>&1 </dev/null &
  echo $! >"$dir/kafka.pid"
}

served() {
  local dir=$1 mark=${2:-$1}
  started() {
    # Looked at twice: while it becomes another program a process has no command line.
    alive "$dir/kafka.pid" "$mark" || { sleep 0.3; alive "$dir/kafka.pid" "$mark"; } || { echo "the broker ended:" >&2; tail -5 "$dir/kafka.log" >&2; exit 1; }
    grep -q 'Kafka Server started' "$dir/kafka.log"
  }
  wait_for 120 "Kafka ($dir/kafka.log)" started
}

# properties DIR ID VOTERS PORT CONTROLLER [UPSTREAM ADVERTISED]...: writes DIR/server.properties. For each further pair the
# broker has a listener on port UPSTREAM that it advertises as port ADVERTISED: whoever comes in through a proxy there
# stays on it, for clients connect to what the metadata say.
properties() {
  local dir=$1 id=$2 voters=$3 port=$4 controller=$5 number=1
  local listener='' address='' protocol=''
  shift 5
  while [ $# -ge 2 ]; do
    listener+=",PROXY$number://127.0.0.1:$1" address+=",PROXY$number://127.0.0.1:$2" protocol+=",PROXY$number:PLAINTEXT"
    number=$((number + 1))
    shift 2
  done
  sed -e "s|@DIR@|$dir|g" -e "s|@ID@|$id|g" -e "s|@VOTERS@|$voters|g" -e "s|@PORT@|$port|g" -e "s|@CONTROLLER@|$controller|g" \
    -e "s|@LISTENER@|$listener|g" -e "s|@ADDRESS@|$address|g" -e "s|@PROTOCOL@|$protocol|g" \
    "$here/server.properties" >"$dir/server.properties"
}

format() {
  tool kafka.tools.StorageTool format -t "$2" -c "$1/server.properties" >"$1/format.log" 2>&1 || { cat "$1/format.log" >&2; exit 1; }
}

cluster_id() { echo "K$(head -c 16 /dev/urandom | base64 | tr '+/' '-_' | tr -d '=' | cut -c2-)"; }  # never a leading dash
