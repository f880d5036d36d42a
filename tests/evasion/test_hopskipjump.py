"""HopSkipJump: near the optimum by decisions alone and never below it, its bill exact, its rounds the paper's."""

from __future__ import annotations

import json
import math
import subprocess
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from redan.engine.run import AttackResult, attack
from redan.errors import SetError
from redan.evasion import hopskipjump
from redan.evasion.cascade import Cascade
from redan.evasion.hopskipjump import HopSkipJump
from redan.goals import LeastLikely
from redan.oracle import Capability
from redan.perturbations.norms import L2, Linf
from redan.perturbations.sparse import L0, L1
from redan.protocols import Access, Attack, Ball, Labels
from redan.referee import Closest
from redan.rows import Rows
from redan.samples import fashion_mnist, model
from redan.targets import Output, from_function
from redan.testing import LinearVictim, SphereVictim, dual_l2, dual_linf

ROOT = Path(__file__).resolve().parents[2]
SETS: dict[str, Any] = {"linf": (Linf, dual_linf), "l2": (L2, dual_l2)}
Box = tuple[float, float]


def nearest(
    victim: nn.Module, x: Tensor, y: Tensor, one: Attack[Any, Any], kind: str = "l2", bounds: Box = (0, 1)
) -> AttackResult:
    """The nearest that is found without any limit, by decisions alone."""
    within = SETS[kind][0](math.inf)
    return attack(victim, x, y, one, within=within, keep=Closest(), bounds=bounds, knowledge=Access.LABELS, workers=1)


def images(name: str, count: int) -> tuple[nn.Module, Tensor, Tensor]:
    """The first rows that a sample model answers right."""
    found, labels = fashion_mnist()
    x, y, victim = torch.from_numpy(found[: 2 * count]), torch.from_numpy(labels[: 2 * count]), model(name)
    with torch.no_grad():
        right = victim(x).argmax(1) == y
    return victim, x[right][:count], y[right][:count]


@dataclass(frozen=True, slots=True)
class Told:
    """An attack whose questions and answers are written down, a call each: (ids, x, reached)."""

    attack: Attack[Any, Any]
    starts: Tensor | None = None
    said: list[tuple[Tensor, Tensor, Tensor]] = field(default_factory=list, compare=False)

    def __call__(self, referee: Labels[Tensor], rows: Rows[Tensor, Ball]) -> None:
        said = self.said

        class Telling:
            survivors, best = referee.survivors, referee.best

            @staticmethod
            def reached(x: Tensor, rows: Rows[Tensor, Any]) -> Tensor:
                hit = referee.reached(x, rows)
                said.append((rows.ids.clone(), x.clone(), hit.clone()))
                return hit

        self.attack(Telling, rows if self.starts is None else replace(rows, starts=self.starts[rows.ids]))


# -- known answers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "size", "factor"), [("l2", 12, 1.05), ("l2", 48, 1.15), ("linf", 12, 1.15), ("linf", 48, 1.35)]
)
@pytest.mark.parametrize("bounds", [(0.0, 1.0), (-3.0, 5.0)])
def test_a_linear_model(kind: str, size: int, factor: float, bounds: Box) -> None:
    """Margin ÷ dual norm of the weights' difference, times the factor at the most for the median row."""
    victim = LinearVictim.drawn(0, bounds=bounds, shape=(size,))
    x, y = victim.rows(24)
    found = nearest(victim.module(), x, y, HopSkipJump(queries=1500), kind, bounds)
    ratio = found.distance / victim.optimum(x, y, SETS[kind][1])

    assert bool((ratio >= 1 - 1e-5).all())
    assert float(ratio.median()) < factor
    assert float(ratio.max()) < 1.6


def test_a_sphere() -> None:
    victim = SphereVictim()
    x, y = victim.rows(24)
    ratio = nearest(victim.module(), x, y, HopSkipJump(queries=1500)).distance / victim.l2(x)

    assert bool((ratio >= 1 - 1e-5).all())
    assert float(ratio.median()) < 1.1


@pytest.mark.parametrize("kind", ["l2", "linf"])
def test_more_queries_come_nearer(kind: str) -> None:
    victim, x, y = images("natural", 12)
    few, more = (nearest(victim, x, y, HopSkipJump(queries=most), kind).distance for most in (150, 1000))

    assert bool(more.isfinite().all())
    assert float(more.median()) < 0.7 * float(few.median())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["l2", "linf"])
@pytest.mark.parametrize("wrong", ["random", "flipped"])
def test_a_normal_that_is_wrong_is_seen(kind: str, wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    victim, x, y = images("natural", 12)
    one = HopSkipJump(queries=800)
    sound, real = nearest(victim, x, y, one, kind).distance.median(), hopskipjump._probed

    def broken(*arguments: Any) -> Any:
        rows, walk = real(*arguments)
        noise = rows.draw.normal(walk.x.shape[1:], walk.x.dtype)
        return rows, walk._replace(normal=noise if wrong == "random" else -walk.normal)

    monkeypatch.setattr(hopskipjump, "_probed", broken)
    assert nearest(victim, x, y, one, kind).distance.median() > 1.3 * sound


# -- the round of the paper ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["l2", "linf"])
def test_the_first_two_rounds_are_the_paper_s(kind: str) -> None:
    """B₀√t probes around the point at the boundary, their mean with its baseline, a step of d / √t along it."""
    victim = LinearVictim.drawn(2, shape=(20,), dtype=torch.float64)
    x, y = victim.rows(1)
    told = Told(HopSkipJump(queries=500, first=64, tries=3))
    nearest(victim.module(), x, y, told, kind)
    asked = [(shown, hit) for _, shown, hit in told.said]
    start, searched = asked[:3], asked[3:13]
    assert all(len(shown) == 1 for shown, _ in start + searched)
    point = next(shown for shown, hit in reversed(start + searched) if bool(hit))
    normal, at = torch.zeros(20, dtype=torch.float64), 13
    for turn, probes in ((1, 64), (2, int(64 * math.sqrt(2)))):
        calls = math.ceil(probes / 32)
        shown = torch.cat([each for each, _ in asked[at : at + calls]])
        sign = torch.cat([hit for _, hit in asked[at : at + calls]]).double() * 2 - 1
        at += calls
        assert len(shown) == probes
        length = 0.05 * float((point - x).norm())
        moves = shown - point
        free = ((shown > 0) & (shown < 1)).all(1)
        assert torch.allclose(moves[free].norm(dim=1), torch.full((int(free.sum()),), length, dtype=torch.float64))
        assert 0.2 < float((sign > 0).double().mean()) < 0.8
        mean = ((sign - sign.mean())[:, None] * moves).mean(0)  # equation 16
        normal = 0.5 * normal + mean / mean.norm()
        far = float((point - x).norm() if kind == "l2" else (point - x).abs().max())
        size = far / math.sqrt(turn)
        while True:
            step, hit = asked[at]
            at += 1
            way = normal / normal.norm() if kind == "l2" else normal.sign()
            assert torch.allclose(step[0], (point[0] + size * way).clamp(0, 1), atol=1e-9)
            if bool(hit):
                break
            size /= 2
        after = [*asked[at - 1 : at], *asked[at : at + 10]]
        point = next(shown for shown, hit in reversed(after) if bool(hit))
        ends = [shown for shown, _ in asked[at : at + 10]]
        assert torch.allclose(ends[0], _between(x, after[0][0], 0.5, kind))
        at += 10


def _between(x0: Tensor, far: Tensor, share: float, kind: str) -> Tensor:
    """A share of the way back to the clean input: on the line in L2, cut in each coordinate in L∞."""
    if kind == "l2":
        return x0 + share * (far - x0)
    most = share * (far - x0).abs().max()
    return x0 + (far - x0).clamp(-most, most)


class Rounded(nn.Module):
    """A model behind a service that rounds pictures to some levels."""

    def __init__(self, inner: nn.Module, steps: int) -> None:
        super().__init__()
        self.inner, self.steps = inner, steps

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.inner((x * self.steps).round() / self.steps)
        return answer


def test_eight_bits_change_little() -> None:
    """Probes as short as the paper's would be rounded away."""
    victim, x, y = images("natural", 16)
    x = (x * 255).round() / 255
    one = HopSkipJump(queries=1000)
    plain, rounded = (nearest(each, x, y, one).distance.median() for each in (victim, Rounded(victim, 255).eval()))

    assert rounded < 1.2 * plain


@pytest.mark.slow
def test_probes_get_longer_where_nearly_all_are_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """At five bits short probes move few pixels to another level."""
    victim, x, y = images("robust", 20)
    coarse, one = Rounded(victim, 31).eval(), HopSkipJump(queries=1000)
    longer = nearest(coarse, x, y, one).distance.median()
    monkeypatch.setattr(hopskipjump, "_LONGER", 1)

    assert longer < 0.9 * nearest(coarse, x, y, one).distance.median()


# -- starts ------------------------------------------------------------------------------------------------------


class Rough(nn.Module):
    """Class 1 for what changes much from pixel to pixel, as noise does, and class 0 for smooth pictures."""

    def forward(self, x: Tensor) -> Tensor:
        rough = (x[..., 1:] - x[..., :-1]).abs().flatten(1).mean(1)
        return torch.stack([0.2 - rough, rough - 0.2], 1)


def test_where_all_noise_is_right_a_pattern_is_wrong() -> None:
    x = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    y = torch.ones(6, dtype=torch.int64)
    assert bool((Rough()(x).argmax(1) == y).all())
    found = nearest(Rough().eval(), x, y, HopSkipJump(queries=400))

    assert bool(found.success.all())
    assert float(found.distance.max()) < float(x.flatten(1).sub(0.5).norm(dim=1).max())


class Stubborn(nn.Module):
    """The same class for every input but for those within 0.1 of a secret one."""

    def forward(self, x: Tensor) -> Tensor:
        away = (x - 0.125).abs().amax(1)
        return torch.stack([away - 0.1, 0.1 - away], 1)


def test_rows_without_a_start_are_left_and_cost_no_more_than_the_tries() -> None:
    x, y = torch.full((5, 30), 0.75), torch.zeros(5, dtype=torch.int64)
    found = nearest(Stubborn().eval(), x, y, HopSkipJump(queries=400, tries=37))

    assert not found.success.any()
    assert found.queries.tolist() == [37] * 5
    assert torch.equal(found.adversarial, x)


def test_the_attacker_s_own_samples_are_a_start() -> None:
    x, y = torch.full((5, 30), 0.75), torch.zeros(5, dtype=torch.int64)
    told = Told(HopSkipJump(queries=400, tries=5), torch.full((5, 30), 0.125))
    found = nearest(Stubborn().eval(), x, y, told)

    assert bool(found.success.all())
    assert torch.equal(told.said[0][1], torch.full((5, 30), 0.125))
    assert bool((found.distance < math.sqrt(30) * 0.55).all())
    assert bool((found.distance >= math.sqrt(30) * 0.525 * (1 - 1e-5)).all())


def test_a_wanted_class_is_reached_from_a_sample_of_it() -> None:
    victim, x, y = images("natural", 12)
    with torch.no_grad():
        wanted = victim(x).argmin(1)
    pool, labels = fashion_mnist()
    everything, truth = torch.from_numpy(pool[100:]), torch.from_numpy(labels[100:])
    with torch.no_grad():
        sure = victim(everything).softmax(1)
    picks = [int((sure[:, k] * (truth == k)).argmax()) for k in wanted.tolist()]
    told = Told(HopSkipJump(queries=500), everything[picks])
    within, aim = L2(math.inf), LeastLikely()
    found = attack(victim, x, y, told, within=within, keep=Closest(), goal=aim, knowledge=Access.LABELS, workers=1)

    assert bool(found.success.all())
    with torch.no_grad():
        assert torch.equal(victim(found.adversarial).argmax(1), wanted)
    whole = within.distance(everything[picks], x)
    assert float((found.distance / whole).median()) < 0.6


def test_it_goes_on_from_what_was_found_before() -> None:
    """In a cascade the nearest candidate so far is the start."""
    victim = LinearVictim.drawn(1, shape=(12,))
    x, y = victim.rows(8)
    first, second = Told(HopSkipJump(queries=300)), Told(HopSkipJump(queries=200))
    both = nearest(victim.module(), x, y, Cascade((first, second))).distance
    before = torch.full((8,), math.inf)
    for ids, shown, hit in first.said:
        for row, away in zip(ids[hit].tolist(), L2(1.0).distance(shown, x[ids])[hit].tolist(), strict=True):
            before[row] = min(float(before[row]), away)

    ids, shown, _ = second.said[0]
    assert ids.tolist() == list(range(8))
    assert torch.allclose(L2(1.0).distance(shown, x), 0.8 * before, rtol=1e-4)
    assert bool((both <= before).all())
    assert bool((both < 0.99 * before).any())


# -- what it costs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("queries", [1, 2, 9, 20, 37, 63, 250])
@pytest.mark.parametrize("kind", ["l2", "linf"])
def test_no_more_is_asked_than_told_and_every_question_is_billed(queries: int, kind: str) -> None:
    victim = LinearVictim.drawn(5, shape=(2, 3, 4), classes=3)
    x, y = victim.rows(9)
    asked = 0

    def answer(rows: np.ndarray[Any, Any]) -> Any:
        nonlocal asked
        asked += len(rows)
        return victim.module()(torch.from_numpy(rows)).argmax(1).numpy()

    target = from_function(answer, output=Output.LABELS, classes=3)
    told = Told(HopSkipJump(queries=queries))
    found = attack(target, x, y, told, within=SETS[kind][0](math.inf), keep=Closest(), workers=1)
    assert int(found.queries.max()) <= queries
    assert found.queries.tolist() == torch.cat([ids for ids, _, _ in told.said]).bincount(minlength=9).tolist()
    assert not found.backwards.any()
    assert asked >= int(found.queries.sum()) > 0
    if queries >= 63:
        assert int(found.queries.min()) > queries - 30, "what may be spent is spent"


@pytest.mark.parametrize("most", [1, 45, 130])
def test_a_weaker_attacker_is_held_to_what_he_may_spend(most: int) -> None:
    victim, x, y = images("natural", 6)
    capability = Capability(queries_per_row=most)
    found = attack(
        victim, x, y, HopSkipJump(), within=L2(1e-3), capability=capability, knowledge=Access.LABELS, workers=1
    )
    assert found.queries.tolist() == [most] * 6
    assert not found.success.any()


@pytest.mark.parametrize("within", [L2(1.5), Linf(0.1)])
def test_a_row_leaves_once_it_is_inside(within: Ball) -> None:
    victim, x, y = images("natural", 12)
    told = Told(HopSkipJump(queries=1000))
    found = attack(victim, x, y, told, within=within, knowledge=Access.LABELS, workers=1)
    won = found.success.nonzero().flatten().tolist()

    assert len(won) > 4
    assert bool((found.queries[found.success] < 1000).all())
    for row in won:
        mine = [(shown[ids == row], hit[ids == row]) for ids, shown, hit in told.said if bool((ids == row).any())]
        inside = [bool((within.contains(shown, x[[row]].expand_as(shown)) & hit).any()) for shown, hit in mine]
        assert inside.index(True) == len(inside) - 1, "asked again after it was won"


@pytest.mark.parametrize("within", [L1(1.0), L0(3)])
def test_other_sets_are_refused(within: Ball) -> None:
    victim = LinearVictim.drawn(0)
    with pytest.raises(SetError, match="HopSkipJump moves in Linf and L2, not in L"):
        attack(victim.module(), *victim.rows(4), HopSkipJump(), within=within, workers=1)


def test_probes_in_groups_change_no_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    victim, x, y = images("natural", 7)
    one = HopSkipJump(queries=300)
    whole = nearest(victim, x, y, one, "linf")
    monkeypatch.setattr(hopskipjump, "_NUMBERS", 32 * 784 * 2)
    parts = nearest(victim, x, y, one, "linf")

    assert torch.equal(whole.adversarial, parts.adversarial)
    assert torch.equal(whole.queries, parts.queries)


# -- beside another library -----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("kind", ["l2", "linf"])
def test_no_weaker_than_foolbox(kind: str, tmp_path: Path) -> None:
    """At 1,000 and 3,000 queries a row, their search for a start not counted, ours counted: never a larger median."""
    subprocess.run(["bash", str(ROOT / "benchmarks/peers/install.sh")], check=True, capture_output=True)
    marks, names, count = (1000, 3000), ("natural", "robust"), 16
    out = tmp_path / "out.json"
    script = Path(__file__).with_name("hopskipjump_peer.py")
    asked = json.dumps({"kind": kind, "marks": marks, "models": names, "count": count})
    python = ROOT / ".envs/peers/bin/python"
    subprocess.run(
        [str(python), str(script), str(ROOT / "benchmarks/peers"), asked, str(out)], check=True, capture_output=True
    )
    theirs = json.loads(out.read_text(encoding="utf-8"))
    for name in names:
        victim, x, y = images(name, count)
        for mark in marks:
            peer = torch.tensor([math.inf if far is None else far for far in theirs[name][str(mark)]])
            mine = nearest(victim, x, y, HopSkipJump(queries=mark), kind)
            what = (kind, name, mark, float(peer.median()), float(mine.distance.median()))
            assert int(mine.queries.max()) <= mark
            assert int(mine.success.sum()) >= int(peer.isfinite().sum()), what
            assert float(mine.distance.median()) <= 1.02 * float(peer.median()), what
        if name == "natural":  # on the robust network our start alone is as near in L∞ as theirs comes
            weak = nearest(victim, x, y, HopSkipJump(queries=120), kind).distance
            assert float(weak.median()) > 1.02 * float(peer.median()), "few queries would pass too"
