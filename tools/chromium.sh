#!/usr/bin/env bash
# Installs what the browser tests of the report look at pages with: Chromium and a font, if no Chromium is there yet.
# Without it the tests are skipped by name; with CI=true or REDAN_CHROMIUM=required they fail.
set -euo pipefail

has_chromium() {
  local name
  for name in chromium chromium-browser google-chrome google-chrome-stable; do
    if command -v "$name" >/dev/null; then return 0; fi
  done
  return 1
}

if has_chromium; then exit 0; fi
if ! command -v apt-get >/dev/null; then
  echo "tools/chromium.sh: there is no Chromium and no apt-get to install it with; install Chromium or Chrome." >&2
  exit 1
fi
as_root=()
if [ "$(id -u)" -ne 0 ]; then as_root=(sudo); fi
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
  apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >/dev/null
