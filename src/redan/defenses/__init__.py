"""What holds a line: detectors of poison, repair. A defense never imports an attack.

`redan.defenses.suspicion` turns a detector's numbers into p-values and discoveries.
"""

from redan.defenses.activation_clustering import ActivationClustering
from redan.defenses.confident_learning import ConfidentLearning, held_out_probabilities
from redan.defenses.deep_knn import DeepKNN
from redan.defenses.features import EarlyTraining, early_losses, penultimate, row_losses
from redan.defenses.fine_pruning import FinePruning, Pruned
from redan.defenses.loss_isolation import LossIsolation
from redan.defenses.measures import area_under_curve, false_discovery_proportion, recall_at
from redan.defenses.near_duplicates import Among, NearDuplicates
from redan.defenses.neural_cleanse import NeuralCleanse, Triggers
from redan.defenses.outliers import LocalOutlierFactor, RobustMahalanobis
from redan.defenses.repair import only, without
from redan.defenses.spectral_signatures import SpectralSignatures
from redan.defenses.strip import STRIP
from redan.defenses.suspicion import Detector, Procedure, Suspects, Suspicion, calibrated, discoveries
from redan.defenses.training import Tuning
from redan.defenses.unlearning import Unlearned, Unlearning

__all__ = [
    "STRIP",
    "ActivationClustering",
    "Among",
    "ConfidentLearning",
    "DeepKNN",
    "Detector",
    "EarlyTraining",
    "FinePruning",
    "LocalOutlierFactor",
    "LossIsolation",
    "NearDuplicates",
    "NeuralCleanse",
    "Procedure",
    "Pruned",
    "RobustMahalanobis",
    "SpectralSignatures",
    "Suspects",
    "Suspicion",
    "Triggers",
    "Tuning",
    "Unlearned",
    "Unlearning",
    "area_under_curve",
    "calibrated",
    "discoveries",
    "early_losses",
    "false_discovery_proportion",
    "held_out_probabilities",
    "only",
    "penultimate",
    "recall_at",
    "row_losses",
    "without",
]
