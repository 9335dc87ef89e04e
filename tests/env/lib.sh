# Sourced by the scripts beside it: processes by pid file, free ports, waiting.

# A TCP port of loopback that nobody listens on, below the range that outgoing connections are given. A folder named
# after it claims it for an hour, so that two callers at once never get the same one.
free_port() {
  local port claims
  claims=${TMPDIR:-/tmp}/weir-ports.$(id -u)
  mkdir -p "$claims"
  find "$claims" -mindepth 1 -mmin +60 -exec rmdir {} + 2>/dev/null || true
  for _ in $(seq 200); do
    port=$((20000 + (RANDOM * 32768 + RANDOM) % 12000))
    answers "$port" && continue
    mkdir "$claims/$port" 2>/dev/null && { echo "$port"; return 0; }
  done
  echo "no free port found" >&2
  return 1
}

# alive PIDFILE MARK: the process lives and its command line carries MARK, so that a reused pid is never taken for it.
alive() {
  local pid
  [ -s "$1" ] && pid=$(cat "$1") && [ -d "/proc/$pid" ] && tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -qF -- "$2"
}

# stop PIDFILE MARK [SIGNAL]: ends it and what it started (the group it leads, if any), after 10 s by SIGKILL.
stop() {
  alive "$1" "$2" || { rm -f "$1"; return 0; }
  local pid; pid=$(cat "$1")
  signal "${3:-TERM}" "$pid"
  for _ in $(seq 100); do alive "$1" "$2" || { rm -f "$1"; return 0; }; sleep 0.1; done
  signal KILL "$pid"
  rm -f "$1"
}
signal() { kill "-$1" -- "-$2" 2>/dev/null || kill "-$1" "$2" 2>/dev/null || true; }

# wait_for SECONDS WHAT COMMAND...: until the command succeeds.
wait_for() {
  local tries=$(($1 * 10)) what=$2; shift 2
  for _ in $(seq "$tries"); do "$@" && return 0; sleep 0.1; done
  echo "$what: not ready after $((tries / 10)) s" >&2
  return 1
}

answers() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
