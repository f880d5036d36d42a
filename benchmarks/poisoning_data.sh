#!/usr/bin/env bash
# Installs what `make bench-poisoning` needs besides redan: Fashion-MNIST whole, from Debian's package, and the packages
# of the group bench-poisoning for the Python that is named, where they are not there yet.
set -euo pipefail

python=${1:-.venv/bin/python}
cd "$(dirname "$0")/.."
if ! "$python" -c "import cleanlab, matplotlib, mlxtend" 2>/dev/null; then
  "$python" -m pip install --quiet -c constraints.txt --group bench-poisoning
fi
if [ -d /usr/share/datasets/fashion-mnist ]; then exit 0; fi
if ! command -v apt-get >/dev/null; then
  echo "benchmarks/poisoning_data.sh: there is no apt-get; put the four files of Fashion-MNIST into" \
    "/usr/share/datasets/fashion-mnist" >&2
  exit 1
fi
as_root=()
if [ "$(id -u)" -ne 0 ]; then as_root=(sudo); fi
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq dataset-fashion-mnist >/dev/null
