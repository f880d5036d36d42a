"""Training that makes a model hold: adversarial training and what keeps it honest.

`harden` trains a module by an objective, which is a value; `adversarial_step` is one batch's loss for those who own
their loop. An inner attack is a value too: the room imports no attack.
"""

from redan.hardening.averaging import EMA
from redan.hardening.awp import AWP
from redan.hardening.batches import Data, Loaded, Shuffled
from redan.hardening.certified import Certified, CertifiedValidation
from redan.hardening.inner import FGSM, FGSM_RS, N_FGSM, PGD_7, PGD_10, Ascent, Ask, Inner
from redan.hardening.metrics import Alarm, Epoch
from redan.hardening.noise import Noise, SmoothAdv, ThroughNoise
from redan.hardening.objectives import TRADES, Adversarial, Armed, Batch, Loss, Objective, Plain
from redan.hardening.overfitting import Reading, Watch
from redan.hardening.passes import Path, cheapest
from redan.hardening.step import adversarial_step, streams
from redan.hardening.training import Hardened, Progress, Training, harden, rise_and_fall
from redan.hardening.validation import Score, Validation

__all__ = [
    "AWP",
    "EMA",
    "FGSM",
    "FGSM_RS",
    "N_FGSM",
    "PGD_7",
    "PGD_10",
    "TRADES",
    "Adversarial",
    "Alarm",
    "Armed",
    "Ascent",
    "Ask",
    "Batch",
    "Certified",
    "CertifiedValidation",
    "Data",
    "Epoch",
    "Hardened",
    "Inner",
    "Loaded",
    "Loss",
    "Noise",
    "Objective",
    "Path",
    "Plain",
    "Progress",
    "Reading",
    "Score",
    "Shuffled",
    "SmoothAdv",
    "ThroughNoise",
    "Training",
    "Validation",
    "Watch",
    "adversarial_step",
    "cheapest",
    "harden",
    "rise_and_fall",
    "streams",
]
