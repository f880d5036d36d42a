"""`system.defenses`: what is served is what is attacked, judged, replayed and reported."""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor
from typer.testing import CliRunner

import redan
from redan.assessment.assess import inspect
from redan.assessment.preflight import Level
from redan.assessment.replay import replay
from redan.cli.app import app
from redan.errors import RedanError, ThreatModelError
from redan.evidence.folder import RunFolder
from redan.evidence.inputs import saved_inputs
from redan.evidence.report import Counts, Report
from redan.evidence.summary import report_of
from redan.oracle import Limits
from redan.preprocessing import BitDepth, NonLocalMeans
from redan.report import html, markdown, terminal
from redan.samples import fashion_mnist, model
from redan.threat.file import read

Write = Callable[..., Path]
IMAGE: dict[str, Any] = {
    "system__inputs": {"kind": "image", "shape": [1, 1, 7], "bounds": [0, 1]},
    "system__model__arguments__kind": "Picture",
}
ONE_BIT: list[dict[str, Any]] = [{"bit_depth": {"bits": 1}}]
THREE_BITS: list[dict[str, Any]] = [{"bit-depth": {"bits": 3}}]
CLIMBED: dict[str, Any] = {"attacks__skip": ["fast-cascade"], "attacks__add": ["photo_models:climb"]}
RESIZED: list[dict[str, Any]] = [{"resize-pad": {"smallest": 26, "side": 28, "fill": 0}}]


def rows_that_rounding_breaks(count: int) -> dict[str, NDArray[Any]]:
    """Rows whose class leads by 0.55, more than the 0.4 that a change of 0.1 takes; and by one bit of four alone."""
    y = np.arange(count) % 3
    x = np.full((count, 1, 1, 7), 0.45)
    x[:, 0, 0, 6] = np.linspace(0, 0.4, count)
    for row, c in enumerate(y):
        x[row, 0, 0, 2 * c : 2 * c + 2] = 0.9, 0.55
    return {"x": x.astype(np.float32), "y": y}


@pytest.fixture
def photos(tmp_path: Path, shop: Write) -> Write:
    """A function that writes a threat model of Fashion-MNIST and a shipped network behind defenses.

    masked: the network rounds its own inputs to 3 bits.
    """
    (tmp_path / "photo_models.py").write_text(
        "from torch import nn\nfrom redan import PGD\nfrom redan.samples import model\n\n\n"
        "class Round(nn.Module):\n    def forward(self, x):\n        return (x * 7).round() / 7\n\n\n"
        "def masked():\n    return nn.Sequential(Round(), model('natural')).eval()\n\n\n"
        "def bare():\n    return model('natural')\n\n\n"
        "climb = PGD(steps=5)\n"
    )

    def write(*, masked: bool = False, rows: int = 12, **changed: object) -> Path:
        x, y = fashion_mnist()
        return shop(
            arrays={"x": x[:rows], "y": y[:rows]},
            **{
                "system__model": {"factory": f"photo_models:{'masked' if masked else 'bare'}"},
                "system__classes": 10,
                "system__inputs": {"kind": "image", "shape": [1, 28, 28], "bounds": [0, 1]},
                "attackers__0__change": {"linf": 0.05},
                **changed,
            },
        )

    return write


def counts(report: Report) -> Counts:
    found = report.attackers[0].counts
    assert found is not None
    return found


def inputs(report: Report) -> tuple[Tensor, Tensor]:
    """The saved inputs of the rows that were broken, and their labels."""
    folder = RunFolder.open(report.run.folder)
    lines = [line for segment in folder.segments() for line in folder.segment(segment)]
    broken = {line.row: line.y for line in lines if line.event == "row" and line.status == "broken" and not line.beside}
    found = dict(saved_inputs(folder, "anyone", set(broken)))
    assert found.keys() == broken.keys()
    return torch.stack(list(found.values())), torch.tensor([broken[row] for row in found])


def test_a_defended_model_is_attacked_as_it_is_served(shop: Write) -> None:
    arrays = rows_that_rounding_breaks(12)
    bare = redan.assess(shop(arrays=arrays, **IMAGE))
    assert (counts(bare).right, counts(bare).broken, bare.defenses) == (12, 0, [])
    path = shop(arrays=arrays, system__defenses=ONE_BIT, **IMAGE)
    report = redan.assess(path)
    assert (counts(report).right, counts(report).broken) == (12, 12)
    assert report.defenses == ["bit-depth(bits=1)"]
    x, y = inputs(report)
    served = inspect(path).built.target
    assert not bool((served(x).argmax(1) == y).any())
    sums = x.flatten(1)[:, :6].reshape(-1, 3, 2).sum(2)
    assert bool((sums.argmax(1) == y).all())  # the bare model is right about each
    assert torch.equal(served(x), BitDepth(bits=1)(x).flatten(1)[:, :6].reshape(-1, 3, 2).sum(2))
    assert replay(report.run.folder, path).differences == ()
    bare_again = replay(report.run.folder, shop(arrays=arrays, **IMAGE))
    assert (bare_again.kept, bare_again.agreed) == (12, 0)


def test_the_order_is_that_of_the_file_and_digests_are_of_the_bare_model(shop: Write) -> None:
    both = [{"non-local-means": {"search": 3, "strength": 90}}, {"bit-depth": {"bits": 1}}]
    found = {}
    for name, defenses in {"bare": [], "one": both, "other": both[::-1]}.items():
        found[name] = inspect(shop(system__defenses=defenses, **IMAGE))
    assert len({ready.built.model_digest for ready in found.values()}) == 1
    assert len({ready.digests["threat_model"] for ready in found.values()}) == 3
    x = torch.rand(32, 1, 1, 7, generator=torch.Generator().manual_seed(0))
    one, other = (found[name].built.target(x) for name in ("one", "other"))
    first = NonLocalMeans(search=3, strength=90)(
        BitDepth(bits=1)(x)
    )  # an input meets the outermost first, which is the last of the file
    assert torch.equal(one, found["bare"].built.target(first))
    assert not torch.equal(one, other)


def test_no_defenses_are_no_change(shop: Write) -> None:
    found = {redan.assess(path).digests["evidence"] for path in (shop(), shop(system__defenses=[]))}
    assert len(found) == 1
    assert redan.assess(shop(**IMAGE, system__defenses=THREE_BITS)).digests["evidence"] not in found


def test_what_hides_its_gradient_from_a_naive_climb_is_broken_behind_its_stand_in(photos: Write) -> None:
    masked = inspect(photos(masked=True)).built
    honest = inspect(photos(system__defenses=THREE_BITS)).built
    x, y = masked.x, masked.y
    assert torch.equal(honest.target(x), masked.target(x))  # the same function, and the same rows
    climb, within = redan.PGD(steps=20), redan.Linf(0.1)
    naive, adaptive = (redan.attack(each.target, x, y, climb, within=within) for each in (masked, honest))
    assert int(naive.success.sum()) == 0
    assert int(adaptive.success.sum()) == 12
    report = redan.assess(photos(system__defenses=THREE_BITS))
    assert counts(report).broken >= 6
    assert not any(d.blocks_pass for d in report.attackers[0].diagnosis)
    x, y = inputs(report)
    with torch.no_grad():
        assert not bool((model("natural")((x * 7).round() / 7).argmax(1) == y).any())
    assert report.environment["gradient_path"] == redan.assess(photos()).environment["gradient_path"] != "plain"


@pytest.mark.parametrize(
    "defenses",
    [
        pytest.param([{"jpeg": {"quality": 75}}, *THREE_BITS], marks=pytest.mark.extras),
        THREE_BITS,
        [{"median": {"size": 3}}],
        RESIZED,
        [{"total_variation": {"steps": 5}}],
    ],
)
def test_the_preflight_lets_an_honest_defended_model_through(photos: Write, defenses: list[Any]) -> None:
    ready = inspect(photos(system__defenses=defenses, rows=48))
    fired = {f.check for f in ready.findings if f.fired}
    assert not {f.check for f in ready.findings if f.fired and f.level is Level.REFUSE}
    varies = "steps" in str(defenses) or defenses is RESIZED
    assert fired <= ({"determinism"} if varies else set())
    assert ready.built.target.stochastic is varies


def test_a_stochastic_defense_is_judged_over_draws_and_replays(photos: Write) -> None:
    path = photos(system__defenses=RESIZED, rows=6, attacks__eot=4, **CLIMBED)
    report = redan.assess(path)
    assert report.run.model_stochastic
    assert counts(report).held is not None
    assert counts(report).broken >= 1
    part = report.attackers[0].attacks[0]
    assert part.backwards % 4 == 0  # each gradient is of four draws
    assert redan.assess(path).digests["evidence"] == report.digests["evidence"]
    assert replay(report.run.folder, path).differences == ()


@pytest.mark.parametrize("defenses", [THREE_BITS, RESIZED])
def test_a_run_that_our_limits_cut_goes_on(photos: Write, defenses: list[Any]) -> None:
    path = photos(system__defenses=defenses, rows=6, run__block=3, **CLIMBED)
    whole = redan.assess(path)
    cut = redan.assess(path, limits=Limits(queries=sum(a.queries for a in whole.attackers[0].attacks) // 2))
    assert cut.limits_hit == ["queries"]
    again = redan.assess(path, resume=cut.run.folder)
    assert again.limits_hit == []
    assert (counts(again).drawn, counts(again).undecided, counts(again).missing) == (6, 0, 0)
    assert again.digests["evidence"] == whole.digests["evidence"]
    assert again.environment == whole.environment


WRONG: dict[str, tuple[dict[str, Any], list[str]]] = {
    "name": (
        {"system__defenses": [{"median": {"size": 2}}, {"jpg": {}}], **IMAGE},
        ["system.defenses[1].jpg", "did you mean 'jpeg'?", "redan knows bit-depth"],
    ),
    "setting": (
        {"system__defenses": [{"jpeg": {"qualty": 75}}], **IMAGE},
        ["system.defenses[0].jpeg", "'qualty'", "did you mean 'quality'?"],
    ),
    "missing setting": ({"system__defenses": [{"bit_depth": {}}], **IMAGE}, ["[0].bit_depth", "needs the setting"]),
    "value": ({"system__defenses": [{"jpeg": {"quality": 101}}], **IMAGE}, ["[0].jpeg", "from 1 to 95, got 101"]),
    "inputs": ({"system__defenses": THREE_BITS}, ["system.defenses[0].bit-depth fits inputs of kind image", "tensor"]),
    "table": (
        {"system__defenses": THREE_BITS, "system__inputs": {"kind": "table"}},
        ["system.defenses[0].bit-depth fits inputs of kind image, and they are table"],
    ),
    "channels": (
        {
            **IMAGE,
            "system__inputs": {"kind": "image", "shape": [2, 1, 7], "bounds": [0, 1]},
            "system__defenses": [{"jpeg": {}}],
        },
        ["system.defenses[0].jpeg does not fit", "these have 2 channels"],
    ),
    "channels of another defense": (
        {**IMAGE, "system__defenses": [{"jpeg": {}}, {"thermometer": {"levels": 4}}]},
        ["system.defenses[0].jpeg does not fit", "these have 4 channels"],
    ),
    "normalization": (
        {
            "system__inputs": {**IMAGE["system__inputs"], "normalization": {"mean": [0.5], "std": [0.5]}},
            "system__defenses": [{"thermometer": {"levels": 4}}],
        },
        ["system.inputs.normalization is for 1 channels, and the model gets 4"],
    ),
    "endpoint": (
        {
            **IMAGE,
            "system__model": {"http": {"url": "http://localhost:1/", "protocol": "oip-v2", "model": "m"}},
            "system__defenses": THREE_BITS,
        },
        ["system.defenses are for models that are here"],
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_served_is_refused_with_its_key_before_anything_runs(
    shop: Write, tmp_path: Path, case: str
) -> None:
    changed, words = WRONG[case]
    path = shop(**{key: value for key, value in changed.items() if "system__model" not in key or case != "endpoint"})
    if case == "endpoint":
        document = yaml.safe_load(path.read_text())
        document["system"]["model"] = changed["system__model"]
        path.write_text(yaml.safe_dump(document))
    with pytest.raises(ThreatModelError) as error:
        redan.assess(path)
    assert all(each in str(error.value) for each in words), str(error.value)
    assert not (tmp_path / "runs").exists()


def test_a_codec_that_is_not_installed_is_told_before_anything_runs(
    photos: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    with pytest.raises(RedanError, match=r"redan\[images\]"):
        redan.assess(photos(system__defenses=[{"jpeg": {}}]))
    assert not (tmp_path / "runs").exists()


def test_building_takes_none_of_the_callers_numbers(photos: Write) -> None:
    after = []
    with torch.random.fork_rng():
        for defenses in ([], RESIZED):
            torch.manual_seed(3)
            inspect(photos(system__defenses=defenses, rows=6))
            after.append(torch.get_rng_state())
    assert torch.equal(*after)


def test_poisoned_victims_are_bare_and_the_report_says_so(supplied: Write, tmp_path: Path) -> None:
    ready = inspect(supplied(tmp_path / "defended", images=True, system__defenses=THREE_BITS))
    assert any("judged without system.defenses" in note for note in ready.built.notes)
    assert not inspect(supplied(tmp_path / "bare", images=True)).built.notes


def test_surrogates_stay_bare(shop: Write) -> None:
    lent = {"factory": "{shop}:build", "arguments": {"kind": "Picture"}}
    ready = inspect(
        shop(
            system__defenses=ONE_BIT,
            attackers__0__knowledge="surrogate",
            attackers__0__surrogates=[lent],
            **IMAGE,
        )
    )
    x = ready.built.x
    (held,) = ready.built.surrogates.values()
    assert torch.equal(held(x), x.flatten(1)[:, :6].reshape(-1, 3, 2).sum(2))
    assert not torch.equal(held(x), ready.built.target(x))


def test_the_plan_and_every_view_say_what_is_served(shop: Write) -> None:
    said = "input → bit-depth(bits=1) → median(size=2) → model"
    path = shop(system__defenses=[{"median": {"size": 2}}, *ONE_BIT], **IMAGE)
    assert f"served: {said}" in CliRunner().invoke(app, ["plan", str(path)]).stdout
    assert "served:" not in CliRunner().invoke(app, ["plan", str(shop(**IMAGE))]).stdout
    path = shop(system__defenses=[{"median": {"size": 2}}, *ONE_BIT], **IMAGE)
    report = redan.assess(path)
    assert report.defenses == read(path).model.system.served_behind == ["median(size=2)", "bit-depth(bits=1)"]
    assert report_of(RunFolder.open(report.run.folder)) == report
    screen = StringIO()
    terminal.show(report, Console(file=screen, width=200))
    for view in (screen.getvalue(), markdown.render(report), html.render(report)):
        assert said in view


def test_a_log_of_before_there_were_defenses_is_read(shop: Write) -> None:
    report = redan.assess(shop())
    (first, *_) = sorted((Path(report.run.folder) / "log").iterdir())
    text = first.read_text("utf-8")
    assert '"defenses":[],' in text
    first.write_text(text.replace('"defenses":[],', "", 1), "utf-8")
    assert report_of(RunFolder.open(report.run.folder)) == report
