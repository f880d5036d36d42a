"""Models that may refuse an input: detectors of attacks, calibrated on clean rows, and what they are worth.

detector = mahalanobis(Features(target=target), x, y)                     or nearest_rows, or any function: Scored
served = refusing(target, detector, clean, false_positive_rate=0.05)      a target again, with K + 1 scores
attack(served, x, y, BalancedPGD(), within=Linf(0.1), goal=Undetected())  accepted and wrong
worth(served, x, y, within=Linf(0.1), naive=[APGD()], joint=[...])        gain, no gain, or not shown
"""

from redan.evidence.gain import Gain
from redan.rejection.detector import Detector, Scored, Threshold, calibrated, false_positives
from redan.rejection.features import Features
from redan.rejection.goal import Undetected
from redan.rejection.joint import Lagrangian
from redan.rejection.mahalanobis import Mahalanobis, mahalanobis, weighted
from redan.rejection.nearest import NearestRows, nearest_rows
from redan.rejection.refusing import Refusing, refused, refusing
from redan.rejection.worth import Worth, worth

__all__ = [
    "Detector",
    "Features",
    "Gain",
    "Lagrangian",
    "Mahalanobis",
    "NearestRows",
    "Refusing",
    "Scored",
    "Threshold",
    "Undetected",
    "Worth",
    "calibrated",
    "false_positives",
    "mahalanobis",
    "nearest_rows",
    "refused",
    "refusing",
    "weighted",
    "worth",
]
