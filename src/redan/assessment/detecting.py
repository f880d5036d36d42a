"""The detector that a threat-model file serves with its model: fit to training rows, calibrated on trusted ones."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from redan.assessment.models import Loading, Served
from redan.assessment.rows import rows_of
from redan.engine.intake import checked_rows
from redan.errors import DataError, NotBuiltError, RedanError, TargetError
from redan.evidence.detected import DetectorHead
from redan.evidence.folder import digest
from redan.preprocessing import transformation_of
from redan.preprocessing.served import Behind
from redan.registry.defense_makers import squeezed, usual_squeezers
from redan.rejection import Detector, Features, calibrated, mahalanobis, nearest_rows
from redan.rejection.refusing import at_threshold
from redan.targets import Target, TorchTarget
from redan.threat.detectors import ByMahalanobis, ByNearestRows, BySqueezing, detector_words
from redan.threat.system import Split

_COPIES = 0.05  # of trusted rows that are training or test rows too

__all__ = ["Guarded", "guarded"]


class Guarded(NamedTuple):
    """The model as it is served, with what the detector was calibrated to; None where there is none."""

    main: Served
    head: DetectorHead | None


class _Rows(NamedTuple):
    """Rows of one split as the target takes them."""

    x: Tensor
    y: Tensor
    digest: str


def guarded(main: Served, how: Loading, test: Tensor) -> Guarded:
    """The system's model, which refuses what its detector finds suspicious. test: the rows that are attacked.

    Its digest covers the rows that the detector was made of; the file's own covers its settings. The same rows give the
    same threshold. Raises a RedanError that names the key for rows that a detector cannot be made of.
    """
    said = how.model.system.detector
    if said is None:
        return Guarded(main, None)
    trusted = _read(how, Split.TRUSTED, main.target)
    train = None if isinstance(said, BySqueezing) else _read(how, Split.TRAIN, main.target)
    for name, rows in (("test", test), *(() if train is None else (("train", train.x),))):
        _apart(trusted.x, rows, name)
    with torch.random.fork_rng(devices=[]):
        torch.random.manual_seed(how.model.statistics.seed)
        try:
            detector = _detector(how, main.target, train)
            found = calibrated(detector, trusted.x, false_positive_rate=said.false_positive_rate)
        except RedanError as error:
            raise type(error)(f"system.detector: {error}") from error
    head = DetectorHead(
        name=detector_words(said),
        rate=said.false_positive_rate,
        threshold=found.value,
        rows=found.rows,
        fit=0 if train is None else len(train.x),
    )
    told = [main.digest or "", trusted.digest, "" if train is None else train.digest]
    served = Served(at_threshold(main.target, detector, found), digest("\n".join(told).encode()))
    return Guarded(served, head)


def _read(how: Loading, split: Split, target: Target[Tensor]) -> _Rows:
    rows = rows_of(how.model, how.folder, split)
    if rows is None:
        raise DataError(f"system.detector needs the rows of system.data.{split}, and the file names none")
    x = rows.samples.x if how.ranges is None else how.ranges.unit(rows.samples.x)
    try:
        inputs, labels = checked_rows(np.ascontiguousarray(x), rows.samples.y, target)
    except DataError as error:
        raise DataError(f"system.data.{split}: {error}") from error
    classes = how.classes
    if classes is not None and len(labels) and not (int(labels.min()) >= 0 and int(labels.max()) < classes):
        raise DataError(
            f"system.data.{split}: labels go from {int(labels.min())} to {int(labels.max())}, and the system has the "
            f"classes 0 to {classes - 1}; number them as the test rows are"
        )
    return _Rows(inputs, labels, rows.digest)


def _apart(trusted: Tensor, others: Tensor, name: str) -> None:
    """Raise DataError where trusted rows are rows of another split: a threshold is taken from rows of its own."""
    known = {_content(row) for row in others.to(trusted)}
    twice = sum(_content(row) in known for row in trusted)
    if twice > _COPIES * len(trusted):
        raise DataError(
            f"{twice} of {len(trusted)} rows of system.data.trusted are rows of system.data.{name} too; a detector's "
            "threshold needs clean rows that nothing was fit to or is measured on"
        )


def _content(row: Tensor) -> bytes:
    return hashlib.blake2b(row.detach().cpu().contiguous().numpy().tobytes(), digest_size=16).digest()


def _detector(how: Loading, target: Target[Tensor], train: _Rows | None) -> Detector:
    match how.model.system.detector, train:
        case BySqueezing(feature_squeezing=said), _:
            chosen = [transformation_of(each.name, each.settings, target.bounds) for each in said.squeezers]
            return squeezed(target, chosen or usual_squeezers(how.rows.shape[1], target.bounds))
        case ByNearestRows(nearest_rows=near), _Rows(x=x):
            return nearest_rows(_features(target, near.layers), x, k=near.k, normalized=near.normalized)
        case ByMahalanobis(mahalanobis=far), _Rows(x=x, y=y):
            return mahalanobis(_features(target, far.layers), x, y, magnitude=far.magnitude)
    raise NotBuiltError("this kind of detector is not built yet")


def _features(target: Target[Tensor], layers: tuple[str, ...]) -> Features:
    """What goes into these submodules, by the names that they have in the user's own module."""
    if not isinstance(target, TorchTarget):
        raise TargetError(
            "it looks into a torch module, and the model is none; take feature_squeezing, or name a factory that "
            "returns a torch.nn.Module"
        )
    module: nn.Module = target.module.model if isinstance(target.module, Behind) else target.module
    try:
        found = tuple(module.get_submodule(name) for name in layers)
    except AttributeError as error:
        known = ", ".join(name for name, _ in module.named_modules() if name)
        raise TargetError(f"the model has no submodule of that name ({error}); it has {known[:300]}") from error
    return Features(target=target, layers=found)
