"""A run's stolen copies checked again: their saved answers counted, the model asked again, some copies made anew."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from redan.assessment.bought import Bought
from redan.assessment.extraction import Desk, labels_of, stages_of
from redan.assessment.extraction_use import direct_job, still_broken
from redan.assessment.session import Prepared
from redan.errors import EvidenceError, RedanError
from redan.evidence.extraction_lines import CopyLine, DirectLine
from redan.evidence.folder import RunFolder
from redan.evidence.summary import Summary
from redan.goals import LeastLikely
from redan.oracle import Limits, Purse
from redan.registry.extractors import extractor
from redan.runners.local import one_thread_each
from redan.targets import is_remote
from redan.threat.extractors import ExtractionCampaign

__all__ = ["copies_again"]


def copies_again(ready: Prepared, folder: RunFolder, found: Summary) -> Iterator[str | None]:
    """For each copy, and each attack without one, what disagrees in a sentence; None where nothing does.

    Agreement is counted again from both sides' saved answers, the model's are asked for again (once for all copies),
    and so are the inputs that fooled it. The first copy of each extractor is made anew, but for a model behind calls,
    which cost, or one that answers by chance. Raises EvidenceError for a threat model without an attacker of the run.
    """
    campaigns = {each.attacker.name: each for each in ready.plan.extractions}
    for name, tally in found.extractions.items():
        if name not in campaigns:
            raise EvidenceError(f"the threat model has no attacker '{name}'; give the run's own file")
        target = ready.built.target
        answers = {
            rows: labels_of(target, each.x.to(target.device, target.dtype))
            for rows, each in ready.grounds[name].judged.items()
            if not target.stochastic
        }
        for line in tally.copies.values():
            if line.error is None:
                yield _copy(ready, campaigns[name], folder, line, answers)
        if tally.direct is not None:
            yield _used(ready, campaigns[name], folder, tally.direct, tally.direct.broken, "")


def _named(line: CopyLine | DirectLine) -> str:
    return f"copy {line.number} of {line.extractor}" if isinstance(line, CopyLine) else "the attack without a copy"


def _copy(
    ready: Prepared,
    campaign: ExtractionCampaign,
    folder: RunFolder,
    line: CopyLine,
    answers: Mapping[str, Tensor],
) -> str | None:
    """What disagrees about one copy. answers: what the model says to the judged rows now, by their name."""
    if line.saved is None:
        return f"{_named(line)}: its answers were not kept, so nothing shows how it did"
    try:
        kept = folder.load_inputs(line.saved, line.sha256)
    except EvidenceError as error:
        return str(error)
    ground, told = ready.grounds[campaign.attacker.name], line.points[0]
    for name, rows in ground.judged.items():
        theirs, ours = kept.get(f"model.{name}"), kept.get(f"copy.{name}")
        if theirs is None or ours is None or not theirs.shape == ours.shape == (len(rows.x),):
            return f"{_named(line)}: its saved answers are not of the rows that copies are judged on"
        answered = theirs >= 0
        agreeing = int(((theirs == ours) & answered).sum())
        compared = told.compared.get(name)
        if compared is None or (agreeing, int(answered.sum())) != (compared.agreeing, compared.n):
            return f"{_named(line)}: its saved answers give another agreement on the {name} rows"
        if name in answers and not torch.equal(answers[name], theirs):
            return f"the model answers the {name} rows otherwise than it did to {_named(line)}"
    if told.transferred is not None:
        odd = _used(ready, campaign, folder, line, told.transferred.broken, "transfer.")
        if odd is not None:
            return odd
    if line.number or is_remote(ready.built.target) or ready.built.target.stochastic:
        return None
    return _made_again(ready, campaign, line, kept)


def _used(
    ready: Prepared,
    campaign: ExtractionCampaign,
    folder: RunFolder,
    line: CopyLine | DirectLine,
    broken: int,
    prefix: str,
) -> str | None:
    """Whether the saved inputs fool the model again. Where the wanted class hangs on a copy's scores, or inputs were
    not kept, nothing is looked at."""
    if line.saved is None:
        return None
    job = direct_job(ready, campaign, 1)
    try:
        kept = folder.load_inputs(line.saved, line.sha256)
        arrays = {key: kept[prefix + key] for key in ("row", "x") if prefix + key in kept}
        if len(arrays) < 2 or isinstance(job.aim, LeastLikely):
            return None
        held = int(still_broken(job, arrays).sum())
    except EvidenceError as error:
        return str(error)
    return None if held == broken else f"{_named(line)}: {held:,} of its saved inputs fool the model, not {broken:,}"


def _made_again(
    ready: Prepared, campaign: ExtractionCampaign, line: CopyLine, kept: Mapping[str, Tensor]
) -> str | None:
    """Whether an extractor makes the same copy of the same seed."""
    ground = ready.grounds[campaign.attacker.name]
    desk = Desk(ready, campaign, ground, Bought(ready.built.target, Purse(Limits())))
    try:
        made = extractor(line.extractor).make(ground.scene(campaign, desk.classes))
        with one_thread_each():
            last = stages_of(desk, made, line.seed, campaign.points[:1])[-1]
    except RedanError as error:
        return f"{_named(line)}: making it again failed: {error}"
    same = all(
        torch.equal(labels_of(last.copy.target, rows.x.to(last.copy.target.dtype)), kept[f"copy.{name}"])
        for name, rows in ground.judged.items()
    )
    if not same or last.paid != line.points[0].paid:
        return f"{_named(line)}: made again, it is another one"
    return None
