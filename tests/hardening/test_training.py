"""Training: what comes out, that it can be broken off anywhere, and what it leaves as it was."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim import Optimizer, lr_scheduler
from torch.utils.data import DataLoader, TensorDataset

from redan import samples
from redan.errors import DataError, EvidenceError, SettingError, TargetError
from redan.hardening import (
    AWP,
    EMA,
    FGSM,
    FGSM_RS,
    PGD_7,
    TRADES,
    Adversarial,
    Armed,
    Ascent,
    Batch,
    Data,
    Hardened,
    Inner,
    Loss,
    Objective,
    Plain,
    Progress,
    Shuffled,
    Training,
    Validation,
    Watch,
    harden,
    rise_and_fall,
)
from redan.hardening.objectives import Answer
from redan.perturbations.norms import Linf
from redan.protocols import Ball
from redan.samples.models import cnn

WITHIN = Linf(0.1)
SHORT = Watch(every=2, rows=16, strong=Ascent(steps=2))


class Stopped(Exception):
    """A process that was killed."""


def _net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(4 * 16, 3),
    )


def _rows(count: int = 100) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(1)
    y = torch.randint(3, (count,), generator=draw)
    x = torch.rand(count, 2, 4, 4, generator=draw) * 0.6
    x[torch.arange(count), 0, y] += 0.3
    return x, y


def _bytes(model: nn.Module) -> list[bytes]:
    return [part.contiguous().numpy().tobytes() for part in model.state_dict().values()]


def _training(objective: Objective | None = None, **how: Any) -> Training:
    settings: dict[str, Any] = {"epochs": 3, "watch": SHORT, "seed": 4} | how
    return Training(objective=objective or Adversarial(within=WITHIN, inner=FGSM_RS), **settings)


def _run(training: Training, model: nn.Module | None = None, data: Data | None = None, **how: Any) -> Hardened:
    return harden(model or _net(), data or Shuffled(*_rows(), batch=16), training, **how)


# -- the same bytes ------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_bytes_and_another_one_others() -> None:
    one = _run(_training())
    torch.manual_seed(77)
    torch.rand(5)
    assert _bytes(_run(_training()).model) == _bytes(one.model)
    assert _bytes(_run(_training(seed=5)).model) != _bytes(one.model)


OBJECTIVES: list[Objective] = [
    Adversarial(within=WITHIN, inner=FGSM_RS),
    AWP(objective=TRADES(within=WITHIN, inner=Ascent(steps=2, start=0.05)), gamma=0.01, after=0.4),
]


def _momentum(model: nn.Module) -> tuple[Optimizer, None]:
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4), None


def _cycle(model: nn.Module) -> tuple[Optimizer, lr_scheduler.LRScheduler]:
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    return optimizer, lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=21)


def _default(model: nn.Module) -> tuple[None, None]:
    return None, None


@pytest.mark.parametrize(
    ("objective", "make", "at"),
    [
        (OBJECTIVES[0], _default, 2),  # before the first save
        (OBJECTIVES[0], _momentum, 9),
        (OBJECTIVES[1], _cycle, 12),
        (OBJECTIVES[1], _default, 14),  # between two epochs
    ],
)
def test_a_training_that_was_broken_off_gives_the_bytes_of_one_that_was_not(
    objective: Objective, make: Callable[[nn.Module], Any], at: int, tmp_path: Path
) -> None:
    x, y = _rows(40)
    training = _training(objective, average=EMA(decay=0.9), save_every=4)
    held_out = Validation(x=x, y=y, within=WITHIN, inner=Ascent(steps=2))

    def run(where: Path, stop: int | None = None) -> Hardened:
        model = _net()
        optimizer, scheduler = make(model)

        class Rows(Shuffled):
            def batches(self, epoch: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
                for number, batch in enumerate(super().batches(epoch, seed)):
                    if stop is not None and epoch * len(self) + number == stop:
                        raise Stopped
                    yield batch

        return harden(
            model,
            Rows(*_rows(), batch=16),
            training,
            optimizer=optimizer,
            scheduler=scheduler,
            validation=held_out,
            folder=where,
            resume=True,
        )

    whole = run(tmp_path / "whole")
    with pytest.raises(Stopped):
        run(tmp_path / "broken", stop=at)
    resumed = run(tmp_path / "broken")
    assert _bytes(resumed.model) == _bytes(whole.model)
    assert (resumed.best, resumed.alarms) == (whole.best, whole.alarms)
    assert [replace(e, seconds=0, rows_per_second=0) for e in resumed.epochs] == [
        replace(e, seconds=0, rows_per_second=0) for e in whole.epochs
    ]
    models = [load_file(tmp_path / name / "model.safetensors") for name in ("whole", "broken")]
    assert all(torch.equal(part, models[1][name]) for name, part in models[0].items())
    again = run(tmp_path / "broken")  # a finished one has nothing left to do
    assert _bytes(again.model) == _bytes(whole.model)


def test_a_loader_is_resumed_in_the_middle_of_an_epoch(tmp_path: Path) -> None:
    def loader() -> DataLoader[Any]:
        return DataLoader(TensorDataset(*_rows()), batch_size=16, shuffle=True)

    whole = _net()
    harden(whole, loader(), _training())
    broken = _net()

    def stop(progress: Progress) -> None:
        raise Stopped

    training = _training(save_every=3)
    calls = 0

    class Killed(Adversarial):
        def __call__(self, model: nn.Module, batch: Batch) -> Loss:
            nonlocal calls
            calls += 1
            if calls == 12:
                raise Stopped
            return super().__call__(model, batch)

    with pytest.raises(Stopped):
        harden(broken, loader(), _training(Killed(within=WITHIN, inner=FGSM_RS), save_every=3), folder=tmp_path)
    resumed = _net()
    harden(resumed, loader(), training, folder=tmp_path, resume=True)
    assert _bytes(resumed) == _bytes(whole)


def test_a_folder_of_another_training_is_refused(tmp_path: Path) -> None:
    _run(_training(), folder=tmp_path)
    with pytest.raises(SettingError, match="holds a training already"):
        _run(_training(), folder=tmp_path)
    with pytest.raises(EvidenceError, match="is not this one"):
        _run(_training(epochs=4), folder=tmp_path, resume=True)
    with pytest.raises(SettingError, match="without a folder"):
        _run(_training(), resume=True)


# -- what it does --------------------------------------------------------------------------------------------------


def test_it_is_the_loop_that_anyone_would_write() -> None:
    """Ordinary training, spelled out: rows in the order of the seed, SGD, the schedule."""
    torch.manual_seed(0)
    ours = nn.Sequential(nn.Flatten(), nn.Linear(32, 3))
    theirs = nn.Sequential(nn.Flatten(), nn.Linear(32, 3))
    theirs.load_state_dict(ours.state_dict())
    data = Shuffled(*_rows(), batch=16)
    harden(ours, data, _training(Plain()), optimizer=torch.optim.SGD(ours.parameters(), lr=0.5))
    optimizer, step = torch.optim.SGD(theirs.parameters(), lr=0.5), 0
    for epoch in range(3):
        for x, y in data.batches(epoch, 4):
            optimizer.param_groups[0]["lr"] = 0.5 * rise_and_fall((step + 0.5) / 21)
            optimizer.zero_grad()
            torch.autograd.backward(nn.functional.cross_entropy(theirs(x), y))
            optimizer.step()
            step += 1
    assert _bytes(ours) == _bytes(theirs)


def test_what_is_recorded(tmp_path: Path) -> None:
    x, y = _rows(40)
    told: list[Progress] = []
    held_out = Validation(x=x, y=y, within=WITHIN, inner=Ascent(steps=2))
    found = _run(_training(), validation=held_out, folder=tmp_path, progress=told.append)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    epochs = [line for line in lines if line["event"] == "epoch"]
    assert [line["number"] for line in epochs] == [1, 2, 3]
    assert [line["steps"] for line in epochs] == [7, 14, 21]
    for line, epoch in zip(epochs, found.epochs, strict=True):
        assert line["held_out_robust"] == epoch.held_out_robust
        assert 0 <= line["held_out_robust"] <= line["held_out_clean"] <= 1
        assert 0 < line["robust"] <= 1
        assert line["clean"] is None  # the objective asked for no clean rows
        assert line["rows_per_second"] > 0
    robust = [line["held_out_robust"] for line in epochs]
    assert found.best == robust.index(max(robust)) + 1
    assert [line["best"] for line in epochs] == [r > max([-1, *robust[:k]]) for k, r in enumerate(robust)]
    assert [(t.epoch, t.batch) for t in told if t.batch == t.batches] == [(1, 7), (2, 7), (3, 7)]
    assert told[0].held_out is None
    assert told[-1].held_out is not None
    assert held_out(found.model, 0).clean == epochs[found.best - 1]["held_out_clean"]


def test_the_best_epoch_is_kept_and_patience_ends_the_training() -> None:
    @dataclass(frozen=True, slots=True, eq=False, kw_only=True)
    class Falling(Validation):
        """Robust accuracy as it was written down."""

        script: list[float] = field(default_factory=lambda: [0.2, 0.5, 0.5, 0.4, 0.9])
        seen: list[list[bytes]] = field(default_factory=list)

        def __call__(self, model: nn.Module, seed: int) -> Any:
            self.seen.append(_bytes(model))
            return replace_score(self.script[len(self.seen) - 1])

    def replace_score(robust: float) -> Any:
        from redan.hardening import Score

        return Score(1.0, robust)

    x, y = _rows(8)
    held_out = Falling(x=x, y=y, within=WITHIN)
    found = _run(_training(epochs=5, patience=2), validation=held_out)
    assert (len(found.epochs), found.best) == (4, 2)
    assert _bytes(found.model) == held_out.seen[1]
    patient = Falling(x=x, y=y, within=WITHIN)
    assert _run(_training(epochs=5), validation=patient).best == 5


def test_each_step_draws_anew() -> None:
    class Drawing(Plain):
        drawn: list[float] = []  # noqa: RUF012

        def __call__(self, model: nn.Module, batch: Batch) -> Loss:
            self.drawn.append(float(batch.draw.uniform((), torch.float64)[0]))
            return super().__call__(model, batch)

    _run(_training(Drawing()))
    assert len(set(Drawing.drawn)) == 21


def test_averaged_weights_are_the_average_of_the_steps() -> None:
    class Seen(Plain):
        seen: list[Tensor] = []  # noqa: RUF012

        def __call__(self, model: nn.Module, batch: Batch) -> Loss:
            self.seen.append(model.state_dict()["1.weight"].clone())
            return super().__call__(model, batch)

    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(32, 3))
    decay = EMA(decay=0.5)
    raw = nn.Sequential(nn.Flatten(), nn.Linear(32, 3))
    raw.load_state_dict(net.state_dict())
    _run(_training(Seen(), epochs=1), raw)
    steps = [*Seen.seen[1:], raw.state_dict()["1.weight"]]
    average = steps[0]
    for number, weight in enumerate(steps[1:], 1):
        average = decay.at(number) * average + (1 - decay.at(number)) * weight
    _run(_training(epochs=1, objective=Plain(), average=decay), net)
    torch.testing.assert_close(net.state_dict()["1.weight"], average)
    assert not torch.equal(average, raw.state_dict()["1.weight"])


# -- the alarm -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Collapsing:
    """An honest objective under which the weights become, at one moment, those of a model that collapsed."""

    honest: Adversarial
    weights: dict[str, Tensor]
    at: float
    steps: int
    """All steps of the training, so that the moment is one of them."""

    @property
    def within(self) -> Ball:
        return self.honest.within

    @property
    def inner(self) -> Inner:
        return self.honest.inner

    def armed(self, inner: Inner) -> Self:
        return replace(self, honest=self.honest.armed(inner))

    def attacked(self, model: nn.Module, batch: Batch) -> Tensor:
        return self.honest.attacked(model, batch)

    def loss(self, answer: Answer, batch: Batch, attacked: Tensor) -> Loss:
        return self.honest.loss(answer, batch, attacked)

    def __call__(self, model: nn.Module, batch: Batch) -> Loss:
        if self.at <= batch.done < self.at + 1 / self.steps:
            model.load_state_dict(self.weights)
        return self.honest(model, batch)


def _shipped(name: str) -> dict[str, Tensor]:
    return samples.model(name).state_dict()


def _garments(count: int) -> tuple[Tensor, Tensor]:
    x, y = samples.fashion_mnist("train")
    return torch.tensor(x[:count]), torch.tensor(y[:count])


def _begun() -> tuple[nn.Module, Optimizer]:
    model = cnn()
    model.load_state_dict(_shipped("robust"))
    return model, torch.optim.SGD(model.parameters(), lr=1e-4)


def test_a_collapse_rings_and_training_goes_on_from_the_last_good_state_with_the_remedy(tmp_path: Path) -> None:
    model, optimizer = _begun()
    watch = Watch(every=2, rows=64, remedies=(Ascent(steps=2),))
    objective: Armed = Collapsing(
        honest=Adversarial(within=WITHIN, inner=FGSM), weights=_shipped("fast"), at=0.5, steps=8
    )
    training = Training(objective=objective, epochs=2, watch=watch)
    found = harden(model, Shuffled(*_garments(256), batch=64), training, optimizer=optimizer, folder=tmp_path)
    (alarm,) = found.alarms
    assert alarm.step == 8  # the second look after the fall
    assert alarm.restored == 4
    assert alarm.weak - alarm.strong > 0.2
    assert alarm.remedy == repr(Ascent(steps=2))
    far = sum(float((a - b).norm()) for a, b in zip(model.state_dict().values(), _shipped("robust").values()))  # noqa: B905
    assert far < 0.1  # and not at the collapsed weights
    kinds = [json.loads(line)["event"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert kinds == ["epoch", "alarm", "epoch"]


def test_the_learning_rate_does_not_go_back_with_the_weights() -> None:
    model, optimizer = _begun()
    scheduler = lr_scheduler.ExponentialLR(optimizer, 0.5)  # each rate is made from the last one
    watch = Watch(every=2, rows=64, remedies=(Ascent(steps=2),))
    objective = Collapsing(honest=Adversarial(within=WITHIN, inner=FGSM), weights=_shipped("fast"), at=0.5, steps=8)
    training = Training(objective=objective, epochs=2, watch=watch)
    data = Shuffled(*_garments(256), batch=64)
    assert harden(model, data, training, optimizer=optimizer, scheduler=scheduler).alarms
    assert optimizer.param_groups[0]["lr"] == 1e-4 * 0.5**8


@pytest.mark.parametrize("killed", [5, 7])  # between the look that found a gap and the second one, and after the alarm
def test_a_remedy_outlives_a_kill(tmp_path: Path, killed: int) -> None:
    def run(where: Path, stop: int | None = None) -> Hardened:
        model, optimizer = _begun()

        class Rows(Shuffled):
            def batches(self, epoch: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
                for number, batch in enumerate(super().batches(epoch, seed)):
                    if stop is not None and epoch * len(self) + number == stop:
                        raise Stopped
                    yield batch

        watch = Watch(every=2, rows=64, remedies=(Ascent(steps=2), Ascent(steps=3)))
        objective = Collapsing(honest=Adversarial(within=WITHIN, inner=FGSM), weights=_shipped("fast"), at=0.4, steps=8)
        training = Training(objective=objective, epochs=2, watch=watch, save_every=1)
        data = Rows(*_garments(256), batch=64)
        return harden(model, data, training, optimizer=optimizer, folder=where, resume=True)

    whole = run(tmp_path / "whole")
    assert [alarm.step for alarm in whole.alarms] == [6]
    with pytest.raises(Stopped):
        run(tmp_path / "broken", stop=killed)
    resumed = run(tmp_path / "broken")
    assert _bytes(resumed.model) == _bytes(whole.model)
    assert resumed.alarms == whole.alarms


def test_without_remedies_an_alarm_is_only_recorded() -> None:
    model, optimizer = _begun()
    watch = Watch(every=2, rows=64, remedies=())
    objective = Collapsing(honest=Adversarial(within=WITHIN, inner=FGSM), weights=_shipped("fast"), at=0.4, steps=8)
    training = Training(objective=objective, epochs=2, watch=watch)
    found = harden(model, Shuffled(*_garments(256), batch=64), training, optimizer=optimizer)
    assert found.alarms
    assert {(alarm.restored, alarm.remedy) for alarm in found.alarms} == {(None, None)}


def test_honest_training_rings_nothing() -> None:
    model, optimizer = _begun()
    training = Training(
        objective=Adversarial(within=WITHIN, inner=FGSM), epochs=2, watch=Watch(every=1, rows=64, strong=PGD_7)
    )
    assert not harden(model, Shuffled(*_garments(256), batch=64), training, optimizer=optimizer).alarms


# -- what it leaves as it was --------------------------------------------------------------------------------------


def test_modes_and_generators_are_as_before() -> None:
    model = _net().eval()
    torch.manual_seed(8)
    state = torch.get_rng_state()
    seen: list[list[bool]] = []

    class Looking(Plain):
        def __call__(self, model: nn.Module, batch: Batch) -> Loss:
            seen.append([part.training for part in model.children()])
            assert model.get_parameter("0.weight").is_contiguous()
            assert batch.x.is_contiguous(memory_format=torch.channels_last)
            return super().__call__(model, batch)

    _run(_training(Looking()), model)
    assert all(all(modes) for modes in seen)
    assert not any(part.training for part in model.modules())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.grad is None for p in model.parameters())
    frozen = _net().train()
    frozen[1].eval()  # type: ignore[index]
    seen.clear()
    statistics = frozen.get_buffer("1.running_mean").clone()
    _run(_training(Looking()), frozen)
    assert seen[0] == [True, False, True, True, True, True]
    assert torch.equal(frozen.get_buffer("1.running_mean"), statistics)


# -- refusals ------------------------------------------------------------------------------------------------------


def test_what_cannot_be_trained_is_refused() -> None:
    x, y = _rows()
    with pytest.raises(DataError, match=r"outside of the box \(0.0, 1.0\)"):
        _run(_training(), data=Shuffled(x * 2 - 1, y))
    with pytest.raises(TargetError, match="no parameters"):
        _run(_training(), _net().requires_grad_(False))
    with pytest.raises(TargetError, match=r"\(2, 3, 1\), and logits"):
        _run(_training(), nn.Sequential(_net(), nn.Unflatten(1, (3, 1))))
    wild = _net()
    with pytest.raises(TargetError, match="the loss is nan at step 1"):
        _run(_training(), wild, optimizer=torch.optim.SGD(wild.parameters(), lr=float("nan")))
    assert wild.training
    wrongs: list[dict[str, Any]] = [{"epochs": 0}, {"patience": 0}, {"save_every": 0}]
    for wrong in wrongs:
        with pytest.raises(SettingError, match="must be 1 or more"):
            _training(**wrong)

    class Short(Shuffled):
        def __len__(self) -> int:
            return 9

    with pytest.raises(DataError, match="said 9 batches an epoch and gave 7"):
        _run(_training(), data=Short(x, y, batch=16))


# -- published facts -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_adversarial_training_holds_where_plain_training_does_not() -> None:
    """Madry et al. 2018, section 4: what PGD breaks nearly always, PGD training makes hold, at some clean accuracy."""
    torch.set_num_threads(1)
    test, labels = (torch.tensor(part) for part in samples.fashion_mnist())
    judge = Validation(x=test, y=labels, within=WITHIN, inner=Ascent(steps=20))
    scores = []
    for objective in (Plain(), Adversarial(within=WITHIN, inner=PGD_7)):
        torch.manual_seed(0)
        model = harden(cnn(), Shuffled(*_garments(4000)), Training(objective=objective, epochs=8)).model
        scores.append(judge(model, 0))
    plain, hard = scores
    assert plain.clean > 0.78
    assert plain.robust < 0.30
    assert hard.robust > 0.55
    assert hard.clean > 0.70
