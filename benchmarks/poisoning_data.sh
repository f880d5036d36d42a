#!/usr/bin/env bash
# Installs the data of `make bench-poisoning`: Fashion-MNIST whole, from Debian's package, if it is not there yet.
set -euo pipefail

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
