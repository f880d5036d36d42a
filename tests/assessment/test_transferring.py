"""An ensemble is attacked as one model, and what it shares with its members is measured."""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor

import redan
from redan.assessment.assess import inspect
from redan.assessment.certifying import How, certify
from redan.assessment.hardening_scene import scene
from redan.assessment.meeting import evened
from redan.assessment.replay import replay
from redan.assessment.session import bare_job_of, job_of
from redan.ensembles import Together, together
from redan.errors import NotCertifiableError, PreflightError, TargetError
from redan.evidence.folder import RunFolder
from redan.evidence.log import BlockLine, RowLine
from redan.evidence.report import Counts, Report
from redan.evidence.transfers import WHOLE, TransferLine, TransferPart
from redan.oracle import Limits
from redan.preprocessing.wrapped import Preprocessed
from redan.rejection import Refusing
from redan.report import html, markdown, terminal
from redan.samples import fashion_mnist, model
from redan.threat.file import read

Write = Callable[..., Path]
CLIMB: dict[str, Any] = {
    "attacks__skip": ["fast-cascade", "fast-cascade-leveled"],
    "attacks__add": ["members_models:climb"],
}


@pytest.fixture
def several(tmp_path: Path, shop: Write) -> Write:
    """A function that writes a threat model of Fashion-MNIST and an ensemble of shipped networks."""
    (tmp_path / "members_models.py").write_text(
        "from torch import nn\nfrom redan import PGD\nfrom redan.samples import model\n\n\n"
        "def bare(kind='natural'):\n    return model(kind)\n\n\n"
        "def soft():\n    return nn.Sequential(model('natural'), nn.Softmax(1)).eval()\n\n\n"
        "climb = PGD(steps=10)\n"
    )

    def write(*, rows: int = 16, kinds: tuple[str, ...] = ("natural", "robust"), combine: str = "logits",
              **changed: object) -> Path:  # fmt: skip
        x, y = fashion_mnist()
        members = [{"factory": "members_models:bare", "arguments": {"kind": kind}} for kind in kinds]
        return shop(
            arrays={"x": x[:rows], "y": y[:rows]},
            **{
                "system__model": {"ensemble": {"members": members, "combine": combine}},
                "system__classes": 10,
                "system__inputs": {"kind": "image", "shape": [1, 28, 28], "bounds": [0, 1]},
                "attackers__0__change": {"linf": 0.05},
                "run__workers": 1,
                **changed,
            },
        )

    return write


def counts(report: Report) -> Counts:
    found = report.attackers[0].counts
    assert found is not None
    return found


def transfers(report: Report) -> TransferPart:
    found = report.attackers[0].transfers
    assert found is not None
    return found


@pytest.mark.parametrize("combine", ["logits", "probabilities", "votes"])
def test_it_answers_as_the_library_s_ensemble(several: Write, combine: str) -> None:
    built = inspect(several(combine=combine)).built
    assert isinstance(built.target, Together)
    alone = [model("natural"), model("robust")]
    with torch.no_grad():
        assert torch.equal(built.target(built.x), together(alone, built.target.combine)(built.x))
        assert [bare.name for bare in built.bare] == ["member 1 alone", "member 2 alone"]
        for bare, module in zip(built.bare, alone, strict=True):
            assert torch.equal(bare.target(built.x), module(built.x))


def test_the_digest_covers_every_member_their_order_and_how_they_are_combined(several: Write) -> None:
    found = [
        inspect(several(**changed)).built.model_digest
        for changed in (
            {},
            {"kinds": ("robust", "natural")},
            {"kinds": ("natural", "trades")},
            {"combine": "votes"},
            {},
        )
    ]
    assert found[0] == found[-1]
    assert len(set(found)) == 4


def test_it_is_attacked_as_a_whole_and_its_members_alone(several: Write) -> None:
    path = several(**CLIMB)
    report = redan.assess(path)
    assert [part.beside for part in report.attackers[0].defended] == ["member 1 alone", "member 2 alone"]
    assert counts(report).broken > 0
    built = inspect(path).built
    folder = RunFolder.open(report.run.folder)
    rows = [line for line in folder.lines() if isinstance(line, RowLine) and not line.beside]
    assert len({line.row for line in rows if line.right and line.status == "broken"}) == counts(report).broken
    assert built.model_digest == report.digests["model"]
    assert replay(report.run.folder, path).differences == ()


def test_what_carries_over_is_what_the_models_answer_to_the_saved_inputs(several: Write) -> None:
    path = several(**CLIMB)
    report, built = redan.assess(path), inspect(path).built
    models = {WHOLE: built.target, **{bare.name: bare.target for bare in built.bare}}
    assert transfers(report).models == list(models)
    folder = RunFolder.open(report.run.folder)
    saved: dict[tuple[str, int], Tensor] = {}
    for segment in folder.segments():
        first, *lines = folder.segment(segment)
        for line in lines:
            if isinstance(line, RowLine) and line.status == "broken" and line.right and line.retry is None:
                assert isinstance(first, BlockLine)
                inputs = folder.load_inputs(str(first.inputs), first.sha256)["x"]
                saved[line.beside or WHOLE, line.row] = inputs[int(line.saved or 0)]
    with torch.no_grad():
        right = {name: target(built.x).argmax(1) == built.y for name, target in models.items()}
        for rate in transfers(report).rates:
            rows = [row for name, row in saved if name == rate.found_on and right[rate.asked][row]]
            wrong = [int(models[rate.asked](saved[rate.found_on, row][None]).argmax()) != built.y[row] for row in rows]
            assert (rate.rows, rate.broken) == (len(rows), sum(map(bool, wrong)))
    assert any(rate.broken for rate in transfers(report).rates)


def test_without_inputs_nothing_is_shown_around(several: Write) -> None:
    part = transfers(redan.assess(several(rows=6, run__keep_inputs="none", **CLIMB)))
    assert part.rates == []
    assert "run.keep_inputs is none" in str(part.reason)


def test_one_who_sees_no_gradients_cannot_tell_the_members(several: Write) -> None:
    report = redan.assess(several(rows=4, attackers__0__knowledge="labels",
                                  attackers__0__capability={"queries_per_row": 20}))  # fmt: skip
    assert report.attackers[0].transfers is None


def test_an_edited_count_is_found_by_a_replay(several: Write) -> None:
    path = several(rows=8, **CLIMB)
    report = redan.assess(path)
    (line,) = [line for line in RunFolder.open(report.run.folder).lines() if isinstance(line, TransferLine)]
    log = Path(report.run.folder) / "log"
    (segment,) = [file for file in log.iterdir() if '"event":"transfer"' in file.read_text()]
    text = segment.read_text()
    edited = [[count + 1 for count in row] for row in line.shown]
    old, new = (f'"shown":{found}'.replace(" ", "") for found in (line.shown, edited))
    assert old in text
    segment.write_text(text.replace(old, new))
    found = replay(report.run.folder, path)
    assert any("shown between the ensemble's models meet another fate" in each for each in found.differences)


def test_a_run_that_our_limits_cut_goes_on(several: Write) -> None:
    path = several(rows=6, run__block=3, **CLIMB)
    whole = redan.assess(path)
    asked = sum(attack.queries for attack in whole.attackers[0].attacks)
    cut = redan.assess(path, limits=Limits(queries=asked // 2))
    assert cut.limits_hit == ["queries"]
    again = redan.assess(path, resume=cut.run.folder)
    assert again.digests["evidence"] == whole.digests["evidence"]
    assert transfers(again) == transfers(whole)


def test_leveled_attacks_climb_the_leveled_ensemble_and_members_are_climbed_plainly(several: Write) -> None:
    ready = inspect(several(rows=4))
    (campaign,) = ready.plan.campaigns
    job = job_of(ready, campaign, range(4))
    assert [name for name, _ in job.attacks] == ["fast-cascade", "fast-cascade-leveled"]
    even = job.instead["fast-cascade-leveled"]
    assert even.surrogate
    x = ready.built.x
    with torch.no_grad():
        assert torch.equal(even(x), job.target(x))
    slopes = []
    for target in (job.target, even):
        moved = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(target(moved).amax(1).sum(), moved)
        slopes.append(slope)
    assert not torch.allclose(slopes[0], slopes[1])
    assert [name for name, _ in bare_job_of(ready, campaign, ready.built.bare[0], range(4)).attacks] == ["fast-cascade"]


@pytest.mark.slow
def test_a_leveled_climb_breaks_rows_that_the_mean_hides(several: Write) -> None:
    """A distilled member's logits are so large that its probabilities have no slope: the mean forgets it."""
    path = several(rows=16, kinds=("robust", "distilled"), combine="probabilities", attackers__0__change={"linf": 0.03})
    report = redan.assess(path)
    broken = {attack.name: attack.broken for attack in report.attackers[0].attacks}
    assert broken["fast-cascade-leveled"] > 0


@pytest.mark.parametrize("combine", ["logits", "votes"])
def test_what_stands_before_an_ensemble_is_kept_when_it_is_leveled(
    several: Write, tmp_path: Path, combine: str
) -> None:
    x, y = fashion_mnist()
    np.savez(tmp_path / "trusted.npz", x=x[400:480], y=y[400:480])
    path = several(
        rows=4,
        combine=combine,
        system__defenses=[{"bit_depth": {"bits": 4}}],
        system__data__trusted={"path": "trusted.npz"},
        system__detector={"feature_squeezing": {}},
    )
    built = inspect(path).built
    assert [bare.name for bare in built.bare] == ["the model alone", "member 1 alone", "member 2 alone"]
    target = built.target
    assert isinstance(target, Refusing)
    assert isinstance(target.target, Preprocessed)
    even = evened(target)
    if combine == "votes":
        assert even is None
        return
    assert isinstance(even, Refusing)
    with torch.no_grad():
        assert torch.equal(even(built.x), target(built.x))


def test_a_member_that_is_not_as_declared_is_named(several: Write) -> None:
    path = several(rows=12, system__model__ensemble__members__1={"factory": "members_models:soft"})
    with pytest.raises(PreflightError, match="preflight members: member 2 of 2, output-scale: declared logits look"):
        redan.assess(path)
    (found,) = [each for each in inspect(several(rows=12)).findings if each.check == "members"]
    assert (found.fired, found.detail) == (False, "each of 2 members answers as declared")


def test_what_cannot_be_done_with_an_ensemble_says_so(several: Write) -> None:
    path = several(rows=4)
    with pytest.raises(NotCertifiableError, match="an ensemble is several models, and bounds are of one"):
        certify(path, method=How.BOUNDS)
    with pytest.raises(TargetError, match="names an ensemble, and one module is trained at a time"):
        scene(
            read(several(rows=12, system__data__train={"path": "rows.npz"})).model,
            path.parent,
            attacker=None,
            epsilon=None,
            seed=0,
            trust=False,
        )


def test_every_view_says_what_carries_over(several: Write) -> None:
    report = redan.assess(several(rows=12, **CLIMB))
    console = Console(file=StringIO(), width=200)
    terminal.show(report, console)
    assert isinstance(console.file, StringIO)
    for text in (console.file.getvalue(), markdown.render(report), html.render(report)):
        assert "found on what is served" in text
        assert "break member 1 alone" in text
