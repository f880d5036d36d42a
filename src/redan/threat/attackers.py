"""Who attacks: what an attacker wants, knows and can do."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import Field, Tag, model_validator

from redan.threat.changes import Change
from redan.threat.model import Model
from redan.threat.parts import Count, Loose, Name, Part, Positive, Share, by_key, by_type, by_value, wrong
from redan.threat.system import Split
from redan.threat.triggers import Trigger

__all__ = [
    "AllToAll",
    "Attacker",
    "Availability",
    "Backdoor",
    "BackdoorGoal",
    "DeviateGoal",
    "Evasion",
    "EvasionCapability",
    "EvasionGoal",
    "Extraction",
    "ExtractionCapability",
    "ExtractionGoal",
    "FidelityGoal",
    "Kind",
    "Knowledge",
    "LeastLikely",
    "Poisoning",
    "PoisoningCapability",
    "PoisoningGoal",
    "TargetedGoal",
    "TargetedRowsGoal",
    "TransferGoal",
    "Untargeted",
]


class Kind(StrEnum):
    """When the attacker acts, and on what."""

    EVASION = "evasion"
    """On the inputs of the model in service."""
    POISONING = "poisoning"
    """On the rows that the model is trained on."""
    EXTRACTION = "extraction"
    """On the model's answers, to copy it."""


class Knowledge(StrEnum):
    """What the attacker sees of the model."""

    GRADIENTS = "gradients"
    """The whole model: answers, scores, gradients."""
    SCORES = "scores"
    """The scores of all classes."""
    LABELS = "labels"
    """The answer alone."""
    SURROGATE = "surrogate"
    """Not the model itself, but others like it, whole."""


class Untargeted(StrEnum):
    """The goal that any wrong answer reaches."""

    UNTARGETED = "untargeted"


class LeastLikely(StrEnum):
    """The class that the model finds least likely for the clean row."""

    LEAST_LIKELY = "least_likely"


class TargetedGoal(Part):
    """The goal that one class reaches; rows of that class are left out."""

    targeted: Annotated[
        Annotated[Annotated[int, Field(ge=0)], Tag("@whole")] | Annotated[Loose[LeastLikely], Tag("@word")],
        by_type("a class's number, from 0, or least_likely", word=LeastLikely.LEAST_LIKELY),
    ]
    """The class's number, from 0, or `least_likely`."""


class DeviateGoal(Part):
    """The goal of regression: an answer that is far from the right one."""

    deviate: Positive
    """How far at the least, in units of the answer."""


EvasionGoal: TypeAlias = Annotated[
    Annotated[Loose[Untargeted], Tag("@word")]
    | Annotated[TargetedGoal, Tag("@TargetedGoal")]
    | Annotated[DeviateGoal, Tag("@DeviateGoal")],
    by_key(TargetedGoal, DeviateGoal, words=(Untargeted.UNTARGETED,)),
]
"""What an evasion attacker wants."""


class EvasionCapability(Part):
    """What an evasion attacker can spend."""

    queries_per_row: Count | None = None
    """Inputs that the model answers for one row; absent: unlimited; refused for knowledge: gradients."""
    usd_per_1000_queries: Positive | None = None
    """The price of 1,000 answers in US dollars; `limits.usd` counts it. Absent: they cost nothing."""


class Evasion(Part):
    """An attacker who changes inputs so that the model in service answers wrong."""

    name: Name
    """What requirements call the attacker."""
    kind: Literal[Kind.EVASION]
    """`evasion`."""
    why: Name
    """Why this attacker is realistic here."""
    goal: EvasionGoal
    """What counts as a success."""
    knowledge: Loose[Knowledge]
    """What the attacker sees of the model."""
    change: Change
    """What may be done to an input."""
    surrogates: Loose[tuple[Model, ...]] = ()
    """The models that the attacker has instead, for knowledge: surrogate."""
    capability: EvasionCapability = EvasionCapability()
    """What the attacker can spend."""

    @model_validator(mode="after")
    def _fits_knowledge(self) -> Self:
        if self.knowledge is Knowledge.SURROGATE and not self.surrogates:
            raise wrong("must name one model at least for knowledge: surrogate", "surrogates")
        if self.knowledge is not Knowledge.SURROGATE and self.surrogates:
            raise wrong(f"is for knowledge: surrogate, and knowledge is {self.knowledge}", "surrogates")
        if self.knowledge is Knowledge.GRADIENTS and self.capability.queries_per_row is not None:
            raise wrong(
                "is refused for knowledge: gradients, where queries cost the attacker nothing; "
                "leave it out, or say scores or labels",
                "capability",
                "queries_per_row",
            )
        return self


class Availability(StrEnum):
    """The goal of making the trained model wrong everywhere."""

    AVAILABILITY = "availability"


class AllToAll(StrEnum):
    """Every class is to be taken for the next, the last one for the first."""

    ALL_TO_ALL = "all_to_all"


class Backdoor(Part):
    """A hidden rule that the trained model is to learn."""

    trigger: Trigger
    """What calls the rule."""
    target: Annotated[
        Annotated[Annotated[int, Field(ge=0)], Tag("@whole")] | Annotated[Loose[AllToAll], Tag("@word")],
        by_type("a class's number, from 0, or all_to_all", word=AllToAll.ALL_TO_ALL),
    ]
    """The class, from 0, that the model is then to answer, or `all_to_all`: the one after the row's own."""


class BackdoorGoal(Part):
    """The goal of hiding a rule in the model."""

    backdoor: Backdoor
    """The rule."""


class TargetedRowsGoal(Part):
    """The goal of making the trained model wrong on a few chosen rows."""

    targeted_rows: Count
    """How many test rows."""


PoisoningGoal: TypeAlias = Annotated[
    Annotated[Loose[Availability], Tag("@word")]
    | Annotated[BackdoorGoal, Tag("@BackdoorGoal")]
    | Annotated[TargetedRowsGoal, Tag("@TargetedRowsGoal")],
    by_key(BackdoorGoal, TargetedRowsGoal, words=(Availability.AVAILABILITY,)),
]
"""What a poisoning attacker wants."""


class PoisoningCapability(Part):
    """What a poisoning attacker can do to the training rows."""

    share: Share
    """The share of the training rows that the attacker may change or add, above 0 and 1 at most."""
    may_change_labels: bool = False
    """Whether labels may be changed too."""
    sources: Loose[tuple[Name, ...]] = ()
    """The suppliers whose rows the attacker controls, as in the data's `source`; empty: any."""
    linf: Positive | None = None
    """How far any value of a crafted row may be from the clean one, in units of `inputs.bounds`; absent: 16/255 of
    their width. Stamped triggers and inserted rows are not crafted."""


class Poisoning(Part):
    """An attacker who changes training rows."""

    name: Name
    """What requirements call the attacker."""
    kind: Literal[Kind.POISONING]
    """`poisoning`."""
    why: Name
    """Why this attacker is realistic here."""
    goal: PoisoningGoal
    """What counts as a success."""
    capability: PoisoningCapability
    """What the attacker can do."""


class FidelityGoal(Part):
    """The goal of a copy that answers as the model does."""

    fidelity: Loose[Split]
    """The rows on which the two are compared."""


class TransferGoal(Part):
    """The goal of a copy on which inputs can be made that fool the model."""

    transfer: Name
    """Name of the evasion attacker who uses the copy."""


ExtractionGoal: TypeAlias = Annotated[
    Annotated[FidelityGoal, Tag("@FidelityGoal")] | Annotated[TransferGoal, Tag("@TransferGoal")],
    by_key(FidelityGoal, TransferGoal),
]
"""What an extraction attacker wants."""


class ExtractionCapability(Part):
    """What an extraction attacker can spend."""

    queries_total: Count | None = None
    """Inputs that the model answers in all; absent: unlimited."""
    usd: Positive | None = None
    """Money in US dollars; absent: unlimited."""
    usd_per_1000_queries: Positive | None = None
    """The price of 1,000 answers in US dollars."""

    @model_validator(mode="after")
    def _priced(self) -> Self:
        if self.usd is not None and self.usd_per_1000_queries is None:
            raise wrong("is required with usd: without a price, money limits nothing", "usd_per_1000_queries")
        return self


class Extraction(Part):
    """An attacker who copies the model by asking it."""

    name: Name
    """What requirements call the attacker."""
    kind: Literal[Kind.EXTRACTION]
    """`extraction`."""
    why: Name
    """Why this attacker is realistic here."""
    knowledge: Literal[Knowledge.SCORES, Knowledge.LABELS]
    """What an answer holds; who has gradients or surrogates has no need to copy."""
    goal: ExtractionGoal
    """What counts as a success."""
    capability: ExtractionCapability = ExtractionCapability()
    """What the attacker can spend."""


Attacker: TypeAlias = Annotated[
    Annotated[Evasion, Tag("@Evasion")]
    | Annotated[Poisoning, Tag("@Poisoning")]
    | Annotated[Extraction, Tag("@Extraction")],
    by_value("kind", Evasion, Poisoning, Extraction),
]
"""Who attacks, by `kind`."""
