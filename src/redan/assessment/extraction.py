"""Extraction attackers of a run: copies made and judged one by one, each recorded as it is done, none made twice."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from redan.answers import evaluate, micro_batch
from redan.assessment.bought import Bought, LimitHitError
from redan.assessment.calls import settled
from redan.assessment.extraction_scene import Ground
from redan.assessment.extraction_use import direct, job_by_copy, shown, still_broken
from redan.assessment.session import Session, Stage
from redan.engine.run import Progress
from redan.errors import NotBuiltError, RedanError, SettingError
from redan.evidence.extraction_lines import Compared, CopyLine, CopyPoint, Transferred
from redan.evidence.extraction_tally import ExtractionTally, Key
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

__all__ = ["extract", "seed_of"]


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


def seed_of(session_seed: int, number: int) -> int:
    """The seed of a copy: the same whatever else is run."""
    return session_seed * 1000 + number


@dataclass(slots=True)
class _Desk:
    """One attacker's copies as they are made: the model behind the counter, and what judges them."""

    session: Session
    campaign: ExtractionCampaign
    ground: Ground
    tally: ExtractionTally
    model: Bought
    references: Mapping[str, Reference] = field(default_factory=dict)

    @property
    def classes(self) -> int:
        """K."""
        return self.session.ready.loaded.model.system.class_count or 2

    @property
    def keeps(self) -> bool:
        """Whether what is made may stay in the run folder."""
        return self.session.ready.loaded.model.run.keep_inputs is not KeepInputs.NONE


def _attacker(session: Session, campaign: ExtractionCampaign, ground: Ground, tally: ExtractionTally) -> None:
    if not tally.pending() and not _wants_direct(session, campaign, tally):
        return
    model = Bought(session.ready.built.target, session.purse, campaign.price)
    _remember(session, tally, model)
    desk = _Desk(session, campaign, ground, tally, model)
    tell = _told(desk)
    model.watch = tell
    if tally.pending():
        desk.references = {name: judged(model, rows.x, rows.y) for name, rows in ground.judged.items()}
    for key in tally.pending():
        if key[0] in tally.unfit:
            continue
        _record(desk, key)
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


def _record(desk: _Desk, key: Key) -> None:
    """One copy with all its smaller siblings: made, judged, used, saved, and its line written."""
    session, begun = desk.session, time.process_time()
    name, number = key
    seed = seed_of(session.ready.loaded.model.statistics.seed, number)
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
        stages = _stages(desk, made, seed)
        line = line.model_copy(update={"points": [_point(desk, stage) for stage in reversed(stages)]})
        arrays = _kept(desk, stages[-1].copy)
        line, inputs = _transferred(desk, line, stages[-1].copy)
        arrays |= inputs if desk.keeps else {}
    except LimitHitError:
        raise
    except SettingError as error:
        line = line.model_copy(update={"error": str(error), "unfit": not number, "points": []})
    except (RedanError, ArithmeticError, RuntimeError, ValueError) as error:
        line = line.model_copy(update={"error": f"{type(error).__name__}: {error}"[:300], "points": []})
    arrays |= desk.model.fresh() if is_remote(session.ready.built.target) else {}
    if arrays:
        file = f"{segment}.safetensors"
        line = line.model_copy(update={"saved": file, "sha256": session.folder.save_inputs(file, arrays)})
    if inputs:
        line = _measured_again(desk, line, stages[-1].copy, inputs)
    line = line.model_copy(update={"seconds": round(time.process_time() - begun, 3)})
    session.summary.see(line)
    session.folder.append(line, name=segment)
    settled(session.ready.built.target)


def _stages(desk: _Desk, made: Staged | Extractor[Copy], seed: int) -> Sequence[Purchase]:
    """Copies of growing parts of the answers, the last of all of them."""
    whole = desk.campaign.points[0]
    customer = Customer(desk.model, desk.campaign.spending, desk.classes, desk.campaign.view)
    if hasattr(made, "curve"):
        return made.curve(customer, points=sorted(desk.campaign.points), seed=seed)
    copy = made(customer, seed=seed)
    return (Purchase(whole, customer.paid, copy),)


def _point(desk: _Desk, stage: Purchase) -> CopyPoint:
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


def _kept(desk: _Desk, copy: Copy) -> dict[str, Tensor]:
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


def _transferred(desk: _Desk, line: CopyLine, copy: Copy) -> tuple[CopyLine, dict[str, Tensor]]:
    """The line with what became of inputs made on the copy of the whole budget, and those inputs."""
    if desk.campaign.transfer is None:
        return line, {}
    try:
        job = job_by_copy(desk.session.ready, desk.campaign, copy.target)
    except NotBuiltError as error:
        return line.model_copy(update={"error": f"the copy could not be used: {error}", "points": []}), {}
    found = shown(desk.session, job)
    if found.cut:
        raise LimitHitError(f"the run's limit of {desk.session.purse.hit} is reached")
    return _with(line, found.told), {f"transfer.{key}": each for key, each in found.arrays.items()}


def _with(line: CopyLine, told: Transferred) -> CopyLine:
    first, *others = line.points
    return line.model_copy(update={"points": [first.model_copy(update={"transferred": told}), *others]})


def _measured_again(desk: _Desk, line: CopyLine, copy: Copy, inputs: Mapping[str, Tensor]) -> CopyLine:
    """The line with those inputs alone that fool the model when it is asked again, read back from the disk if they are
    kept there."""
    told = line.points[0].transferred
    assert told is not None  # noqa: S101  # for the type checker
    kept = desk.keeps and line.saved is not None
    arrays = desk.session.folder.load_inputs(line.saved, line.sha256) if kept and line.saved else inputs
    job = job_by_copy(desk.session.ready, desk.campaign, copy.target)
    held = still_broken(job, {"row": arrays["transfer.row"], "x": arrays["transfer.x"]})
    errors = told.errors + int((~held).sum())
    return _with(line, told.model_copy(update={"broken": int(held.sum()), "errors": errors}))


class _Telling:
    """Tells the caller how many answers were bought, of those that all copies may buy at the most."""

    def __init__(self, desk: _Desk) -> None:
        self._desk, self._done = desk, 0
        self._all = max(1, len(desk.tally.pending()) * desk.campaign.points[0])
        self._copies = len(desk.tally.pending())

    def __call__(self, answers: int) -> None:
        self._done += answers
        watch, desk = self._desk.session.watch, self._desk
        if watch is None or not self._copies:
            return
        share = max(1 - len(desk.tally.pending()) / self._copies, min(1.0, self._done / self._all))
        progress = Progress(share, 0, self._done, self._all)
        watch(Stage(desk.campaign.attacker.name, 1, 1, progress, desk.session.folder.url, "copies", counts="answers"))


def _told(desk: _Desk) -> _Telling:
    tell = _Telling(desk)
    tell(0)
    return tell
