"""Poisoning attackers of a run: their victims trained side by side, each recorded as it is done, none trained twice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any, TypeAlias

import torch

from redan.assessment.session import Session, Stage
from redan.assessment.trainers import Task, trained
from redan.assessment.victim import Done
from redan.assessment.workshop import Workshop
from redan.certification.poisoning import Change, PoisonCertificate, proven
from redan.engine.run import Progress
from redan.errors import TargetError
from redan.evidence.folder import RunFolder
from redan.evidence.pictures import PoisonPictures, save_poison_pictures
from redan.evidence.poison_lines import CertifiedLine, InspectedLine, VictimLine, VotesLine
from redan.evidence.poison_tally import PoisonTally
from redan.evidence.poisoned import CertificatePart, CertifiedPoint
from redan.evidence.summary import Summary
from redan.runners.local import cores
from redan.threat.schema import KeepInputs

__all__ = ["certificate_again", "keep_poison_pictures", "poison"]

Key: TypeAlias = tuple[str, float, int]
"""A victim of an attacker: poisoner, share, number."""
_POINTS = 24  # of the certificate's curve


def poison(session: Session) -> None:
    """Everything about the poisoning attackers that is not done yet: victims, what finds them, what is certified."""
    found = session.summary
    if not found.poisons:
        return
    _victims(session)
    _inspections(session)
    _certificate(session)


# -- victims -----------------------------------------------------------------------------------------------


def _victims(session: Session) -> None:
    found = session.summary
    clean = max(poison.about.clean for poison in found.poisons.values())
    first = [number for number in range(clean) if number not in found.clean]
    tasks = [Task("clean", {"number": number}) for number in first]
    _work(session, "clean rows", tasks, lambda at, done: _clean_line(session, first[at], done))
    owners = [(poison, key) for poison in found.poisons.values() for key in poison.pending()]
    tasks = [
        Task("victim", {"attacker": poison.head.name, "poisoner": key[0], "share": key[1], "number": key[2]})
        for poison, key in owners
    ]
    early: dict[tuple[str, str], list[tuple[Key, Done]]] = {}

    def victim(at: int, done: Done) -> None:
        poison, key = owners[at]
        mine = early.setdefault((poison.head.name, key[0]), [])
        mine.append((key, done))
        if key != _first(poison, key[0]) and _first(poison, key[0]) not in poison.victims:
            return  # the first victim tells whether a poisoner can be used, whoever is done first
        for each in sorted(mine, key=lambda pair: pair[0] != _first(poison, key[0])):
            if key[0] not in poison.unfit:
                _victim_line(session, poison, *each)
        mine.clear()

    def wanted(at: int) -> bool:
        poison, key = owners[at]
        return key[0] not in poison.unfit

    _work(session, "poisoned rows", tasks, victim, wanted)


def _first(poison: PoisonTally, poisoner: str) -> Key:
    """The first victim of a poisoner."""
    return poisoner, poison.about.points[0].share, 0


def _clean_line(session: Session, number: int, done: Done) -> None:
    if not number and done.told.get("error"):
        raise TargetError(
            f"training on the clean rows failed: {done.told['error']}; mend system.training.call, and go on with "
            "--resume"
        )
    _recorded(session, _line(None, None, None, number, done, done.told.get("asked", {})), done)


def _victim_line(session: Session, poison: PoisonTally, key: Key, done: Done) -> None:
    poisoner, share, number = key
    told, asked = done.told, done.told.get("asked", {})
    if "chosen" in told:
        right = _right_before(session, number, told["chosen"])
        if right is None:
            why = "whether its row was right before is not known, as the victim of clean rows with its seed failed"
            done, asked = Done({**told, "error": why}, {}), {}
        elif not right:
            asked = {poison.head.name: (0, 0)}  # a row that a model of clean rows has wrong is no success of anybody
    if told.get("unfit") and key != _first(poison, poisoner):
        done = Done({**told, "unfit": False}, {})  # it could be used before, so this victim failed
    _recorded(session, _line(poison.head.name, poisoner, share, number, done, asked), done)


def _right_before(session: Session, number: int, row: int) -> bool | None:
    """Whether the victim of clean rows with the same seed has the chosen test row right; None where it failed."""
    line = session.summary.clean.get(number)
    if line is None or line.answers is None:
        return None
    answers = session.folder.load_inputs(line.answers, line.sha256)["clean"]
    return int(answers[row]) == session.summary.head.labels[row]


def _line(
    attacker: str | None,
    poisoner: str | None,
    share: float | None,
    number: int,
    done: Done,
    asked: dict[str, tuple[int, int]],
) -> VictimLine:
    told = done.told
    return VictimLine(
        attacker=attacker,
        poisoner=poisoner,
        share=share,
        number=number,
        seed=told["seed"],
        settings=told.get("settings", ""),
        changed=told.get("changed", 0),
        used=told.get("used", 0.0),
        poison=told.get("poison"),
        rows=told.get("rows", 0),
        right=told.get("right", 0),
        asked={name: (int(reached), int(of)) for name, (reached, of) in asked.items()},
        answers=None,
        sha256="",
        seconds=told["seconds"],
        error=told.get("error"),
        unfit=bool(told.get("unfit")),
    )


def _recorded(session: Session, line: VictimLine, done: Done) -> None:
    """The line and its answers, on disk."""
    name, update = _saved(session.folder, done)
    line = line.model_copy(update=update)
    session.summary.see(line)
    session.folder.append(line, name=name)


def _saved(folder: RunFolder, done: Done) -> tuple[str, dict[str, Any]]:
    """The name of the next segment, and where the arrays are with their digest."""
    name = folder.fresh()
    if not done.arrays:
        return name, {"answers": None, "sha256": ""}
    file = f"{name}.safetensors"
    tensors = {key: torch.from_numpy(value) for key, value in done.arrays.items()}
    return name, {"answers": file, "sha256": folder.save_inputs(file, tensors)}


# -- what finds and mends it -------------------------------------------------------------------------------


def _inspections(session: Session) -> None:
    found, owners = session.summary, []
    for poison in found.poisons.values():
        strongest = poison.strongest(found.clean, found.head.confidence)
        if poison.about.inspected and poison.inspected is None and strongest is not None and not poison.pending():
            owners.append((poison, strongest))
    tasks = [Task("inspect", {"attacker": poison.head.name, "poisoner": name}) for poison, name in owners]

    def inspected(at: int, done: Done) -> None:
        poison, strongest = owners[at]
        if session.ready.loaded.model.run.keep_inputs is KeepInputs.NONE:
            done = Done(done.told, {})
        name, saved = _saved(session.folder, done)
        told = {key: value for key, value in done.told.items() if key != "seconds"}
        line = InspectedLine.model_validate(
            {
                "attacker": poison.head.name,
                "poisoner": strongest,
                **told,
                "pictures": saved["answers"],
                "sha256": saved["sha256"],
                "seconds": done.told["seconds"],
            }
        )
        found.see(line)
        session.folder.append(line, name=name)

    _work(session, "detectors and repairs", tasks, inspected)


def keep_poison_pictures(folder: RunFolder, found: Summary, bounds: tuple[float, float] | None) -> None:
    """A few poisoned rows and triggers for the report, from what the inspections kept."""
    shown = []
    for number, head in enumerate(found.head.attackers):
        poison = found.poisons.get(head.name)
        line = None if poison is None else poison.inspected
        if line is None or line.pictures is None:
            continue
        arrays = folder.load_inputs(line.pictures, line.sha256)
        if "clean" in arrays:
            shown.append(
                PoisonPictures(
                    attacker=number,
                    clean=arrays["clean"],
                    poisoned=arrays["poisoned"],
                    before=arrays["before"],
                    after=arrays["after"],
                    planted=arrays.get("planted"),
                    mask=arrays.get("mask"),
                    pattern=arrays.get("pattern"),
                    bounds=bounds or (0.0, 1.0),
                )
            )
    if shown:
        save_poison_pictures(folder, shown)


# -- what is certified -------------------------------------------------------------------------------------


def _certificate(session: Session) -> None:
    found = session.summary
    models = max(poison.about.parts for poison in found.poisons.values())
    if not models or found.certified is not None:
        return
    left = [model for model in range(models) if model not in found.votes]

    def voted(at: int, done: Done) -> None:
        name, saved = _saved(session.folder, done)
        line = VotesLine(model=left[at], seconds=done.told["seconds"], error=done.told.get("error"), **saved)
        found.see(line)
        session.folder.append(line, name=name)

    _work(session, "the certificate", [Task("votes", {"model": model}) for model in left], voted)
    shop = session.ready.shop
    if shop is not None and all(model in found.votes for model in range(models)):
        line = CertifiedLine(certificate=certificate_again(shop, session.folder, found))
        found.see(line)
        session.folder.append(line)


def certificate_again(shop: Workshop, folder: RunFolder, found: Summary) -> CertificatePart:
    """What the saved votes of all models prove."""
    plan = shop.certificate_plan
    votes = torch.stack(
        [folder.load_inputs(line.answers, line.sha256)["votes"] for _, line in sorted(found.votes.items())], 1
    ).numpy()
    certificate = proven(votes, plan, classes=shop.classes, seed=shop.model.statistics.seed)
    labels = shop.test.y
    right = certificate.prediction == labels
    radii = sorted(certificate.radius[right].tolist(), reverse=True)
    return CertificatePart(
        method="finite aggregation" if plan.copies > 1 else "deep partition aggregation",
        parts=plan.parts,
        copies=plan.copies,
        counts="rows" if plan.against is Change.ROWS else "labels",
        rows=len(labels),
        untrained=sum(line.error is not None for line in found.votes.values()),
        points=_points(certificate, labels),
        share=radii[(len(radii) - 1) // 2] / len(shop.train) if radii else 0.0,
    )


def _points(certificate: PoisonCertificate, labels: Any) -> list[CertifiedPoint]:
    """How many rows are right however many changes are made, up to where none is."""
    most = int(certificate.radius.max(initial=0)) + 1
    step = max(1, -(-most // _POINTS))
    changes = [*range(0, most, step), most]
    return [CertifiedPoint(changes=each, right=int(certificate.holds(labels, each).sum())) for each in changes]


# -- the queue ---------------------------------------------------------------------------------------------


def _work(
    session: Session,
    doing: str,
    tasks: Sequence[Task],
    done: Callable[[int, Done], None],
    wanted: Callable[[int], bool] = lambda _: True,
) -> None:
    """Do the tasks, recording each, as long as our limits allow. wanted: asked of each when its turn has come."""
    tell = _told(session, doing, len(tasks))
    loaded = session.ready.loaded
    queued = trained(
        loaded.path, loaded.digest, tasks, session.workers or cores(), lambda: session.purse.pay(0), wanted
    )
    with closing(queued):
        for count, (at, out) in enumerate(queued, 1):
            done(at, out)
            tell(count)


def _told(session: Session, doing: str, total: int) -> Callable[[int], None]:
    """Tells the caller how many models are trained."""

    def tell(count: int) -> None:
        if session.watch is not None and total:
            progress = Progress(count / total, 0, count, total)
            session.watch(Stage("training", 1, 1, progress, session.folder.url, doing, counts="models"))

    tell(0)
    return tell
