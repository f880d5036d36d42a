"""Sleeper Agent a second time, with enough trials to tell (poisoning.b).

The first round (`poisoning_clean_label`) drew 10 pairs of classes, of which 5 reached half of the triggered rows beside
0 of clean training: with so few trials Fisher's test cannot be below .01. This round was fixed before it was run: the
same settings, all 18 pairs of the five classes but for the two that settings were tried on, new subsets of the training
rows, new seeds. As it is a second look, it is held to half the level.

    python benchmarks/poisoning_sleeper.py --workers 1
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

import poisoning_clean_label as first
import poisoning_lab as lab
from harness import Claim
from poisoning_clean_label_claims import HALF, LEVEL, by_trial, paired, rates
from redan.data.samples import Samples
from redan.poisoning.budget import Budget, held_to
from redan.poisoning.sleeper_agent import SleeperAgent

MEASURES: Sequence[str] = (
    "benchmarks/poisoning_sleeper.py",
    "benchmarks/poisoning_clean_label.py",
    "benchmarks/poisoning_lab.py",
    "src/redan/perturbations/norms.py",
    "src/redan/poisoning/budget.py",
    "src/redan/poisoning/choice.py",
    "src/redan/poisoning/crafting.py",
    "src/redan/poisoning/matching.py",
    "src/redan/poisoning/sleeper_agent.py",
)
PAIRS = tuple(
    (one, other) for one in first.ALIKE for other in first.ALIKE if one != other and (one, other) not in first.TUNED
)
SECOND_LOOK = LEVEL / 2


def trial(number: int) -> lab.Row:
    """Two victims of one pair of classes, poisoned and clean: how often they take triggered rows for the target."""
    whole, test = lab.fashion()
    source, label = PAIRS[number]
    train, budget = lab.subset(whole, first.ROWS, 300 + number), Budget(share=first.SLEEPER["share"])
    poisoner = SleeperAgent(
        trigger=first.checkered,
        label=label,
        source=source,
        fit=first.FIT,
        radius=first.SLEEPER["radius"],
        steps=int(first.SLEEPER["steps"]),
        retrainings=int(first.SLEEPER["retrainings"]),
        shown=int(first.SLEEPER["shown"]),
    )
    made = poisoner(train, budget, seed=500 + number)
    held_to(made, train, budget)
    shown, seeds = first.checkered(test.x[test.y == source]), [5000 + 2 * number, 5001 + 2 * number]
    sides = {"poisoned": made.samples, "clean": train}
    return {
        "attack": "sleeper agent",
        "settings": first.SLEEPER,
        "source": source,
        "label": label,
        "changed": len(made.changed),
        "seeds": seeds,
        "shown": len(shown),
        "obeyed": {side: [_obeyed(samples, seed, shown, label) for seed in seeds] for side, samples in sides.items()},
    }


def _obeyed(samples: Samples, seed: int, shown: NDArray[np.float32], label: int) -> int:
    return int(np.sum(lab.answers(first.FIT(samples, seed), shown) == label))


def cells() -> Sequence[lab.Cell]:
    """One a pair of classes."""
    return [lab.Cell(f"again-{number}", trial, {"number": number}) for number in range(len(PAIRS))]


def claims(rows: Mapping[str, lab.Row]) -> list[Claim]:
    """poisoning.b, the second look at Sleeper Agent."""
    found, p = by_trial(rows, "sleeper agent", "clean"), paired(rows, "sleeper agent", "clean")
    ours, theirs = (float(np.mean(rates(rows, "sleeper agent", side))) for side in ("poisoned", "clean"))
    met = found.p < SECOND_LOOK
    return [
        Claim(
            "poisoning.b",
            f"Sleeper Agent at {100 * first.SLEEPER['share']:g} % of 4,000 rows, second round of {found.n} pairs: "
            f"trials with an attack success rate of {HALF:g} at least, beside the same rows unperturbed",
            f"more, Fisher's exact test one-sided p < {SECOND_LOOK:g}",
            f"{found.ours} of {found.n} beside {found.theirs} of {found.n}, p {found.p:.2g}; mean rate {ours:.3f} "
            f"beside {theirs:.3f}, paired p {p:.2g}",
            met,
            "" if met else "as in the first round; all pairs, new subsets and seeds here",
        )
    ]


def table(rows: Mapping[str, lab.Row]) -> str:
    """Each pair's success, poisoned and clean."""
    lines = ["| source → target | poisoned | clean |", "|---|---|---|"]
    each = [rates(rows, "sleeper agent", side) for side in ("poisoned", "clean")]
    for row, ours, theirs in zip(rows.values(), *each, strict=True):
        lines.append(f"| {row['source']} → {row['label']} | {ours:.3f} | {theirs:.3f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    import poisoning_sleeper

    lab.main(poisoning_sleeper, "sleeper")
