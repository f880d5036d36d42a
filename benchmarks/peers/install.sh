#!/usr/bin/env bash
# Make .envs/peers, the environment of the benchmarks' peers. A second call with the same requirements does nothing.
# PYTHON names another interpreter than python3.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
root="$(cd "$here/../.." && pwd)"
environment="$root/.envs/peers"
python="$environment/bin/python"
stamp="$environment/requirements.sha256"
requirements="$here/requirements.txt"
data="$here/data.txt"

digest="$("${PYTHON:-python3}" -c '
import hashlib, platform, sys
content = b"".join(open(path, "rb").read() for path in sys.argv[1:]) + platform.python_version().encode()
print(hashlib.sha256(content).hexdigest())' "$requirements" "$data" "$here/install.sh")"

if [[ -x "$python" && -f "$stamp" && "$(<"$stamp")" == "$digest" ]]; then
    echo "peers: $environment is up to date"
    exit 0
fi

"${PYTHON:-python3}" -m venv --clear "$environment"
# torch brings its own dependencies, which differ by platform; everything else is pinned in full.
"$python" -m pip install --quiet --constraint "$requirements" torch numpy safetensors
"$python" -m pip install --quiet --no-deps --requirement "$requirements" --requirement "$data"

# The stamp is written only when each peer can be imported, so that a broken environment is built again.
"$python" "$here/worker.py" --check
echo "$digest" > "$stamp"
echo "peers: $environment is ready"
