#!/usr/bin/env bash
# Make .envs/interop: redan, its tests' tools, the real ART, Foolbox, CleverHans and torchattacks, and the training loops
# of Lightning and accelerate. A second call with the same requirements does nothing. PYTHON names another interpreter
# than python3.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
environment="$root/.envs/interop"
python="$environment/bin/python"
stamp="$environment/requirements.sha256"

# ART imports packaging, and its AutoAttack multiprocess, without asking for either.
peers=(adversarial-robustness-toolbox==1.20.1 packaging multiprocess==0.70.19 scikit-learn==1.9.1)
loops=(pytorch-lightning==2.6.6 accelerate==1.15.0)
# Installed without what they ask for: tensorflow-probability, torchvision, an old requests, which their torch attacks do
# not need. Foolbox needs the last three.
bare=(foolbox==3.3.4 cleverhans==4.0.0 torchattacks==3.5.1)
needed=(eagerpy==0.30.0 GitPython requests)

digest="$(cat "$root/pyproject.toml" "$root/constraints.txt" "${BASH_SOURCE[0]}" | sha256sum | cut -d' ' -f1)"
if [[ -x "$python" && -f "$stamp" && "$(<"$stamp")" == "$digest" ]]; then
    echo "interop: $environment is up to date"
    exit 0
fi

"${PYTHON:-python3}" -m venv --clear "$environment"
"$python" -m pip install --quiet --upgrade "pip>=25.1"
"$python" -m pip install --quiet -c "$root/constraints.txt" torch numpy
"$python" -m pip install --quiet -c "$root/constraints.txt" -e "$root" --group "$root/pyproject.toml:dev" \
    "${peers[@]}" "${needed[@]}" "${loops[@]}"
"$python" -m pip install --quiet --no-deps "${bare[@]}"
"$python" -c "import accelerate, pytorch_lightning, art.attacks.evasion, art.estimators.classification, foolbox, torchattacks
import cleverhans.torch.attacks.projected_gradient_descent, cleverhans.torch.attacks.hop_skip_jump_attack"
echo "$digest" > "$stamp"
echo "interop: $environment is ready"
