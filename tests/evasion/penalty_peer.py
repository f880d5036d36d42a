"""Penalty attacks of other libraries: `python penalty_peer.py PEERS MODEL SETTINGS OUT`, run by the tests.

PEERS is the folder benchmarks/peers, SETTINGS a JSON list of [library, attack, rate, weight, searches, steps], OUT the
safetensors file with the adversarial images of each, by its place in the list.
"""

import json
import sys

sys.path.insert(0, sys.argv[1])
import torch
import worker
from safetensors.torch import save_file

sys.path.append(str(worker.attacks.STUBS))
from adv_lib.attacks.carlini_wagner import carlini_wagner_l2, carlini_wagner_linf
from cleverhans.torch.attacks.carlini_wagner_l2 import carlini_wagner_l2 as of_cleverhans
from foolbox import PyTorchModel
from foolbox.attacks import EADAttack
from foolbox.criteria import Misclassification

torch.set_num_threads(1)
model, (x, y) = worker.load_model(sys.argv[2]), worker.load_rows(256)
found = {}
for place, (library, attack, rate, weight, searches, steps) in enumerate(json.loads(sys.argv[3])):
    if attack == "EAD":
        ead = EADAttack(searches, steps, rate, initial_const=weight, regularization=0.01, decision_rule="L1")
        made = ead.run(PyTorchModel(model, bounds=(0, 1)), x, Misclassification(y))
    elif attack == "Linf":
        made = carlini_wagner_linf(
            model, x, y, learning_rate=rate, initial_const=weight, max_iterations=steps, largest_const=100.0
        )
    elif library == "cleverhans":
        made = of_cleverhans(
            model, x, 10, y=y, lr=rate, initial_const=weight, binary_search_steps=searches, max_iterations=steps
        )
    else:
        made = carlini_wagner_l2(
            model,
            x,
            y,
            learning_rate=rate,
            initial_const=weight,
            binary_search_steps=searches,
            max_iterations=steps,
        )
    found[str(place)] = made.detach().contiguous()
save_file(found, sys.argv[4])
