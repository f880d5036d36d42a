#!/usr/bin/env bash
# Installs what examples/speech takes its sentences from: the speech synthesizer eSpeak NG, if it is not there yet.
# Without it the example's tests are skipped by name; with REDAN_ESPEAK=required they fail.
set -euo pipefail

if command -v espeak-ng >/dev/null; then exit 0; fi
if ! command -v apt-get >/dev/null; then
  echo "examples/speech/install.sh: there is no espeak-ng and no apt-get to install it with; install eSpeak NG." >&2
  exit 1
fi
as_root=()
if [ "$(id -u)" -ne 0 ]; then as_root=(sudo); fi
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends espeak-ng >/dev/null
