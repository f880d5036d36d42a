"""Backdoors on Fashion-MNIST whole: how often the trigger is obeyed, and what clean rows notice (poisoning.a).

A victim is one network, trained from scratch on rows that its own poisoner drew: its seed is the poisoner's and the
training's. The clean victim of the same seed starts from the same weights and sees the rows in the same order. Success
counts the test rows that are not of the wanted class, stamped. Settings were tried on seeds from 100 on, which no cell
uses.

    python benchmarks/poisoning_backdoors.py --workers 1
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import poisoning_lab as lab
from poisoning_backdoors_claims import claims, table
from redan.poisoning.backdoor import AllToAll, Backdoor
from redan.poisoning.budget import Budget, held_to
from redan.poisoning.triggers import Blend, Patch, Sinusoid

__all__ = ["MEASURES", "cells", "claims", "clean_victim", "table", "victim"]

MEASURES: Sequence[str] = (
    "benchmarks/poisoning_backdoors.py",
    "benchmarks/poisoning_lab.py",
    "src/redan/data/samples.py",
    "src/redan/poisoning/backdoor.py",
    "src/redan/poisoning/budget.py",
    "src/redan/poisoning/choice.py",
    "src/redan/poisoning/triggers.py",
)
PAIRS = 10
OTHERS = range(1, 10)
"""Target classes beside 0, one victim each: is 0 an easy one?"""


class Recipe(NamedTuple):
    """One attack at one share. seeds: of its victims."""

    name: str
    attack: Backdoor
    share: float
    seeds: Sequence[int]


BADNETS = Backdoor(trigger=Patch(size=3), target=0)
RECIPES = (
    Recipe("badnets", BADNETS, 0.01, range(PAIRS)),
    *(Recipe("badnets", BADNETS, share, range(8)) for share in (0.005, 0.002, 0.001, 0.0005)),
    *(Recipe("badnets-others", Backdoor(trigger=Patch(size=3), target=c), 0.01, [c]) for c in OTHERS),
    Recipe("all-to-all", Backdoor(trigger=Patch(size=3), target=AllToAll(classes=10)), 0.1, range(3)),
    Recipe("blended", Backdoor(trigger=Blend(), target=0), 0.01, range(3)),
    Recipe("sig", Backdoor(trigger=Sinusoid(amplitude=0.2), target=0, clean_label=True), 0.05, range(3)),
)


def victim(name: str, attack: Backdoor, share: float, seed: int) -> lab.Row:
    """A victim trained on poisoned rows: the test rows it has right, and the stamped ones that it has as wanted."""
    train, test = lab.fashion()
    budget = Budget(share=share, may_change_labels=not attack.clean_label)
    made = attack(train, budget, seed=seed)
    held_to(made, train, budget)
    model = lab.Training()(made.samples, seed)
    stamped = attack.victims(test.x, test.y)
    return {
        "attack": name,
        "target": attack.target if isinstance(attack.target, int) else None,
        "share": share,
        "seed": seed,
        "poisoned": len(made.changed),
        "relabeled": int((made.samples.y != train.y).sum()),
        "right": int((lab.answers(model, test.x) == test.y).sum()),
        "rows": len(test),
        "obeyed": int((lab.answers(model, stamped.x) == stamped.wanted).sum()),
        "stamped": len(stamped.rows),
    }


def clean_victim(seed: int) -> lab.Row:
    """The same on clean rows: how often stamped rows are taken as wanted by a model that learned no trigger."""
    train, test = lab.fashion()
    model = lab.Training()(train, seed)
    taken = []
    for recipe in {recipe.name: recipe for recipe in RECIPES if recipe.name != "badnets-others"}.values():
        stamped = recipe.attack.victims(test.x, test.y)
        obeyed = int((lab.answers(model, stamped.x) == stamped.wanted).sum())
        taken.append({"attack": recipe.name, "obeyed": obeyed, "stamped": len(stamped.rows)})
    right = int((lab.answers(model, test.x) == test.y).sum())
    return {"attack": None, "seed": seed, "right": right, "rows": len(test), "taken": taken}


def cells() -> Sequence[lab.Cell]:
    """Pairs first, for they carry the claims."""
    clean = [lab.Cell(f"clean-{seed}", clean_victim, {"seed": seed}) for seed in range(PAIRS)]
    return clean + [
        lab.Cell(
            f"{recipe.name}-{100 * recipe.share:g}-{seed}",
            victim,
            {"name": recipe.name, "attack": recipe.attack, "share": recipe.share, "seed": seed},
        )
        for recipe in RECIPES
        for seed in recipe.seeds
    ]


if __name__ == "__main__":
    import poisoning_backdoors  # by name: a cell's process imports its work from there

    lab.main(poisoning_backdoors, "backdoors")
