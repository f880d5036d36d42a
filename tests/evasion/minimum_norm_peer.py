"""adv-lib's minimum-norm attacks on a sample model: `python minimum_norm_peer.py PEERS SETTINGS OUT`, run by the tests.

PEERS is the folder benchmarks/peers, SETTINGS a JSON list of [attack, order, steps], OUT the safetensors file with
the adversarial images of each, by its place in the list.
"""

import json
import sys

sys.path.insert(0, sys.argv[1])
import torch
import worker
from safetensors.torch import save_file

sys.path.append(str(worker.attacks.STUBS))
from adv_lib.attacks import ddn
from adv_lib.attacks.fast_minimum_norm import fmn
from adv_lib.attacks.primal_dual_gradient_descent import pdpgd
from adv_lib.attacks.sigma_zero import sigma_zero

torch.set_num_threads(1)
model, (x, y) = worker.load_model("robust"), worker.load_rows(256)
found = {}
for place, (name, order, steps) in enumerate(json.loads(sys.argv[2])):
    torch.manual_seed(0)
    if name == "DDN":
        made = ddn(model, x, y, steps=steps, levels=None)
    elif name == "FMN":
        made = fmn(model, x, y, norm=float(order), steps=steps)
    elif name == "PDPGD":
        made = pdpgd(model, x, y, float(order), num_steps=steps, proximal_operator=None if float(order) else 23)
    else:
        made = sigma_zero(model, x, y, num_steps=steps)
    found[str(place)] = made.detach().contiguous()
save_file(found, sys.argv[3])
