"""One attacker who changes inputs: the set, the goal and the attacks that a threat model means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from redan.errors import NotBuiltError
from redan.goals import Aim, Deviate, FlipLabels, LeastLikely, Targeted, Untargeted
from redan.oracle import Capability
from redan.perturbations.norms import L2, Linf
from redan.perturbations.sparse import L0, L1
from redan.perturbations.spatial import Spatial
from redan.protocols import Access, Attack, Ball, Bounded, is_ball, needs
from redan.robustness import Mode, Named, attacks_of
from redan.threat import attackers as who
from redan.threat import system as said
from redan.threat.changes import Change, L0Change, L1Change, L2Change, LinfChange, SpatialChange, SpatialLimits
from redan.threat.joint import joint_attacks, leveled_attacks
from redan.threat.schema import ThreatModel

__all__ = ["Campaign", "evasion_campaign", "misfit", "outcomes"]

_ACCESS = {
    who.Knowledge.GRADIENTS: Access.GRADIENTS,
    who.Knowledge.SCORES: Access.SCORES,
    who.Knowledge.LABELS: Access.LABELS,
    who.Knowledge.SURROGATE: Access.GRADIENTS,  # of the surrogates
}


@dataclass(frozen=True, slots=True)
class Campaign:
    """One attacker with all that decides his attacks; none, and a reason, where he is not built yet."""

    attacker: who.Attacker
    within: Bounded | None
    aim: Aim
    knowledge: Access
    capability: Capability
    attacks: tuple[Named, ...]
    """On the model alone, whatever is served with it."""
    reason: str | None = None
    leveled: tuple[Named, ...] = ()
    """Of an ensemble that is climbed as if all members were as sure."""
    joint: tuple[Named, ...] = ()
    """On the model and its detector at once."""

    @property
    def served(self) -> tuple[Named, ...]:
        """All attacks on what is served, in the order they run. Those of an ensemble's members are not among them."""
        return (*self.attacks, *self.leveled, *self.joint)

    @property
    def lent(self) -> bool:
        """Whether gradients and scores are surrogates' instead of the target's."""
        return self.sees == who.Knowledge.SURROGATE

    @property
    def sees(self) -> str:
        """What the attacker sees of the model, in the file's words."""
        return str(getattr(self.attacker, "knowledge", "nothing"))


def _set(change: Change) -> Bounded:
    match change:
        case LinfChange(linf=radius):
            return Linf(radius)
        case L2Change(l2=radius):
            return L2(radius)
        case L1Change(l1=radius):
            return L1(radius)
        case L0Change(l0=count):
            return L0(count)
        case SpatialChange(spatial=SpatialLimits(rotation=rotation, translation=translation)):
            return Spatial(rotation or 0, translation or 0)
    kind = next(iter(type(change).model_fields))
    raise NotBuiltError(
        f"changes of kind {kind} are not built yet; redan attacks within linf, l2, l1, l0 and shifts and turns"
    )


def _aim(goal: who.EvasionGoal, task: said.Task) -> Aim:
    labels = task is said.Task.MULTILABEL
    match goal:
        case who.DeviateGoal(deviate=by):
            return Deviate(by)
        case who.TargetedGoal(targeted=who.LeastLikely()):
            return LeastLikely()
        case who.TargetedGoal(targeted=int(target)):
            return FlipLabels(target) if labels else Targeted(target)
    return FlipLabels() if labels else Untargeted()


def evasion_campaign(model: ThreatModel, attacker: who.Attacker, added: Mapping[str, Attack[Any, Any]]) -> Campaign:
    """An attacker's campaign. added: the user's own attacks by name. Raises NotBuiltError for one that is not built."""
    if not isinstance(attacker, who.Evasion):
        raise NotBuiltError(f"attackers of kind {attacker.kind} are not built yet")
    aim = _aim(attacker.goal, model.system.task)
    within, knowledge = _set(attacker.change), _ACCESS[attacker.knowledge]
    capability = Capability(attacker.capability.queries_per_row, attacker.capability.usd_per_1000_queries)
    mode = Mode(model.attacks.mode.value)
    lent = attacker.knowledge is who.Knowledge.SURROGATE
    if knowledge is Access.LABELS and isinstance(aim, Targeted | LeastLikely) and not isinstance(within, Spatial):
        raise NotBuiltError(
            "a wanted class by labels alone is not built yet: the search needs an input of that class to start from; "
            "say goal: untargeted, or knowledge: scores"
        )
    chosen = attacks_of(mode, within, knowledge, outcomes(model, aim), capability, surrogates=lent)
    own = tuple(
        (name, attack) for name, attack in added.items() if misfit(attack, within, knowledge) is None
    )  # fmt: skip
    climbs = attacker.knowledge is who.Knowledge.GRADIENTS
    guarded = climbs and model.system.detector is not None

    def kept(attacks: Sequence[Named]) -> tuple[Named, ...]:
        return tuple(named for named in attacks if named[0] not in model.attacks.skip)

    return Campaign(
        attacker=attacker,
        within=within,
        aim=aim,
        knowledge=knowledge,
        capability=capability,
        attacks=kept((*chosen, *own)),
        leveled=kept(leveled_attacks(model.system.model, chosen) if climbs else ()),
        joint=kept(joint_attacks(mode, within) if guarded else ()),
    )


def outcomes(model: ThreatModel, aim: Aim) -> int:
    """How many outcomes goals and attacks see of an answer."""
    return aim.task.outcomes(model.system.class_count or 2)


def misfit(attack: Attack[Any, Any], within: Bounded, knowledge: Access) -> str | None:
    """Why an attack cannot be used by this attacker; None if it can."""
    need = needs(attack)
    if need.access > knowledge:
        return f"needs {need.access.name.lower()}, and the attacker's knowledge is {knowledge.name.lower()}"
    if need.within is Ball and not is_ball(within):
        return f"moves in norm balls, and the change is {type(within).__name__}"
    if need.within is not Ball and not isinstance(within, need.within):
        return f"moves in {need.within.__name__}, and the change is {type(within).__name__}"
    return None
