"""Foolbox's HopSkipJump on sample models: `python hopskipjump_peer.py PEERS SETTINGS OUT`, run by the tests.

PEERS is the folder benchmarks/peers, SETTINGS a JSON object with kind ("l2" or "linf"), marks (numbers of queries),
models and count (of rows that a model answers right). OUT is JSON: for each model and mark the distance of each row's
nearest wrong answer after so many queries, null where Foolbox found no start. A row is attacked alone, because in a
batch Foolbox divides all normals by one common length. Its search for a start is not counted.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, sys.argv[1])
import foolbox
import torch
import worker
from torch import Tensor, nn

asked = json.loads(sys.argv[2])


class Spent(Exception):
    """All queries are spent."""


class Metered(nn.Module):
    """Counts the inputs that a model answers, and keeps how near the nearest wrong one is."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.begin(torch.zeros(1), 0, (sys.maxsize,))

    def begin(self, x: Tensor, label: int, marks: tuple[int, ...]) -> None:
        """A new row, and at which numbers of queries to note the distance."""
        self.x, self.label, self.marks = x, label, marks
        self.count, self.nearest = 0, float("inf")
        self.noted: dict[int, float] = {}

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.inner(x)
        for one, answer in zip(x, output, strict=True):
            self.count += 1
            if self.marks[0] != sys.maxsize and int(answer.argmax()) != self.label:
                change = (one - self.x).flatten()
                away = float(change.norm() if asked["kind"] == "l2" else change.abs().max())
                self.nearest = min(self.nearest, away)
            if self.count in self.marks:
                self.noted[self.count] = self.nearest
            if self.count >= max(self.marks):
                raise Spent
        return output


torch.set_num_threads(1)
found: dict[str, dict[str, list[float | None]]] = {}
for name in asked["models"]:
    victim, (x, y) = worker.load_model(name), worker.load_rows(2 * asked["count"])
    with torch.no_grad():
        right = victim(x).argmax(1) == y
    x, y = x[right][: asked["count"]], y[right][: asked["count"]]
    metered = Metered(victim).eval()
    model = foolbox.PyTorchModel(metered, bounds=(0, 1))
    noted: list[dict[int, float]] = []
    for i in range(len(x)):
        torch.manual_seed(i)
        goal = foolbox.criteria.Misclassification(y[i : i + 1])
        metered.begin(x[i], int(y[i]), (sys.maxsize,))
        try:
            start = foolbox.attacks.LinearSearchBlendedUniformNoiseAttack(steps=50).run(model, x[i : i + 1], goal)
            if int(victim(start).argmax(1)) == int(y[i]):  # no start was found
                noted.append({})
                continue
            metered.begin(x[i], int(y[i]), tuple(asked["marks"]))
            foolbox.attacks.HopSkipJumpAttack(constraint=asked["kind"]).run(
                model, x[i : i + 1], goal, starting_points=start
            )
        except Spent:
            pass
        noted.append(dict(metered.noted))
    found[name] = {str(mark): [each.get(mark) for each in noted] for mark in asked["marks"]}
Path(sys.argv[3]).write_text(json.dumps(found), encoding="utf-8")
