"""A run's victims checked again: their saved answers counted, and some trained anew where training is repeatable."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing

import torch
from torch import Tensor

from redan.assessment.poisoning import certificate_again
from redan.assessment.session import Prepared
from redan.assessment.trainers import Task, trained
from redan.assessment.victim import Done
from redan.assessment.workshop import Workshop
from redan.errors import EvidenceError
from redan.evidence.folder import RunFolder
from redan.evidence.poison_lines import VictimLine
from redan.evidence.summary import Summary

__all__ = ["victims_again"]


def victims_again(ready: Prepared, folder: RunFolder, found: Summary) -> Iterator[str | None]:
    """For each victim, and the certificate, what disagrees in a sentence; None where nothing does.

    Answers are counted again from what was saved. Where the threat model says that training is deterministic, the
    first victim of each poisoner, and of clean rows, is poisoned and trained again, and must answer as it did. Raises
    EvidenceError for a threat model without an attacker of the run.
    """
    lines = [*found.clean.values(), *(line for poison in found.poisons.values() for line in poison.victims.values())]
    asked = [line for line in lines if line.error is None or line.answers is not None]
    whole = []
    for line in asked:
        odd = _counted(line, folder, found)
        whole += [] if odd else [line]
        yield odd
    yield from _pictures(folder, found)
    if found.certified is not None and ready.shop is not None:
        yield _certificate(ready.shop, folder, found)
    if ready.shop is not None and _repeatable(ready):
        for name in found.poisons:
            if name not in ready.shop.campaigns:
                raise EvidenceError(f"the threat model has no attacker '{name}'; give the run's own file")
        yield from _trained_again(ready, folder, [line for line in whole if not line.number])


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
        return f"{_named(line)}: its answers were not kept, so nothing shows what it did"
    try:
        kept = folder.load_inputs(line.answers, line.sha256)
        reached = _reached(line, kept, folder, found)
    except EvidenceError as error:
        return str(error)
    labels = torch.tensor(found.head.labels)
    clean = kept.get("clean")
    if (
        clean is None
        or clean.shape != labels.shape
        or (int((clean == labels).sum()), len(labels)) != (line.right, line.rows)
    ):
        return f"{_named(line)}: its saved answers give another accuracy"
    if line.attacker is None:
        return None
    if len(kept.get("changed", ())) != line.changed:
        return f"{_named(line)}: its saved answers tell another number of changed rows"
    if line.asked.get(line.attacker) != reached:
        return f"{_named(line)}: its saved answers give another success"
    return None


def _reached(line: VictimLine, kept: Mapping[str, Tensor], folder: RunFolder, found: Summary) -> tuple[int, int] | None:
    """How many of the attacker's rows a poisoned victim answers as they want, of how many; None where none is asked.

    Of a chosen row nothing counts if the victim of clean rows has it wrong. Raises EvidenceError where that one's
    answers are gone.
    """
    if "asked" not in kept or "wanted" not in kept:
        return None
    if "chosen" in kept:
        before, row = found.clean.get(line.number), int(kept["chosen"])
        if before is None or before.answers is None:
            return None
        answers = folder.load_inputs(before.answers, before.sha256)["clean"]
        if int(answers[row]) != found.head.labels[row]:
            return 0, 0
    return int((kept["asked"] == kept["wanted"]).sum()), len(kept["asked"])


def _pictures(folder: RunFolder, found: Summary) -> Iterator[str]:
    """Pictures that are not those that were logged."""
    for poison in found.poisons.values():
        if poison.inspected is not None and poison.inspected.pictures is not None:
            try:
                folder.load_inputs(poison.inspected.pictures, poison.inspected.sha256)
            except EvidenceError as error:
                yield str(error)


def _certificate(shop: Workshop, folder: RunFolder, found: Summary) -> str | None:
    """Whether the certificate is what the saved votes prove."""
    again = None
    if shop.model.poisoning.certify is not None and sorted(found.votes) == list(range(shop.certificate_plan.models)):
        try:
            again = certificate_again(shop, folder, found)
        except EvidenceError as error:
            return str(error)
    if found.certified is not None and again == found.certified.certificate:
        return None
    return "the certificate is not what its votes prove"


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
    with closing(trained(ready.loaded.path, ready.loaded.digest, tasks, 1, lambda: True)) as again:
        for at, done in again:
            line = chosen[at]
            if done.told.get("poison") != line.poison:
                yield f"{_named(line)}: poisoning the rows again gives other rows"
            elif not _alike(line, done, folder):
                yield f"{_named(line)}: trained again, it answers otherwise; system.training.deterministic is not true"
            else:
                yield None


def _alike(line: VictimLine, done: Done, folder: RunFolder) -> bool:
    """Whether a victim trained again answers every row as it did."""
    kept = folder.load_inputs(line.answers or "", line.sha256)
    if set(kept) != set(done.arrays):
        return False
    if line.attacker is None and {k: tuple(v) for k, v in done.told.get("asked", {}).items()} != line.asked:
        return False
    return all(kept[key].shape == each.shape and (kept[key].numpy() == each).all() for key, each in done.arrays.items())
