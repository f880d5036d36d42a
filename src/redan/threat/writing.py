"""Answers as a threat-model file: YAML with comments, its keys always in the same order."""

from __future__ import annotations

from collections.abc import Iterator

from redan.threat.asking import NOBODY, NONE, UNLIMITED, Answers
from redan.threat.questions_attackers import CHANGES

__all__ = ["written"]

_HEAD = """\
# A threat model: who attacks, what they want, know and can do, and what must hold against them.
#
# Values that hold FILL_IN are yours to give. Paths are relative to this file, and functions are found beside it.
# ε is in units of inputs.bounds. `redan plan` shows what will be tried for whom, `redan assess` runs it.
redan: 1
"""
_TAIL = """\
attacks: {mode: default}  # quick, default or audit
statistics: {confidence: 0.95, family: holm, rows: 1000, seed: 0}  # more rows, surer verdicts
run: {out: runs/}
"""


def written(a: Answers) -> str:
    """The file that the answers to all questions make."""
    attackers = [*_evasion(a), *_poisoning(a), *_extraction(a)]
    parts = (*_system(a), "attackers:" if attackers else "attackers: []", *attackers, *_requirements(a))
    return _HEAD + "\n".join(parts) + "\n" + _TAIL


def _system(a: Answers) -> Iterator[str]:
    yield "system:"
    yield f"  name: {a['name']}"
    yield f"  purpose: {a['purpose']}"
    kinds = ("evasion", "poisoning", "extraction")
    impact = ", ".join(f"{kind}: {a[f'{kind}_impact']}" for kind in kinds if f"{kind}_impact" in a)
    yield f"  impact: {{{impact}}}  # of a success: low, medium, high or critical"
    yield f"  task: {a['task']}"
    if "classes" in a:
        yield f"  classes: {a['classes']}  # the number, or the names in the order of the labels 0, 1, …"
    more = "  # also arguments: {…} and weights: file.safetensors" if a["model_kind"] == "factory" else ""
    yield f"  model: {a['model']}{more}"
    if "output" in a:
        yield f"  output: {a['output']}  # logits before softmax, probabilities after it, labels: the class alone"
    else:
        yield "  output: value"
    shape = f", shape: {a['shape']}, bounds: {a['bounds']}" if "shape" in a else ""
    yield f"  inputs: {{kind: {a['kind']}{shape}}}" + ("  # add normalization: {mean, std}" if shape else "")
    yield "  data:"
    yield f"    test: {a['test']}  # a file has arrays x and y, unless x: and y: say otherwise"
    if "train" in a:
        yield f"    train: {a['train']}"
        yield f"  training: {{call: {a['training']}, deterministic: false}}  # fit(samples, seed)"


def _evasion(a: Answers) -> Iterator[str]:
    if a["inputs_from"] == NOBODY:
        return
    yield f"  - name: {a['inputs_from']}"
    yield "    kind: evasion  # changes what the model is given"
    yield f"    why: {a['inputs_why']}"
    goal = f"{{deviate: {a['deviation']}}}" if "deviation" in a else "untargeted"
    yield f"    goal: {goal}" + ("  # any wrong answer; or {targeted: 0}" if goal == "untargeted" else "")
    yield f"    knowledge: {a['knowledge']}  # gradients, scores, labels or surrogate"
    yield f"    change: {CHANGES[a['change']].form.format(a['amount'])}"
    if a.get("queries", UNLIMITED) not in {UNLIMITED, NONE}:
        yield f"    capability: {{queries_per_row: {a['queries']}}}"


_GOALS = {"targeted_rows": "{targeted_rows: 20}", "backdoor": "{backdoor: {trigger: patch, target: 0}}"}


def _poisoning(a: Answers) -> Iterator[str]:
    if a["training_from"] == NOBODY:
        return
    goal = a["poisoning_goal"]
    yield f"  - name: {a['training_from']}"
    yield "    kind: poisoning  # changes what the model is trained on"
    yield f"    why: {a['training_why']}"
    yield f"    goal: {_GOALS.get(goal, goal)}"
    yield f"    capability: {{share: {a['share']}, may_change_labels: {a['change_labels']}}}"


def _extraction(a: Answers) -> Iterator[str]:
    if a["api_to"] == NOBODY:
        return
    yield f"  - name: {a['api_to']}"
    yield "    kind: extraction  # copies the model by asking it"
    yield f"    why: {a['api_why']}"
    yield f"    knowledge: {a['api_answers']}  # scores or labels"
    yield "    goal: {fidelity: test}  # a copy that answers as the model does; or {transfer: NAME of an attacker}"
    if a["api_queries"] not in {UNLIMITED, NONE}:
        yield f"    capability: {{queries_total: {a['api_queries']}}}  # or usd: with usd_per_1000_queries:"


_BOUNDS = (
    ("clean_accuracy", "at_least", None),
    ("robust_accuracy", "at_least", "inputs_from"),
    ("poisoned_accuracy", "at_least", "training_from"),
    ("extraction_fidelity", "at_most", "api_to"),
)


def _requirements(a: Answers) -> Iterator[str]:
    told = [each for each in _BOUNDS if a.get(each[0], NONE) not in {UNLIMITED, NONE}]
    if told:
        yield "requirements:  # each is shown beyond doubt, refuted, or neither: pass, fail, inconclusive"
    for metric, direction, against in told:
        of = f", against: {a[against]}" if against else ""
        yield f"  - {{metric: {metric}, {direction}: {a[metric]}{of}}}"
