"""Attacks of ART, Foolbox, CleverHans and torchattacks in a threat model, beside redan's, in one report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import redan
from redan.errors import SetError
from redan.evidence.report import Report, Verdict

pytestmark = [
    pytest.mark.extras,
    pytest.mark.interop,
    pytest.mark.filterwarnings("ignore:Please import:DeprecationWarning"),  # Foolbox, of SciPy
]
Write = Callable[..., Path]

THEIRS = {
    "by ART": ("redan.integrations.art:ProjectedGradientDescent", {"linf": 0.1}),
    "by Foolbox": ("redan.integrations.foolbox:DDNAttack", {"l2": 0.2}),
    "by CleverHans": ("redan.integrations.cleverhans:sparse_l1_descent", {"l1": 0.4}),
}
WEAK = 6


def attacker(name: str, change: dict[str, float], **more: Any) -> dict[str, Any]:
    common = {"kind": "evasion", "why": "open to all", "goal": "untargeted", "knowledge": "gradients"}
    return common | {"name": name, "change": change} | more


def broken_again(report: Report, shop: Path) -> int:
    """Saved inputs that the model, asked here, takes for another class, over all attackers."""
    with np.load(shop.parent / "rows.npz") as rows:
        drawn = np.random.default_rng(0).permutation(len(rows["y"]))  # as the seed draws them
        right = torch.from_numpy(rows["y"][drawn])
    pairs = torch.zeros(3, 7)
    for c in range(3):
        pairs[c, 2 * c : 2 * c + 2] = 1
    found = 0
    for path in (Path(report.run.folder) / "inputs").iterdir():
        tensors = load_file(path)
        found += int(((tensors["x"] @ pairs.T).argmax(1) != right[tensors["row"]]).sum())
    return found


def test_each_library_s_attack_breaks_what_it_can_beside_ours(shop: Write) -> None:
    """One attacker a library, and one with redan's own Square: the known weak rows, measured again, and no other."""
    square = attacker("by redan", {"linf": 0.1}, knowledge="scores", capability={"queries_per_row": 100})
    path = shop(
        weak=WEAK,
        attackers=[*(attacker(name, change) for name, (_, change) in THEIRS.items()), square],
        attacks={
            "mode": "quick",
            "skip": ["fast-cascade", "apgd-ce"],
            "add": [name for name, _ in THEIRS.values()],
        },
        requirements=[{"metric": "robust_accuracy", "at_least": 0.5, "against": name} for name in THEIRS],
    )
    report = redan.assess(path)
    parts = {part.name: part for part in report.attackers}
    for name, (attack, _) in THEIRS.items():
        (found,) = parts[name].attacks
        assert found.name == attack.partition(":")[2]
        assert (found.status, found.attempted, found.broken) == ("done", 32, WEAK)
        assert found.queries > 0
        assert "library=" in found.settings
        assert "0x" not in found.settings
    (ours,) = parts["by redan"].attacks
    assert ours.broken > 0
    assert broken_again(report, path) == 3 * WEAK + ours.broken
    assert report.verdict is Verdict.PASS


def test_all_of_them_and_ours_against_one_attacker(shop: Write) -> None:
    """In turn on the rows that are left: ours first, then theirs, none of which finds a row more."""
    added = [
        "redan.integrations.art:ProjectedGradientDescent",
        "redan.integrations.foolbox:LinfPGD",
        "redan.integrations.cleverhans:projected_gradient_descent",
        "redan.integrations.torchattacks:PGD",
    ]
    report = redan.assess(shop(weak=WEAK, attacks={"mode": "quick", "add": added}))
    (part,) = report.attackers
    counted = {attack.name: (attack.status, attack.attempted, attack.broken) for attack in part.attacks}
    left = ("done", 32 - WEAK, 0)
    assert counted == {"fast-cascade": ("done", 32, WEAK)} | {name.partition(":")[2]: left for name in added}
    assert all(attack.backwards > 0 for attack in part.attacks)


def test_a_misfit_is_named_before_anything_runs(shop: Write) -> None:
    with pytest.raises(SetError, match="DDNAttack, which no attacker can use: it moves in L2"):
        redan.assess(shop(attacks__add=["redan.integrations.foolbox:DDNAttack"]))
