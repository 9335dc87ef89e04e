#!/usr/bin/env bash
# Ceph's S3 gateway on loopback: one monitor, one object store in memory, one radosgw; about 110 MB in all.
#   rgw.sh up DIR       starts all with an empty bucket `weir`; prints S3_ENDPOINT, S3_ACCESS_KEY, S3_SECRET_KEY
#   rgw.sh kill DIR     SIGKILL of the gateway; monitor and store, and so the data, stay
#   rgw.sh start DIR    starts the gateway again on the same port
#   rgw.sh down DIR     stops all and deletes DIR
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/../lib.sh"
access_key=weirtest secret_key=weirtestsecret

gateway() {
  local dir=$1 port
  port=$(cat "$dir/port")
  radosgw -c "$dir/ceph.conf" -n client.rgw.a
  wait_for 60 "radosgw ($dir/log)" answers "$port"
}

up() {
  local dir=$1 fsid port osd
  for program in ceph-mon ceph-osd radosgw ceph curl openssl; do
    command -v "$program" >/dev/null || { echo "rgw.sh: $program is missing; run tests/env/deps.sh ceph" >&2; exit 1; }
  done
  mkdir -p "$dir"
  dir=$(cd "$dir" && pwd)
  mkdir -p "$dir"/{run,log,mon,osd}
  fsid=$(cat /proc/sys/kernel/random/uuid) osd=$(cat /proc/sys/kernel/random/uuid)
  port=$(free_port)
  echo "$port" >"$dir/port"
  export CEPH_CONF=$dir/ceph.conf CEPH_ARGS=
  sed -e "s|@DIR@|$dir|g" -e "s|@FSID@|$fsid|g" -e "s|@MON_PORT@|$(free_port)|g" -e "s|@PORT@|$port|g" \
    "$here/ceph.conf" >"$CEPH_CONF"
  monmaptool --create --clobber --fsid "$fsid" --addv a "$(sed -n 's/^mon host = //p' "$CEPH_CONF")" "$dir/monmap" >/dev/null
  ceph-authtool --create-keyring "$dir/keyring" --gen-key -n mon. --cap mon 'allow *' >/dev/null
  ceph-mon --mkfs -i a -c "$CEPH_CONF" --monmap "$dir/monmap" --keyring "$dir/keyring"
  ceph-mon -i a -c "$CEPH_CONF"
  ceph --connect-timeout 20 -c "$CEPH_CONF" osd new "$osd" >/dev/null
  ceph-osd -i 0 -c "$CEPH_CONF" --mkfs --osd-uuid "$osd" >"$dir/log/mkfs.log" 2>&1
  ceph-osd -i 0 -c "$CEPH_CONF" >>"$dir/log/mkfs.log" 2>&1
  osd_up() { ceph --connect-timeout 5 -c "$CEPH_CONF" osd stat 2>/dev/null | grep -q '1 up'; }
  wait_for 60 "ceph-osd ($dir/log)" osd_up
  gateway "$dir"
  radosgw-admin -c "$CEPH_CONF" user create --uid=weir --display-name=weir \
    --access-key="$access_key" --secret-key="$secret_key" >/dev/null
  make_bucket() {  # by the old, short signature: curl's own AWS signing leaves the port out and is refused
    local date; date=$(LC_ALL=C date -Ru)
    curl -sf -o /dev/null -X PUT -H "Date: $date" -H "Authorization: AWS $access_key:$(printf 'PUT\n\n\n%s\n/weir' "$date" |
      openssl dgst -sha1 -hmac "$secret_key" -binary | base64)" "http://127.0.0.1:$port/weir"
  }
  wait_for 20 "bucket weir" make_bucket
  printf 'S3_ENDPOINT=http://127.0.0.1:%s\nS3_ACCESS_KEY=%s\nS3_SECRET_KEY=%s\n' "$port" "$access_key" "$secret_key"
}

down() {
  local dir
  [ -d "$1" ] || return 0
  dir=$(cd "$1" && pwd)
  for daemon in client.rgw.a osd.0 mon.a; do stop "$dir/run/$daemon.pid" "$dir"; done
  rm -rf "$dir"
}

case ${1:-} in
  up) up "${2:?DIR}" ;;
  kill) dir=$(cd "${2:?DIR}" && pwd); stop "$dir/run/client.rgw.a.pid" "$dir" KILL ;;
  start) gateway "$(cd "${2:?DIR}" && pwd)" ;;
  down) down "${2:?DIR}" ;;
  *) sed -n '2,6p' "$0" >&2; exit 2 ;;
esac
