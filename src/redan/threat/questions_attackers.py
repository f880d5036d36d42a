"""What `redan init` asks about attackers: who can touch inputs, training data and the API, and what must hold."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import yaml

from redan.threat.asking import NOBODY, NONE, UNLIMITED, Answers, Question, a_limit, a_number, a_text, names, typed
from redan.threat.presets import MARK
from redan.threat.questions_system import classifies, rows

__all__ = ["ATTACKERS", "CHANGES"]


class _ChangeKind(NamedTuple):
    """inputs: what it can be done to; form: how the file says it; scaled: by the width of the bounds."""

    inputs: tuple[str, ...]
    form: str
    default: float | str
    scaled: bool = False


CHANGES: Mapping[str, _ChangeKind] = MappingProxyType(
    {
        "linf": _ChangeKind(("image", "tensor", "table"), "{{linf: {}}}", 0.03, True),
        "l2": _ChangeKind(("image", "tensor", "table"), "{{l2: {}}}", 0.5, True),
        "l1": _ChangeKind(("image", "tensor", "table"), "{{l1: {}}}", 10, True),
        "l0": _ChangeKind(("image", "tensor", "table"), "{{l0: {}}}", 10),
        "patch": _ChangeKind(("image",), "{{patch: {{area: {}}}}}", 0.05),
        "rotation": _ChangeKind(("image",), "{{spatial: {{rotation: {}}}}}", 15),
        "translation": _ChangeKind(("image",), "{{spatial: {{translation: {}}}}}", 0.1),
        "columns": _ChangeKind(("table",), "{{table: {{columns: {}}}}}", f"{MARK}_COLUMN"),
        "characters": _ChangeKind(("text",), "{{text: {{characters: {}}}}}", 5),
        "words": _ChangeKind(("text",), "{{text: {{words: {}}}}}", 3),
        "append": _ChangeKind(("bytes",), "{{bytes: {{append: {}}}}}", 10000),
        "replace": _ChangeKind(("bytes",), "{{bytes: {{replace: {}}}}}", 1000),
    }
)
"""What may be done to an input, in one word, and how much of it is typical."""
_TYPICAL = {"image": "linf", "tensor": "linf", "table": "columns", "text": "words", "bytes": "append"}
_IMPACT = ("low", "medium", "high", "critical")


def _who(said: str, answers: Answers) -> str:
    return NOBODY if said.lower() in {NOBODY, NONE, "no one"} else a_text(said, answers)


def _evaded(a: Answers) -> bool:
    return a["inputs_from"] != NOBODY


def _poisoned(a: Answers) -> bool:
    return a["training_from"] != NOBODY


def _copied(a: Answers) -> bool:
    return a["api_to"] != NOBODY


def _amount(said: str, answers: Answers) -> str:
    return names(said, answers) if answers["change"] == "columns" else a_number(said, answers)


def _default_amount(a: Answers) -> str:
    change = CHANGES[a["change"]]
    low, high = yaml.safe_load(a.get("bounds", "[0, 1]"))
    return f"{float(change.default) * (high - low):.6g}" if change.scaled else str(change.default)


ATTACKERS: tuple[Question, ...] = (
    Question(
        name="inputs_from",
        ask="Who can change what the model is given?",
        about=f"Name the worst of them; {NOBODY}: the model only sees what you made yourself.",
        form=_who,
        default=typed("anyone who sends an input"),
        needed=True,
    ),
    Question(
        name="inputs_why",
        ask="Why would they, and how do they get there?",
        about="The report repeats it, so that a reader can judge whether the threat is realistic.",
        default=typed("inputs come from outside, and a wrong answer can pay whoever sends them"),
        when=_evaded,
    ),
    Question(
        name="knowledge",
        ask="What do they see of the model?",
        about="All of it (gradients: weights that leaked or are public), the scores of all classes, the answer alone.",
        default=typed("gradients"),
        words=("gradients", "scores", "labels"),
        when=_evaded,
    ),
    Question(
        name="change",
        ask="What can they do to an input?",
        about="linf: every value a little; l2, l1: a short distance; l0: a few values; the others say it themselves.",
        default=lambda a: _TYPICAL[a["kind"]],
        words=tuple(CHANGES),
        fits=lambda word, a: a["kind"] in CHANGES[word].inputs,
        when=_evaded,
    ),
    Question(
        name="amount",
        ask="How much of it?",
        about="linf, l2, l1: in units of the bounds; rotation: degrees; patch, translation: a share; else a count.",
        default=_default_amount,
        form=_amount,
        when=_evaded,
    ),
    Question(
        name="deviation",
        ask="How far from the right value is a success for them?",
        about="In units of the model's answer.",
        default=typed("1"),
        form=a_number,
        when=lambda a: _evaded(a) and not classifies(a),
        needed=True,
    ),
    Question(
        name="queries",
        ask="How often can they ask about one input?",
        about=f"Before they are noticed, blocked or bored; a number or {UNLIMITED}.",
        default=typed(UNLIMITED),
        form=a_limit,
        when=lambda a: _evaded(a) and a["knowledge"] != "gradients",
    ),
    Question(
        name="evasion_impact",
        ask="What does it cost you when an input is answered wrong on purpose?",
        about="It ranks the findings; critical: lives, or the company.",
        default=typed("medium"),
        words=_IMPACT,
        when=_evaded,
        needed=True,
        key="system.impact.evasion",
    ),
    # -- who supplies training rows
    Question(
        name="training_from",
        ask="Who supplies training rows or labels that you do not check?",
        about=f"Suppliers, users whose reports become labels, pages of the web; {NOBODY}: all rows are your own.",
        form=_who,
        default=lambda a: NOBODY if _evaded(a) else "a supplier of training rows",
        needed=True,
    ),
    Question(
        name="training_why",
        ask="Why would they tamper with them?",
        about="The report repeats it.",
        default=typed("rows are taken over unchecked, and a model that is wrong can pay whoever supplies them"),
        when=_poisoned,
    ),
    Question(
        name="share",
        ask="Which share of the training rows do they control?",
        about="Above 0, and 1 at most; 0.01 is one row in a hundred.",
        default=typed("0.01"),
        form=a_number,
        when=_poisoned,
    ),
    Question(
        name="change_labels",
        ask="Can they give wrong labels too?",
        about="no: only the inputs are theirs, and somebody else labels them.",
        default=typed("no"),
        words=("yes", "no"),
        when=_poisoned,
    ),
    Question(
        name="poisoning_goal",
        ask="What do they want of the trained model?",
        about="availability: wrong everywhere; targeted_rows: on 20 rows of theirs; backdoor: wherever their patch is.",
        default=typed("availability"),
        words=("availability", "targeted_rows", "backdoor"),
        fits=lambda word, a: word != "backdoor" or (classifies(a) and a["kind"] == "image"),
        when=_poisoned,
    ),
    Question(
        name="train",
        ask="Where are the training rows?",
        about="As the test rows: a file or module:function.",
        default=typed(f"{MARK}_MODULE:train_rows"),
        form=rows,
        when=_poisoned,
        needed=True,
        key="system.data.train",
    ),
    Question(
        name="training",
        ask="Which function trains the model?",
        about="module:function, called with samples and a seed; it returns the trained model.",
        default=typed(f"{MARK}_MODULE:fit"),
        when=_poisoned,
        needed=True,
        key="system.training.call",
    ),
    Question(
        name="poisoning_impact",
        ask="What does it cost you when training rows were tampered with?",
        about="It ranks the findings; critical: lives, or the company.",
        default=typed("medium"),
        words=_IMPACT,
        when=_poisoned,
        needed=True,
        key="system.impact.poisoning",
    ),
    # -- who can ask the model
    Question(
        name="api_to",
        ask="Who can ask the model as often as they like to pay?",
        about=f"Whoever can may train a copy on its answers; {NOBODY}: only you ask it.",
        form=_who,
        default=lambda a: NOBODY if _evaded(a) or _poisoned(a) else "a customer of the API",
        needed=True,
    ),
    Question(
        name="api_why",
        ask="Why would they copy it?",
        about="The report repeats it.",
        default=typed("answers cost less than a model of one's own, and a copy shows how to fool the original"),
        when=_copied,
    ),
    Question(
        name="api_answers",
        ask="What does an answer tell them?",
        about="The scores of all classes, or the answer alone.",
        default=typed("scores"),
        words=("scores", "labels"),
        when=_copied,
    ),
    Question(
        name="api_queries",
        ask="How many inputs can they have answered in all?",
        about=f"What a year of their budget buys; a number or {UNLIMITED}.",
        default=typed("20000"),
        form=a_limit,
        when=_copied,
    ),
    Question(
        name="extraction_impact",
        ask="What does it cost you when the model is copied?",
        about="It ranks the findings; critical: lives, or the company.",
        default=typed("medium"),
        words=_IMPACT,
        when=_copied,
        needed=True,
        key="system.impact.extraction",
    ),
    # -- what must hold
    Question(
        name="clean_accuracy",
        ask="Which accuracy must it have without any attack?",
        about=f"A share of the rows, as in 0.9, or {NONE}.",
        default=typed("0.8"),
        form=a_limit,
    ),
    Question(
        name="robust_accuracy",
        ask="Which accuracy must it keep against those who change inputs?",
        about=f"A share of the rows, or {NONE}: then the run reports and never fails for it.",
        default=typed("0.5"),
        form=a_limit,
        when=_evaded,
        needed=True,
    ),
    Question(
        name="poisoned_accuracy",
        ask="Which accuracy must it keep when training rows were tampered with?",
        about=f"A share of the rows, or {NONE}.",
        default=typed("0.7"),
        form=a_limit,
        when=_poisoned,
    ),
    Question(
        name="extraction_fidelity",
        ask="How often may a copy agree with it, at the most?",
        about=f"A share of the test rows, or {NONE}.",
        default=typed("0.9"),
        form=a_limit,
        when=_copied,
    ),
)
"""In the order in which they are asked, after those about the system."""
