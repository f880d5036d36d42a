"""Threat-model files: what loads, and what each wrong file is told."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from redan.errors import ThreatModelError
from redan.evidence.requirement import Metric
from redan.threat.attackers import Evasion, Knowledge
from redan.threat.file import read
from redan.threat.inputs import ImageInputs
from redan.threat.model import Factory, Http, Onnx

FULL = Path(__file__).with_name("full.yaml")
TEXT = FULL.read_text(encoding="utf-8")
MINIMAL = """\
redan: 1
system:
  name: digits
  task: classification
  classes: 10
  model: {onnx: digits.onnx}
  output: logits
  inputs: {kind: image, shape: [1, 28, 28], bounds: [0, 1]}
  data: {test: "shop.data:test"}
attackers:
  - {name: anyone, kind: evasion, why: open to all, goal: untargeted, knowledge: scores, change: {l2: 2}}
requirements:
  - {metric: robust_accuracy, at_least: 0.5}
"""
HTTP = """{http: {url: "https://models.example/v2", protocol: oip-v2, model: m, auth: {env: API_TOKEN}}}"""


def write(folder: Path, text: str) -> Path:
    path = folder / "threat.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def refusal(folder: Path, text: str) -> str:
    """The message that a wrong file is refused with; every message keeps the house rules."""
    path = write(folder, text)
    with pytest.raises(ThreatModelError) as caught:
        read(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert caught.value.__cause__ is None
    message = message.removeprefix(str(path))
    for jargon in ("type=", "errors.pydantic", "Input should", "validation error", "Traceback", "NoneType", "@", "<"):
        assert jargon not in message
    return message


def test_the_full_example_loads() -> None:
    loaded = read(FULL)
    assert loaded.folder == FULL.parent
    assert loaded.digest == hashlib.sha256(FULL.read_bytes()).hexdigest()
    system = loaded.model.system
    assert isinstance(system.model, Factory)
    assert system.model.weights == Path("weights.safetensors")  # relative, as written
    assert isinstance(system.inputs, ImageInputs)
    assert system.inputs.shape == (1, 28, 28)
    assert [attacker.name for attacker in loaded.model.attackers] == [
        "anyone with a camera",
        "data contributor",
        "API customer",
    ]
    assert loaded.model.statistics.rows == 1000


def test_a_minimal_file_loads_with_the_documented_defaults(tmp_path: Path) -> None:
    model = read(str(write(tmp_path, MINIMAL))).model
    assert isinstance(model.system.model, Onnx)
    assert model.system.class_count == 10
    assert model.requirements[0].against == "anyone"
    assert (model.attacks.mode, model.statistics.confidence, model.statistics.family) == ("default", 0.95, "holm")
    assert (model.statistics.rows, model.statistics.seed, model.statistics.gate) == (1000, 0, False)
    assert (model.limits.seconds, model.limits.queries, model.limits.usd) == (None, None, None)
    assert (model.run.out, model.run.device, model.run.workers) == ("runs/", "auto", "auto")
    assert (model.run.block, model.run.keep_inputs) == (256, "all")


def test_the_folder_is_absolute_and_the_paths_in_the_file_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, MINIMAL)
    monkeypatch.chdir(tmp_path)
    loaded = read("threat.yaml")
    assert loaded.folder == tmp_path
    assert str(tmp_path) not in loaded.model.model_dump_json()


def test_words_and_numbers_are_what_they_look_like(tmp_path: Path) -> None:
    text = MINIMAL.replace("classes: 10", "classes: [no, on, 2024-01-01, yes]").replace("l2: 2", "linf: 1e-3")
    model = read(write(tmp_path, text)).model
    assert model.system.classes == ("no", "on", "2024-01-01", "yes")
    (attacker,) = model.attackers
    assert isinstance(attacker, Evasion)
    assert attacker.change.model_dump() == {"linf": 0.001}


def test_anchors_and_merges_are_understood(tmp_path: Path) -> None:
    more = "  - &a {name: b, kind: evasion, why: w, goal: untargeted, knowledge: scores, change: {l2: 1}}\n"
    more += "  - {<<: *a, name: c, knowledge: labels}\n"
    text = MINIMAL.replace("requirements:", more + "requirements:").replace(
        "at_least: 0.5", "at_least: 0.5, against: c"
    )
    third = read(write(tmp_path, text)).model.attackers[2]
    assert isinstance(third, Evasion)
    assert (third.name, third.knowledge) == ("c", Knowledge.LABELS)
    message = refusal(tmp_path, text.replace("why: w", "why: 7"))
    assert "line 12: attackers[1].why must be text" in message


def test_a_mark_at_the_start_of_the_file_is_no_error(tmp_path: Path) -> None:
    path = tmp_path / "threat.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + MINIMAL.encode())
    assert read(path).model.system.name == "digits"


def test_an_endpoint_loads(tmp_path: Path) -> None:
    model = read(write(tmp_path, MINIMAL.replace("{onnx: digits.onnx}", HTTP))).model.system.model
    assert isinstance(model, Http)
    assert model.http.auth is not None
    assert (model.http.auth.header, model.http.auth.env) == ("Authorization", "API_TOKEN")
    assert (model.http.timeout_seconds, model.http.concurrency) == (10, 4)


# What is replaced in the full example, by what, and the words that the message must then contain. Each message
# also names the file and a line, and none speaks pydantic's language: `refusal` sees to that.
WRONG = {
    # keys
    "unknown key": (
        "attackers:",
        "attakers:",
        [", line 18: ", "attakers is an unknown key", "did you mean attackers?"],
    ),
    "unknown key far down": ("share: 0.01", "shaer: 0.01", ["attackers[1].capability.shaer", "did you mean share?"]),
    "unknown key, none near": ("gate: false", "zzz: 1", ["statistics.zzz", "known here: confidence, family, rows"]),
    "key one level too high": ("task: classif", "shape: [1]\n  task: classif", ["shape", "belongs below inputs"]),
    "key of the system at the top": ("attackers:", "data: 1\nattackers:", ["data is an unknown", "below system"]),
    "key of another kind": ("goal: {fidelity", "change: {l2: 1}\n    goal: {fidelity", ["goes with kind: evasion"]),
    "key of another model": ("arguments: {", "onnx: a.onnx, arguments: {", ["names factory and onnx", "exactly one"]),
    "key of images for text": (
        "kind: image, shape: [1, 28, 28]",
        "kind: text",
        ["system.inputs.bounds is an unknown key", "kind: image, kind: tensor or kind: table, not with kind: text"],
    ),
    "key twice": ("output: logits", "output: logits\n  output: labels", ["line 10", "system.output is given twice"]),
    "key twice in a list": ("{metric: clean_accuracy,", "{metric: a, metric: b,", ["requirements[0].metric", "twice"]),
    "key that is no text": (
        "gate: false",
        "7: false",
        ["statistics has the key 7, and a key must be text: put it in quotes"],
    ),
    "key missing": ("  name: garment-sorter\n", "", ["system.name is missing: what the system is called"]),
    "why missing": ("    why: answers are sold per call\n", "", ["line 31", "attackers[2].why is missing"]),
    "why blank": ("why: answers are sold per call", "why: ' '", ["attackers[2].why must not be blank"]),
    "kind missing": ("    kind: extraction\n", "", ["attackers[2].kind is missing", "evasion, poisoning or extr"]),
    # version
    "version of tomorrow": ("redan: 1", "redan: 2", ["line 1", "redan must be 1", "got 2"]),
    "version as text": ("redan: 1", "redan: '1'", ["redan must be 1", "got '1'"]),
    "version as truth value": ("redan: 1", "redan: true", ["redan must be 1", "got true"]),
    "version missing": ("redan: 1", "# nothing", ["redan must be 1", "it is missing"]),
    # types
    "word for a count": ("rows: 1000", "rows: many", ["statistics.rows must be a whole number, got 'many'"]),
    "fraction for a count": ("rows: 1000", "rows: 10.5", ["statistics.rows must be a whole number, got 10.5"]),
    "truth value for a count": ("rows: 1000", "rows: true", ["statistics.rows must be a whole number, got true"]),
    "text for a number": ("linf: 0.1", "linf: '0.1'", ["attackers[0].change.linf must be a number, got '0.1'"]),
    "quotient for a number": ("linf: 0.1", "linf: 8/255", ["must be a number", "write the number itself, 0.0313725"]),
    "infinite number": ("linf: 0.1", "linf: .inf", ["attackers[0].change.linf must be a finite number"]),
    "number for text": ("name: garment-sorter", "name: 42", ["system.name must be text, got 42; put it in quotes"]),
    "word for a truth value": ("gate: false", "gate: yes", ["statistics.gate must be true or false, got 'yes'"]),
    "mapping for a list": ("skip: []", "skip: {}", ["attacks.skip must be a list, got a mapping"]),
    "list for a mapping": (
        "{seconds: 3600, queries: 100000, usd: 10}",
        "[1]",
        ["limits must be a mapping, got a list"],
    ),
    "text for a mapping": ("{seconds: 3600, queries: 100000, usd: 10}", "off", ["limits must be a mapping, got 'off'"]),
    "nothing for a mapping": (
        " {seconds: 3600, queries: 100000, usd: 10}",
        "",
        ["limits must be a mapping, got nothing"],
    ),
    "number for a path": ("path: trusted.npz", "path: 7", ["system.data.trusted.path must be a path"]),
    "empty path": ("path: trusted.npz", "path: ''", ["system.data.trusted.path must not be empty"]),
    "bytes in settings": ("{width: 16}", "{width: !!binary aGk=}", ["model.arguments.width must be text, a number"]),
    # choices
    "choice misspelt": ("family: holm", "family: hlom", ["statistics.family must be holm or none", "mean holm?"]),
    "impact": ("poisoning: high", "poisoning: huge", ["system.impact.poisoning", "low, medium, high or critical"]),
    "task": ("task: classification", "task: ranking", ["classification, multilabel or regression, got 'ranking'"]),
    "kind": ("kind: evasion", "kind: evasoin", ["attackers[0].kind must be", "got 'evasoin'", "mean evasion?"]),
    "input kind": ("kind: image", "kind: picture", ["system.inputs.kind must be image, tensor, table, text or bytes"]),
    "model kind": ("{factory: ", "{facotry: ", ["system.model must be {factory: …}", "'facotry'", "mean factory?"]),
    "model as text": (
        '{factory: "shop.models:build", arguments: {width: 16}, weights: weights.safetensors}',
        "m.onnx",
        ["system.model must be", "{onnx: …}", "got 'm.onnx'"],
    ),
    "knowledge": ("knowledge: gradients", "knowledge: weights", ["gradients, scores, labels or surrogate"]),
    "knowledge to extract": (
        "knowledge: scores",
        "knowledge: gradients",
        ["attackers[2].knowledge", "scores or labels"],
    ),
    "goal misspelt": (
        "goal: untargeted",
        "goal: untarget",
        ["must be untargeted, {targeted: …} or {deviate: …}", "did you mean untargeted?"],
    ),
    "goal of another kind": ("{fidelity: test}", "untargeted", ["attackers[2].goal must be {fidelity: …} or {transf"]),
    "target word": ("goal: untargeted", "goal: {targeted: least}", ["a class's number, from 0, or least_likely"]),
    "trigger": (
        "trigger: patch",
        "trigger: blnd",
        [
            "attackers[1].goal.backdoor.trigger must be patch, blend, sinusoid, {patch: …} or {columns: …}, got 'blnd'",
            "did you mean blend?",
        ],
    ),
    "two triggers": (
        "trigger: patch",
        "trigger: {patch: {}, columns: {0: 1}}",
        ["attackers[1].goal.backdoor.trigger names patch and columns"],
    ),
    "columns by name": (
        "trigger: patch",
        "trigger: {columns: {age: 1}}",
        ["attackers[1].goal.backdoor.trigger.columns.age", "must be a whole number, got 'age'"],
    ),
    "columns of an image": (
        "trigger: patch",
        "trigger: {columns: {0: 1}}",
        ["line 29", "is columns, which fits inputs of kind table or tensor, and they are image"],
    ),
    "target of all": (
        "target: 0}}",
        "target: all}}",
        ["attackers[1].goal.backdoor.target must be a class's number, from 0, or all_to_all, got 'all'"],
    ),
    "one victim": (
        "requirements:",
        "poisoning: {victims: 1}\nrequirements:",
        ["line 37", "poisoning.victims must be at least 2, got 1"],
    ),
    "change": ("{linf: 0.1}", "{lnf: 0.1}", ["attackers[0].change must be {linf: …}", "did you mean linf?"]),
    "changes": ("{linf: 0.1}", "{linf: 0.1, l2: 1}", ["attackers[0].change names linf and l2"]),
    "metric": (
        "metric: robust_accuracy",
        "metric: robust_acuracy",
        ["requirements[1].metric", "mean robust_accuracy?"],
    ),
    "mode": ("mode: default", "mode: thorough", ["attacks.mode must be quick, default, audit, autoattack"]),
    "device": ("device: auto", "device: gpu", ["run.device must be auto, cpu, mps, cuda, cuda:N", "got 'gpu'"]),
    "workers": ("workers: auto", "workers: none", ["run.workers must be a whole number from 1 or auto, got 'none'"]),
    "retention": ("keep_inputs: all", "keep_inputs: some", ["run.keep_inputs must be all, broken or none"]),
    # ranges
    "no rows": ("rows: 1000", "rows: 0", ["statistics.rows must be at least 1, got 0"]),
    "confidence": ("confidence: 0.95", "confidence: 95", ["statistics.confidence must be less than 1, got 95"]),
    "low confidence": ("confidence: 0.95", "confidence: 0.5", ["statistics.confidence must be more than 0.5, got 0.5"]),
    "no change": ("linf: 0.1", "linf: 0", ["line 24", "attackers[0].change.linf must be more than 0, got 0"]),
    "change beyond the bounds": ("linf: 0.1", "linf: 8", ["change.linf must not exceed the width", "[0, 1]", "got 8"]),
    "bounds": ("bounds: [0, 1]", "bounds: [1, 0]", ["system.inputs.bounds must be [low, high]", "got [1, 0]"]),
    "half of the bounds": ("bounds: [0, 1]", "bounds: [0]", ["system.inputs.bounds is too short: entry 2"]),
    "too many bounds": ("bounds: [0, 1]", "bounds: [0, 1, 2]", ["system.inputs.bounds must have 2 entries at most"]),
    "shape": ("shape: [1, 28, 28]", "shape: [28, 28]", ["system.inputs.shape is too short: entry 3 is missing"]),
    "channels": ("mean: [0.286]", "mean: [0.2, 0.3]", ["normalization.mean must have one entry a channel: 1", "got 2"]),
    "no spread": ("std: [0.353]", "std: [0]", ["system.inputs.normalization.std[0] must be more than 0, got 0"]),
    "share": ("share: 0.01", "share: 1.5", ["attackers[1].capability.share must be at most 1, got 1.5"]),
    "threshold": ("at_least: 0.60", "at_least: 60", ["requirements[1]: at_least must lie from 0 to 1", "got 60"]),
    "two thresholds": (
        "at_least: 0.78",
        "at_least: 0.7, at_most: 0.9",
        ["exactly one of at_least and at_most, got both"],
    ),
    "no threshold": (", at_least: 0.78", "", ["requirements[0]: give exactly one of", "got neither"]),
    "negative seed": ("seed: 0", "seed: -1", ["statistics.seed must be at least 0, got -1"]),
    "class beyond the last": ("untargeted", "{targeted: 10}", ["goal.targeted must be a class from 0 to 9, got 10"]),
    "backdoor beyond the last": ("target: 0", "target: 11", ["backdoor.target must be a class from 0 to 9, got 11"]),
    "one class": ("[t-shirt, trouser, pullover, dress, coat, sandal, shirt, sneaker, bag, boot]", "1", ["at least 2"]),
    "class twice": ("bag, boot]", "bag, bag]", ["system.classes must have unique names, got 'bag' twice"]),
    "no attackers": (
        TEXT[TEXT.index("attackers:") :],
        "attackers: []",
        ["attackers must have 1 or more entries, got 0"],
    ),
    # what does not fit together
    "weights that run code": (
        "weights.safetensors",
        "weights.pt",
        ["system.model.weights", "pickled", "safetensors.torch.save_model", "checkpoint:", "--trust-pickle"],
    ),
    "weights of another format": (
        "weights.safetensors",
        "weights.h5",
        ["must be a .safetensors file, got 'weights.h5'"],
    ),
    "factory without a function": (
        "shop.models:build",
        "shop/models.py",
        ["system.model.factory must be", "'module:name'"],
    ),
    "data without a mapping": ("{path: trusted.npz}", "trusted.npz", ["system.data.trusted must be", "{path: …}"]),
    "queries for gradients": (
        "surrogates: []",
        "capability: {queries_per_row: 5000}",
        ["line 25", "attackers[0].capability.queries_per_row is refused for knowledge: gradients"],
    ),
    "surrogate without surrogates": (
        "knowledge: gradients",
        "knowledge: surrogate",
        ["line 25", "attackers[0].surrogates must name one model at least"],
    ),
    "surrogates without need": (
        "surrogates: []",
        "surrogates: [{onnx: a.onnx}]",
        ["surrogates is for knowledge: surro"],
    ),
    "money without a price": (", usd_per_1000_queries: 1.5", "", ["usd_per_1000_queries is required with usd"]),
    "attacker twice": ("name: API customer", "name: data contributor", ["attackers[2].name repeats attackers[1]"]),
    "sources that nobody names": (", source: supplier}", "}", ["capability.sources needs system.data.train.source"]),
    "copy judged on rows that are not there": (
        "    trusted: {path: trusted.npz}\n",
        "",
        ["attackers[2].goal.fidelity is trusted, and system.data.trusted is not given"],
    ),
    "transfer to nobody": (
        "{fidelity: test}",
        "{transfer: anyone with camera}",
        ["attackers[2].goal.transfer must name an evasion attacker", "did you mean 'anyone with a camera'?"],
    ),
    "against nobody": (
        "against: data contributor",
        "against: data contributer",
        ["line 40", "requirements[2].against", "did you mean 'data contributor'?"],
    ),
    "against another kind": (
        "against: API customer",
        "against: data contributor",
        ["requirements[3].against must name an extraction attacker whose goal is fidelity", "API customer"],
    ),
    "against nobody needed": (
        "at_least: 0.78",
        "at_least: 0.78, against: API customer",
        ["requirements[0]: clean_accuracy is measured without an attacker"],
    ),
    "requirement twice": (
        "metric: clean_accuracy, at_least: 0.78",
        "metric: robust_accuracy, at_least: 0.5",
        ["requirements[1] repeats requirements[0]"],
    ),
    "requirement that nobody fits": (
        "metric: extraction_fidelity",
        "metric: transfer_success",
        ["requirements[3].metric is transfer_success, which needs an extraction attacker whose goal is transfer"],
    ),
    "defense with two names": ("{jpeg: {quality: 75}}", "{a: {}, b: {}}", ["system.defenses[0] must be one {name: "]),
    "defense without settings": ("{jpeg: {quality: 75}}", "jpeg", ["system.defenses[0] must be a mapping, got 'jpeg'"]),
    "classes of a regression": (
        "task: classification",
        "task: regression",
        ["system.classes is refused for task: regression"],
    ),
    "value of a classifier": (
        "output: logits",
        "output: value",
        ["system.output must be logits, probabilities or lab"],
    ),
    "deviation of a classifier": (
        "goal: untargeted",
        "goal: {deviate: 1}",
        ["attackers[0].goal must be untargeted or"],
    ),
    "words of an image": (
        "{linf: 0.1}",
        "{text: {words: 3}}",
        ["attackers[0].change.text fits inputs of kind text, and they are image"],
    ),
    "a change of nothing": ("{linf: 0.1}", "{spatial: {}}", ["attackers[0].change.spatial must allow something"]),
    # YAML
    "open bracket": ("skip: []}", "skip: []", ["line 43", "not valid YAML", "flow mapping that starts in line 42"]),
    "tab": ("  name: garment", "\tname: garment", ["line 3", "not valid YAML", "not with tabs"]),
    "colon in a value": ("purpose: sort", "purpose: sort: them", ["line 4", "not valid YAML", "mapping values"]),
    "Python object": ("{width: 16}", "!!python/tuple [1]", ["line 8", "not valid YAML", "a tag (!)"]),
    "unknown anchor": ("{width: 16}", "*nowhere", ["line 8", "not valid YAML", "alias"]),
    "part that holds itself": ("{width: 16}", "&a {b: *a}", ["line 8", "holds itself"]),
    "control character": ("garment-sorter", "garment\x07", ["line 3", "a character that YAML does not allow"]),
    "two documents": ("attackers:", "---\nattackers:", ["line 18", "not valid YAML", "single document"]),
    "number without digits": ("rows: 1000", "rows: 0b_", ["holds a number that cannot be read"]),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_is_told_what_is_wrong(name: str, tmp_path: Path) -> None:
    old, new, words = WRONG[name]
    assert old in TEXT
    text = TEXT.replace(old, new, 1)
    if name == "copy judged on rows that are not there":
        text = text.replace("{fidelity: test}", "{fidelity: trusted}")
    message = refusal(tmp_path, text)
    for word in words:
        assert word in message


def test_several_problems_are_listed_in_the_order_of_their_lines(tmp_path: Path) -> None:
    text = TEXT.replace("rows: 1000", "rows: many").replace("name: garment-sorter", "name: 7")
    headline, *lines = refusal(tmp_path, text).splitlines()
    assert headline.endswith("has 2 problems:")
    assert [line.split(":")[0].strip() for line in lines] == ["line 3", "line 43"]


def test_ten_problems_are_listed_at_most(tmp_path: Path) -> None:
    headline, *lines = refusal(tmp_path, TEXT + "".join(f"zz{i}: 1\n" for i in range(14))).splitlines()
    assert headline.endswith("has 14 problems; the first 10 are:")
    assert len(lines) == 10


def test_a_required_key_misspelt_is_one_problem(tmp_path: Path) -> None:
    message = refusal(tmp_path, TEXT.replace("  task:", "  taks:"))
    assert message.startswith(", line 6: system.taks is an unknown key; did you mean task?")


SECRET = "hunter2secret"  # noqa: S105  # what must not be shown


@pytest.mark.parametrize(
    "endpoint",
    [
        f"url: 'https://user:{SECRET}@models.example'",
        f"url: '{SECRET}'",
        f"url: 'https://[{SECRET}'",
        f"url: {{a: {SECRET}}}",
        f"url: 'https://a.example', auth: {SECRET}",
        f"url: 'https://a.example', auth: {{{SECRET}}}",
        f"url: 'https://a.example', auth: {{env: 'Bearer {SECRET}'}}",
        f"url: 'https://a.example', auth: {{env: A, token: {SECRET}}}",
        f"url: 'https://a.example', auth: {{env: [{SECRET}]}}",
        f"url: 'https://a.example', auth: {{env: *{SECRET}}}",
        f"url: 'https://a.example', auth: {{env: !{SECRET} a}}",
        f"url: 'https://a.example', auth: {{env: A, env: {SECRET}}}",
        f"url: 'https://a.example', auth: {{{SECRET}: 1, {SECRET}: 1}}",
        f"url: 'https://a.example', timeout_seconds: {SECRET}",
        f"url: 'https://a.example', protocol: {SECRET}",
        f"url: 'https://a.example', request: {SECRET}",
        f"url: 'https://a.example', key: {SECRET}",
    ],
)
def test_no_secret_is_shown(endpoint: str, tmp_path: Path) -> None:
    protocol = "" if "protocol" in endpoint else "protocol: mlflow, "
    text = MINIMAL.replace("{onnx: digits.onnx}", f"{{http: {{{protocol}{endpoint}}}}}")
    assert SECRET not in refusal(tmp_path, text)


def test_no_address_is_shown_in_the_place_of_a_model_or_a_function(tmp_path: Path) -> None:
    address = f"'https://user:{SECRET}@models.example'"
    for old in ("{onnx: digits.onnx}", '"shop.data:test"', "untargeted"):
        message = refusal(tmp_path, MINIMAL.replace(old, address))
        assert SECRET not in message
        assert "got an address" in message


@pytest.mark.parametrize(
    ("endpoint", "words"),
    [
        ("url: ftp://a.example, protocol: mlflow", "system.model.http.url must be a whole address"),
        ("url: https://, protocol: mlflow", "system.model.http.url must be a whole address"),
        ("url: 'https://a.example', protocol: oip-v2", "system.model.http.model is required for protocol: oip-v2"),
        ("url: 'https://a.example', protocol: mapping", "system.model.http.request is required for protocol: mapping"),
        ("url: 'https://a.example', protocol: oip", "http.protocol must be oip-v2, mlflow or mapping"),
        ("url: 'https://a.example', protocol: mlflow, auth: {env: 2X}", "the name of an environment variable"),
        ("url: 'https://a.example', protocol: mlflow, auth: {}", "system.model.http.auth.env is missing"),
        ("url: 'https://a.example', protocol: mlflow, concurrency: 0", "http.concurrency must be at least 1"),
    ],
)
def test_a_wrong_endpoint_is_told_what_is_wrong(endpoint: str, words: str, tmp_path: Path) -> None:
    text = MINIMAL.replace("{onnx: digits.onnx}", f"{{http: {{{endpoint}}}}}")
    assert words in refusal(tmp_path, text)


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing but a comment\n"])
def test_an_empty_file_is_refused(text: str, tmp_path: Path) -> None:
    assert "is empty" in refusal(tmp_path, text)


@pytest.mark.parametrize(("text", "got"), [("- redan: 1\n", "a list"), ("redan 1\n", "'redan 1'"), ("~\n", "nothing")])
def test_a_file_that_is_no_mapping_is_refused(text: str, got: str, tmp_path: Path) -> None:
    message = refusal(tmp_path, text)
    assert "the file must be a mapping" in message
    assert message.endswith(f"got {got}")


def test_a_file_that_is_nested_too_deeply_is_refused(tmp_path: Path) -> None:
    assert "nested too deeply" in refusal(tmp_path, "redan: " + "[" * 20_000)


def test_aliases_of_aliases_are_looked_at_once(tmp_path: Path) -> None:
    laughs = "".join(f"  l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9)}]\n" for i in range(1, 30))
    assert "zz is an unknown key" in refusal(tmp_path, f"redan: 1\nzz:\n  l0: &l0 ha\n{laughs}")


def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "threat.yaml"
    path.write_bytes(b"redan: 1\nsystem: \xff\n")
    with pytest.raises(ThreatModelError, match=r"threat\.yaml, line 2: the file is not UTF-8 text"):
        read(path)


def test_a_missing_file_a_folder_and_an_impossible_path_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ThreatModelError, match="does not exist"):
        read(tmp_path / "nowhere.yaml")
    with pytest.raises(ThreatModelError, match="is a folder"):
        read(tmp_path)
    with pytest.raises(ThreatModelError, match="cannot be read"):
        read("a\0b")
    with pytest.raises(ThreatModelError, match="cannot be read"):
        read("x" * 5000)


def test_an_unreadable_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)  # whoever runs the tests may be allowed to read anything
    with pytest.raises(ThreatModelError, match="may not be read by this user"):
        read(tmp_path / "threat.yaml")


def test_the_file_is_never_changed_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_TOKEN", SECRET)
    for written in ("$API_TOKEN", "${API_TOKEN}", "~"):
        model = read(write(tmp_path, MINIMAL.replace("name: digits", f"name: 'a {written}'"))).model
        assert model.system.name == f"a {written}"


def test_the_only_attacker_is_filled_in_where_the_metric_is_about_one(tmp_path: Path) -> None:
    model = read(write(tmp_path, MINIMAL + "  - {metric: clean_accuracy, at_least: 0.9}\n")).model
    assert [(each.metric, each.against) for each in model.requirements] == [
        (Metric.ROBUST_ACCURACY, "anyone"),
        (Metric.CLEAN_ACCURACY, None),
    ]
