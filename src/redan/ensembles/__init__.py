"""Several models that answer as one: attacked as a whole, and what one member's attack does to the others.

`together` serves models as one target, by the mean of their logits or probabilities or by votes; `ADP` trains a
`Members` to differ; `between` measures what attacks on members and on the whole do to each other.
"""

from redan.ensembles.adp import ADP, entropy, log_diversity
from redan.ensembles.combine import Combine, combined
from redan.ensembles.members import Members
from redan.ensembles.served import Together, leveled, together
from redan.ensembles.transfer import Rate, Transfers, between, transfers

__all__ = [
    "ADP",
    "Combine",
    "Members",
    "Rate",
    "Together",
    "Transfers",
    "between",
    "combined",
    "entropy",
    "leveled",
    "log_diversity",
    "together",
    "transfers",
]
