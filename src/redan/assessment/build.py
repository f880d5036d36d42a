"""The target, the rows and the user's own attacks that a threat-model file names.

The file is trusted as code: its folder joins `sys.path` for the functions it names. Models, data and run
folders are not: weights are safetensors, arrays are read without pickle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from redan.assessment.detecting import guarded
from redan.assessment.imports import called, named
from redan.assessment.models import Loading, Served
from redan.assessment.rows import TASK, array_inputs, order_of, rows_of
from redan.assessment.serving import Bare, check_access, served
from redan.data.ranges import Ranges
from redan.errors import ThreatModelError
from redan.evidence.detected import DetectorHead
from redan.evidence.folder import digest
from redan.goals import Task
from redan.protocols import Attack
from redan.targets import Target
from redan.targets.surrogates import Ensemble, ensemble
from redan.threat import system as said
from redan.threat.attackers import Evasion, Knowledge, Poisoning
from redan.threat.inputs import TableInputs
from redan.threat.schema import ThreatModel

_BARE_VICTIMS = (
    "victims of poisoning are judged without system.defenses and system.detector: they answer all inputs as they are"
)
_SHOWN = 64  # rows on which a model's gradients are shown to be its own


@dataclass(frozen=True, slots=True)
class Built:
    """What an assessment works on. notes: what was done to the data on the way in."""

    target: Target[Tensor]
    surrogates: Mapping[str, Ensemble]  # by the attacker who holds them
    task: Task
    x: Tensor
    y: Tensor
    ids: tuple[str, ...] | None
    index: tuple[int, ...]  # position of each drawn row in the data
    model_digest: str | None
    data_digest: str | None
    notes: tuple[str, ...]
    ranges: Ranges | None = None  # that columns were scaled by
    detector: DetectorHead | None = None  # what `target` refuses by
    bare: tuple[Bare, ...] = ()  # models without what is served with the system's, to compare it with


def _digest_of(found: Sequence[Served]) -> str | None:
    """sha256 of the model; of an attacker's surrogates too, where there are any."""
    told = [each.digest for each in found]
    return told[0] if len(told) == 1 else digest("".join(part or "" for part in told).encode())


def build(model: ThreatModel, folder: Path, *, trust_pickle: bool = False) -> Built:
    """Everything that the file names, with the rows drawn by its seed. Raises a RedanError that names the key.

    trust_pickle: whether a pickled model may be read, which can run any code.
    """
    inputs, test = array_inputs(model), rows_of(model, folder, said.Split.TEST)
    assert test is not None  # noqa: S101  # the schema requires it
    rows, y, notes = test.samples.x, test.samples.y, test.notes
    order = order_of(model, len(rows))
    ranges = Ranges.of(rows) if isinstance(inputs, TableInputs) and inputs.bounds is None else None
    x = np.ascontiguousarray(rows[order])
    how = Loading(
        model=model,
        folder=folder,
        rows=torch.from_numpy(x[:_SHOWN]),
        ranges=ranges,
        climbed=any(isinstance(a, Evasion) and a.knowledge is Knowledge.GRADIENTS for a in model.attackers),
        trust=trust_pickle,
    )
    unguarded, bare, lent = served(how)
    check_access(model, unguarded.target)
    if ranges is not None:
        notes = (*notes, "every column was scaled to its own range in the data: ε is a share of that range")
        x = ranges.unit(x)
    main, detector = guarded(unguarded, how, torch.from_numpy(x))
    if (model.system.defenses or detector is not None) and any(isinstance(a, Poisoning) for a in model.attackers):
        notes = (*notes, _BARE_VICTIMS)
    return Built(
        target=main.target,
        bare=bare,
        detector=detector,
        surrogates={name: ensemble([each.target for each in held], unguarded.target) for name, held in lent.items()},
        task=TASK[model.system.task],
        x=torch.from_numpy(x),
        y=torch.from_numpy(y[order]),
        ids=None if test.samples.ids is None else tuple(test.samples.ids[i] for i in order),
        index=tuple(int(i) for i in order),
        model_digest=_digest_of([main, *(each for held in lent.values() for each in held)]),
        data_digest=test.digest,
        notes=notes,
        ranges=ranges,
    )


def added_attacks(model: ThreatModel, folder: Path) -> dict[str, Attack[Any, Any]]:
    """The user's own attacks (`attacks.add`) by name: values, or classes that need no argument."""
    found: dict[str, Attack[Any, Any]] = {}
    for name in model.attacks.add:
        key = f"attacks.add '{name}'"
        attack = named(name, folder, key)
        if isinstance(attack, type):
            attack = called(attack, key, folder)
        if not callable(attack):
            raise ThreatModelError(f"{key} is no attack; an attack is called with a referee and rows")
        short = name.partition(":")[2]
        found[name if short in found else short] = attack
    return found
