"""Attacks that copy a model through its answers: each an honest customer of a metered API.

An extractor is a frozen value called with a `Customer` and a seed; it returns a copy, which is a model like any other.
`measures` tells what the copy is worth and what it cost.
"""

from redan.extraction.copycat import CopycatCNN
from redan.extraction.customer import Answer, Customer, Extractor, Shows, Spending, View
from redan.extraction.equation_solving import MLP, LogisticRegression, OneVersusRestRegression
from redan.extraction.jacobian import JacobianAugmentation
from redan.extraction.knockoff import Adaptive, KnockoffNets, Reward
from redan.extraction.label_only import AdaptiveRetraining, HyperplaneSearch, UniformRetraining
from redan.extraction.path_oracles import ForestPaths, PathCustomer, ScorePaths
from redan.extraction.pools import RowPool, TablePool, UniformPool, clustered
from redan.extraction.relu_networks import OneHiddenLayer, ReLUCopy
from redan.extraction.stolen_tree import Categorical, Continuous, StolenTree
from redan.extraction.surrogates import ByLogLoss, Copy
from redan.extraction.trainers import ByAdam, ByEstimator, SmallNetwork
from redan.extraction.tree_paths import BottomUp, ScoreTree, TopDown

__all__ = [
    "MLP",
    "Adaptive",
    "AdaptiveRetraining",
    "Answer",
    "BottomUp",
    "ByAdam",
    "ByEstimator",
    "ByLogLoss",
    "Categorical",
    "Continuous",
    "Copy",
    "CopycatCNN",
    "Customer",
    "Extractor",
    "ForestPaths",
    "HyperplaneSearch",
    "JacobianAugmentation",
    "KnockoffNets",
    "LogisticRegression",
    "OneHiddenLayer",
    "OneVersusRestRegression",
    "PathCustomer",
    "ReLUCopy",
    "Reward",
    "RowPool",
    "ScorePaths",
    "ScoreTree",
    "Shows",
    "SmallNetwork",
    "Spending",
    "StolenTree",
    "TablePool",
    "TopDown",
    "UniformPool",
    "UniformRetraining",
    "View",
    "clustered",
]
