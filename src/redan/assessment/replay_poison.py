"""A run's victims checked again: their saved answers counted, and some trained anew where training is repeatable."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from redan.assessment.poisoning import certificate_again
from redan.assessment.session import Prepared
from redan.assessment.trainers import Task, trained
from redan.errors import EvidenceError
from redan.evidence.folder import RunFolder
from redan.evidence.log import VictimLine
from redan.evidence.summary import Summary

__all__ = ["victims_again"]


def victims_again(ready: Prepared, folder: RunFolder, found: Summary) -> Iterator[str | None]:
    """For each victim, and the certificate, what disagrees in a sentence; None where nothing does.

    Answers are counted again from what was saved. Where the threat model says that training is deterministic, the
    first victim of each poisoner, and of clean rows, is poisoned and trained again, and must answer as it did.
    """
    lines = [*found.clean.values(), *(line for poison in found.poisons.values() for line in poison.victims.values())]
    for line in lines:
        yield _counted(line, folder, found)
    if found.certified is not None and ready.shop is not None:
        again = certificate_again(ready.shop, folder, found)
        yield None if again == found.certified.certificate else "the certificate is not what its votes prove"
    if ready.shop is not None and _repeatable(ready):
        yield from _trained_again(ready, folder, [line for line in lines if not line.number and line.answers])


def _repeatable(ready: Prepared) -> bool:
    training = ready.loaded.model.system.training
    return training is not None and training.deterministic


def _named(line: VictimLine) -> str:
    if line.attacker is None:
        return f"victim {line.number} of clean rows"
    return f"victim {line.number} of {line.poisoner} at {line.share:g} ({line.attacker})"


def _counted(line: VictimLine, folder: RunFolder, found: Summary) -> str | None:
    """Whether a victim's rates follow from its saved answers."""
    if line.answers is None:
        return None
    try:
        kept = folder.load_inputs(line.answers, line.sha256)
    except EvidenceError as error:
        return str(error)
    labels = torch.tensor(found.head.labels)
    clean = kept.get("clean")
    if clean is None or clean.shape != labels.shape or int((clean == labels).sum()) != line.right:
        return f"{_named(line)}: its saved answers give another accuracy"
    if "asked" in kept and line.attacker is not None and line.asked.get(line.attacker, (0, 0))[1]:
        reached = int((kept["asked"] == kept["wanted"]).sum())
        if (reached, len(kept["asked"])) != line.asked[line.attacker]:
            return f"{_named(line)}: its saved answers give another success"
    return None


def _trained_again(ready: Prepared, folder: RunFolder, lines: list[VictimLine]) -> Iterator[str | None]:
    full = {line.attacker: max(each.share or 0 for each in lines if each.attacker == line.attacker) for line in lines}
    chosen = [line for line in lines if line.attacker is None or line.share == full[line.attacker]]
    tasks = [
        Task("clean", {"number": 0})
        if line.attacker is None
        else Task(
            "victim",
            {"attacker": line.attacker, "poisoner": line.poisoner, "share": line.share, "number": line.number},
        )
        for line in chosen
    ]
    for at, done in trained(ready.loaded.path, ready.loaded.digest, tasks, 1, lambda: True):
        line = chosen[at]
        kept = folder.load_inputs(line.answers or "", line.sha256)["clean"].numpy()
        if done.told.get("poison") != line.poison:
            yield f"{_named(line)}: poisoning the rows again gives other rows"
        elif "clean" not in done.arrays or not (done.arrays["clean"] == kept).all():
            yield f"{_named(line)}: trained again, it answers otherwise; system.training.deterministic is not true"
        else:
            yield None
