"""Liars: set-ups whose numbers would mean nothing, each with an honest twin, and the check that has to name it.

A liar has at least three mechanisms. The seed picks one, and draws the model, the rows and the mechanism's numbers
from the ranges that its docstring states; the twin gets the very same, without the lie.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from redan.testing import behaved, declared, sampled, typed
from redan.testing.cases import Case, Mechanism, drawn_case


@dataclass(frozen=True, slots=True)
class Liar:
    """One kind of lie. check: the preflight check that has to fire on `make(seed)`, and not on `honest(seed)`.

    >>> liar = LIARS[0]
    >>> liar.name, liar.check, len(liar.make(3).x) == len(liar.honest(3).x)
    ('train-mode', 'submodule-modes', True)
    """

    name: str
    check: str
    mechanisms: tuple[Mechanism, ...]

    def make(self, seed: int) -> Case:
        """A set-up that lies."""
        return self._drawn(seed, True)

    def honest(self, seed: int) -> Case:
        """The same set-up without the lie."""
        return self._drawn(seed, False)

    def mechanism(self, seed: int) -> str:
        """What `make(seed)` does, for a message."""
        return (self.mechanisms[seed % len(self.mechanisms)].__doc__ or "").splitlines()[0]

    def _drawn(self, seed: int, lie: bool) -> Case:
        draw = np.random.default_rng([seed, *self.name.encode()])
        return self.mechanisms[seed % len(self.mechanisms)](drawn_case(draw), draw, lie)


LIARS: tuple[Liar, ...] = (
    Liar(
        "train-mode",
        "submodule-modes",
        (declared.dropout_on, declared.batch_norm_on, declared.leaf_on, declared.whole_on),
    ),
    Liar("not-loaded", "device", (typed.part_never_loaded, typed.never_loaded, typed.buffer_never_loaded)),
    Liar(
        "mixed-types",
        "dtype",
        (
            typed.head_of_another_type,
            typed.stem_of_another_type,
            typed.buffer_of_another_type,
            typed.coarse_model,
        ),
    ),
    Liar(
        "wrong-bounds", "bounds", (declared.box_too_wide, declared.bytes_as_unit, declared.normalized, declared.signed)
    ),
    Liar(
        "copied-rows",
        "duplicates",
        (sampled.with_replacement, sampled.appended_twice, sampled.padded, sampled.oversampled),
    ),
    Liar("too-few-rows", "sample-size", (sampled.high_rate, sampled.high_confidence, sampled.all_right)),
    Liar(
        "wrong-shape",
        "output-shape",
        (
            typed.shaped(lambda z: z[:, :, None], "Scores with an axis too many, (N, K, 1)."),
            typed.shaped(lambda z: z.T.contiguous(), "Scores with their axes swapped, (K, N)."),
            typed.shaped(lambda z: z.flatten(), "Scores in one row, (N K,)."),
            typed.shaped(lambda z: z[:, :1] - z[:, 1:2], "One logit a row, (N, 1)."),
            typed.shaped(lambda z: z[:, :-1], "The last class is cut off."),
            typed.other_count,
        ),
    ),
    Liar(
        "failing-endpoint",
        "finite-answers",
        (
            behaved.raises(ConnectionError, "connection reset by peer"),
            behaved.raises(TimeoutError, "no answer within 10 s"),
            behaved.raises(ValueError, "413: payload too large"),
            behaved.null,
        ),
    ),
    Liar("not-a-number", "finite-answers", (behaved.zero_by_zero, behaved.root, behaved.overflow)),
    Liar("foreign-labels", "labels", (declared.from_one, declared.unlabeled, declared.unknown)),
    Liar("labels-of-another-type", "labels", (declared.as_floats, declared.one_hot, declared.as_column)),
    Liar("missing-classes", "classes", (sampled.filtered, sampled.head_of_sorted, sampled.merged)),
    Liar(
        "wrong-scale",
        "output-scale",
        (declared.softmax, declared.mixture, declared.smoothed, declared.no_probabilities),
    ),
    Liar("random", "determinism", (behaved.noise, behaved.always_dropout, behaved.shifts, behaved.random_scale)),
    Liar("stateful", "state", (behaved.every_few_calls, behaved.drift, behaved.remembers, behaved.exhausted)),
    Liar("batch-dependent", "batch-mates", (behaved.centered, behaved.stretched, behaved.neighbors)),
    Liar("constant", "constant-answers", (behaved.swallowed, behaved.prior, behaved.masked_input, behaved.ceiling)),
    Liar(
        "other-class-order",
        "clean-accuracy",
        (
            declared.relabeled(lambda k, _: torch.arange(k).roll(1), "Classes numbered from another one on."),
            declared.relabeled(lambda k, _: torch.arange(k).flip(0), "Classes in reverse order."),
            declared.relabeled(declared.no_fixed_point, "Classes in a random order in which none keeps its number."),
        ),
    ),
    Liar(
        "not-as-expected",
        "clean-accuracy",
        (sampled.shifted_labels, sampled.blank, sampled.guessed_labels, sampled.optimistic),
    ),
    Liar("finer-than-a-picture", "eight-bit", (sampled.watermarked, sampled.dark, sampled.magnified)),
    Liar("masked-gradients", "gradients", (behaved.quantized, behaved.detached, behaved.rounded, behaved.saturated)),
    Liar("misleading-gradients", "gradient-slopes", (behaved.reversed, behaved.shattered, behaved.foreign)),
)
"""Every liar, in the order of the preflight's checks."""
