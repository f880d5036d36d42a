"""Extraction attackers of a run: copies made and judged one by one, each recorded as it is done, none made twice."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from redan.answers import evaluate, micro_batch
from redan.assessment.bought import Bought, LimitHitError
from redan.assessment.calls import settled
from redan.assessment.extraction_scene import Ground
from redan.assessment.extraction_use import direct, job_by_copy, shown, still_broken
from redan.assessment.session import Prepared, Session, Stage
from redan.engine.run import Progress
from redan.errors import NotBuiltError, SettingError
from redan.evidence.extraction_lines import Compared, CopyLine, CopyPoint, Transferred
from redan.evidence.extraction_tally import ExtractionTally, Key
from redan.evidence.folder import RunFolder
from redan.extraction.customer import Customer, Extractor
from redan.extraction.measures import Comparison, Reference, judged
from redan.extraction.surrogates import Copy
from redan.extraction.transfer import Stage as Purchase
from redan.extraction.transfer import Staged
from redan.protocols import settings
from redan.registry.extractors import extractor
from redan.runners.local import one_thread_each
from redan.targets import Target, is_remote
from redan.threat.extractors import ExtractionCampaign
from redan.threat.schema import KeepInputs

__all__ = ["Desk", "extract", "labels_of", "stages_of"]


def extract(session: Session) -> None:
    """Every copy of every extraction attacker that is not made yet; then the attack without a copy."""
    campaigns = {each.attacker.name: each for each in session.ready.plan.extractions}
    with one_thread_each():
        for name, tally in session.summary.extractions.items():
            if session.purse.hit is None:
                try:
                    _attacker(session, campaigns[name], session.ready.grounds[name], tally)
                except LimitHitError:
                    return


def _seed_of(session_seed: int, number: int) -> int:
    """The seed of a copy: the same whatever else is run."""
    return session_seed * 1000 + number


@dataclass(slots=True)
class Desk:
    """Where one attacker's copies are made: the model behind the counter, and what judges them."""

    ready: Prepared
    campaign: ExtractionCampaign
    ground: Ground
    model: Bought
    references: Mapping[str, Reference] = field(default_factory=dict)

    @property
    def classes(self) -> int:
        """K."""
        return self.ready.loaded.model.system.class_count or 2

    @property
    def keeps(self) -> bool:
        """Whether what is made may stay in the run folder."""
        return self.ready.loaded.model.run.keep_inputs is not KeepInputs.NONE


def _attacker(session: Session, campaign: ExtractionCampaign, ground: Ground, tally: ExtractionTally) -> None:
    if not tally.pending() and not _wants_direct(session, campaign, tally):
        return
    model = Bought(session.ready.built.target, session.purse, campaign.price)
    _remember(session, tally, model)
    desk = Desk(session.ready, campaign, ground, model)
    model.watch = tell = _told(session, campaign, tally)
    if tally.pending():
        desk.references = {name: judged(model, rows.x, rows.y) for name, rows in ground.judged.items()}
    for key in tally.pending():
        if key[0] in tally.unfit:
            continue
        _record(session, desk, key)
        tell(0)
    if _wants_direct(session, campaign, tally):
        strongest = tally.strongest(session.summary.head.confidence)
        lines = [line for key, line in tally.copies.items() if key[0] == strongest]
        line = None if strongest is None else direct(session, campaign, strongest, lines)
        if line is not None:
            session.summary.see(line)
            session.folder.append(line)
            settled(session.ready.built.target)


def _wants_direct(session: Session, campaign: ExtractionCampaign, tally: ExtractionTally) -> bool:
    return campaign.transfer is not None and tally.direct is None and session.purse.hit is None


def _remember(session: Session, tally: ExtractionTally, model: Bought) -> None:
    """What earlier sittings bought of an endpoint is not bought again."""
    if is_remote(session.ready.built.target):
        for line in tally.copies.values():
            if line.saved is not None:
                arrays = session.folder.load_inputs(line.saved, line.sha256)
                if "asked" in arrays:
                    model.know(arrays["asked"], arrays["answers"])


def _record(session: Session, desk: Desk, key: Key) -> None:
    """One copy with all its smaller siblings: made, judged, used, saved, and its line written."""
    begun = time.process_time()
    name, number = key
    seed = _seed_of(session.ready.loaded.model.statistics.seed, number)
    line = CopyLine(
        attacker=desk.campaign.attacker.name,
        extractor=name,
        number=number,
        seed=seed,
        settings="",
        points=[],
        saved=None,
        sha256="",
        seconds=0.0,
        error=None,
    )
    arrays: dict[str, Tensor] = {}
    inputs: dict[str, Tensor] = {}
    segment = session.folder.fresh()
    try:
        made = extractor(name).make(desk.ground.scene(desk.campaign, desk.classes))
        line = line.model_copy(update={"settings": settings(made)})
        stages = stages_of(desk, made, seed, desk.campaign.points)
        line = line.model_copy(update={"points": [_point(desk, stage) for stage in reversed(stages)]})
        arrays = _kept(desk, stages[-1].copy)
        line, inputs = _transferred(session, desk, line, stages[-1].copy)
        arrays |= inputs if desk.keeps else {}
    except LimitHitError:
        raise
    except SettingError as error:
        line = line.model_copy(update={"error": str(error), "unfit": not number, "points": []})
    except Exception as error:  # of the user's own surrogate, as a rule
        line = line.model_copy(update={"error": f"{type(error).__name__}: {error}"[:300], "points": []})
    arrays |= desk.model.fresh() if is_remote(session.ready.built.target) else {}
    if arrays:
        file = f"{segment}.safetensors"
        line = line.model_copy(update={"saved": file, "sha256": session.folder.save_inputs(file, arrays)})
    if inputs:
        line = _measured_again(session.folder, desk, line, stages[-1].copy, inputs)
    line = line.model_copy(update={"seconds": round(time.process_time() - begun, 3)})
    session.summary.see(line)
    session.folder.append(line, name=segment)
    settled(session.ready.built.target)


def stages_of(desk: Desk, made: Staged | Extractor[Copy], seed: int, points: Sequence[int]) -> Sequence[Purchase]:
    """Copies of growing parts of the answers, the last of all of them."""
    customer = Customer(desk.model, desk.campaign.spending, desk.classes, desk.campaign.view)
    if hasattr(made, "curve"):
        return made.curve(customer, points=sorted(points), seed=seed)
    copy = made(customer, seed=seed)
    return (Purchase(max(points), customer.paid, copy),)


def _point(desk: Desk, stage: Purchase) -> CopyPoint:
    compared = {name: _compared(each.compare(stage.copy.target)) for name, each in desk.references.items()}
    return CopyPoint(queries=stage.queries, paid=stage.paid, compared=compared, transferred=None)


def _compared(found: Comparison) -> Compared:
    return Compared(
        n=found.n,
        agreeing=found.agreeing,
        unanswered=found.errors,
        worst=found.worst,
        right=found.right,
        model_right=found.model_right,
    )


def _kept(desk: Desk, copy: Copy) -> dict[str, Tensor]:
    """Both sides' answers to the judged rows, and the copy itself, unless nothing that was made is to be kept."""
    found: dict[str, Tensor] = {}
    for name, each in desk.references.items():
        x = each.x.to(copy.target.device, copy.target.dtype)
        found[f"copy.{name}"] = labels_of(copy.target, x)
        found[f"model.{name}"] = torch.where(each.answered, each.probabilities.nan_to_num().argmax(1), -1)
    if desk.keeps:
        found |= {f"parameter.{name}": each for name, each in copy.parameters.items()}
    return found


def labels_of(target: Target[Tensor], x: Tensor) -> Tensor:
    """The class that a target answers to each row x (N, …); -1 where it answers none: (N,)."""
    answers = evaluate(target, x, micro=micro_batch(x))
    return torch.where(answers.answered, answers.output.nan_to_num().argmax(1), -1).cpu()


def _transferred(session: Session, desk: Desk, line: CopyLine, copy: Copy) -> tuple[CopyLine, dict[str, Tensor]]:
    """The line with what became of inputs made on the copy of the whole budget, and those inputs."""
    if desk.campaign.transfer is None:
        return line, {}
    try:
        job = job_by_copy(desk.ready, desk.campaign, copy.target)
    except NotBuiltError as error:
        return line.model_copy(update={"error": f"the copy could not be used: {error}", "points": []}), {}
    found = shown(session, job)
    if found.cut:
        raise LimitHitError(f"the run's limit of {session.purse.hit} is reached")
    return _with(line, found.told), {f"transfer.{key}": each for key, each in found.arrays.items()}


def _with(line: CopyLine, told: Transferred) -> CopyLine:
    first, *others = line.points
    return line.model_copy(update={"points": [first.model_copy(update={"transferred": told}), *others]})


def _measured_again(
    folder: RunFolder, desk: Desk, line: CopyLine, copy: Copy, inputs: Mapping[str, Tensor]
) -> CopyLine:
    """The line with those inputs alone that fool the model when it is asked again, read back from the disk if they are
    kept there."""
    told = line.points[0].transferred
    assert told is not None  # noqa: S101  # for the type checker
    kept = desk.keeps and line.saved is not None
    arrays = folder.load_inputs(line.saved, line.sha256) if kept and line.saved else inputs
    job = job_by_copy(desk.ready, desk.campaign, copy.target)
    held = still_broken(job, {"row": arrays["transfer.row"], "x": arrays["transfer.x"]})
    errors = told.errors + int((~held).sum())
    return _with(line, told.model_copy(update={"broken": int(held.sum()), "errors": errors}))


def _told(session: Session, campaign: ExtractionCampaign, tally: ExtractionTally) -> Callable[[int], None]:
    """Tells the caller how many answers were bought, of those that all copies may buy at the most."""
    copies, done = len(tally.pending()), 0
    most = copies * campaign.points[0]

    def tell(answers: int) -> None:
        nonlocal done
        done += answers
        if session.watch is not None and copies:
            share = max(1 - len(tally.pending()) / copies, min(1.0, done / most))
            progress = Progress(share, 0, done, most)
            session.watch(Stage(campaign.attacker.name, 1, 1, progress, session.folder.url, "copies", counts="answers"))

    tell(0)
    return tell
