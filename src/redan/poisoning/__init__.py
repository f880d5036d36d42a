"""Attacks on the training set: samples in, samples out, with the exact list of the rows that are not as they were."""

from redan.poisoning.backdoor import AllToAll, Backdoor, Victims
from redan.poisoning.budget import Budget, Poisoned, Poisoner, held_to
from redan.poisoning.feature_collision import FeatureCollision
from redan.poisoning.gradient_matching import GradientMatching
from redan.poisoning.gradient_poisoning import GradientPoisoning
from redan.poisoning.insertion import Insertion
from redan.poisoning.label_consistent import CornerPatch, Corners, LabelConsistent
from redan.poisoning.label_flips import LeastSquares, LossMaximizingFlips, RandomFlips, Retrained, TargetedFlips
from redan.poisoning.linear_learners import SupportVectors, logistic_regression, ridge
from redan.poisoning.sleeper_agent import SleeperAgent
from redan.poisoning.sources import OfSource, by_source
from redan.poisoning.triggers import Blend, Columns, Corner, Patch, Place, Sinusoid, Trigger, Words
from redan.poisoning.unlearnable import ErrorMaximizing, ErrorMinimizing

__all__ = [
    "AllToAll",
    "Backdoor",
    "Blend",
    "Budget",
    "Columns",
    "Corner",
    "CornerPatch",
    "Corners",
    "ErrorMaximizing",
    "ErrorMinimizing",
    "FeatureCollision",
    "GradientMatching",
    "GradientPoisoning",
    "Insertion",
    "LabelConsistent",
    "LeastSquares",
    "LossMaximizingFlips",
    "OfSource",
    "Patch",
    "Place",
    "Poisoned",
    "Poisoner",
    "RandomFlips",
    "Retrained",
    "Sinusoid",
    "SleeperAgent",
    "SupportVectors",
    "TargetedFlips",
    "Trigger",
    "Victims",
    "Words",
    "by_source",
    "held_to",
    "logistic_regression",
    "ridge",
]
