"""What `redan init` asks about the system: what it is, what it is given, where model and data are."""

from __future__ import annotations

from redan.threat.asking import Answers, Question, a_number, a_text, names, numbers, typed
from redan.threat.parts import DATA_SUFFIXES
from redan.threat.presets import MARK

__all__ = ["SYSTEM", "classifies", "rows"]


def classifies(a: Answers) -> bool:
    """Whether the task has classes."""
    return a["task"] != "regression"


def _numeric(a: Answers) -> bool:
    return a["kind"] in {"image", "tensor"}


def _classes(said: str, answers: Answers) -> str:
    return a_number(said, answers) if "," not in said else names(said, answers)


def _default_model(a: Answers) -> str:
    return {"factory": f"{MARK}_MODULE:model", "http": f"https://{MARK}"}.get(a["model_kind"], MARK)


def _model(said: str, answers: Answers) -> str:
    kind, name = answers["model_kind"], a_text(said, answers)
    return f"{{http: {{url: {name}, protocol: mlflow}}}}" if kind == "http" else f"{{{kind}: {name}}}"


def rows(said: str, answers: Answers) -> str:
    """Rows in a file, or the function that returns them."""
    name = a_text(said, answers)
    return f"{{path: {name}}}" if said.endswith(DATA_SUFFIXES) else name


SYSTEM: tuple[Question, ...] = (
    Question(
        name="name",
        ask="What is the system called?",
        about="Reports and verdicts carry this name.",
        default=typed("my system"),
        needed=True,
        key="system.name",
    ),
    Question(
        name="purpose",
        ask="What is it for?",
        about="One line for whoever reads the report.",
        default=typed("not stated"),
        key="system.purpose",
    ),
    Question(
        name="task",
        ask="What does the model answer?",
        about="One class a row, any number of classes a row, or one number a row.",
        default=typed("classification"),
        words=("classification", "multilabel", "regression"),
    ),
    Question(
        name="classes",
        ask="Which classes are there?",
        about="Their number, or their names with commas between, in the order of the labels 0, 1, …",
        default=typed("2"),
        form=_classes,
        when=classifies,
        needed=True,
        key="system.classes",
    ),
    Question(
        name="kind",
        ask="What is one input?",
        about="A picture, an array of numbers, a row of a table, a text, or the bytes of a file.",
        default=typed("image"),
        words=("image", "tensor", "table", "text", "bytes"),
        needed=True,
    ),
    Question(
        name="shape",
        ask="What is the shape of one input?",
        about="Channels, height, width of an image; the sizes of an array.",
        default=lambda a: "3, 224, 224" if a["kind"] == "image" else "10",
        form=numbers,
        when=_numeric,
        needed=True,
        key="system.inputs.shape",
    ),
    Question(
        name="bounds",
        ask="Between which values do the inputs lie?",
        about="Low, high in the data, before normalization; sizes of changes are in these units.",
        default=typed("0, 1"),
        form=numbers,
        when=_numeric,
    ),
    Question(
        name="output",
        ask="What form do the answers have?",
        about="Scores before softmax (logits), after it (probabilities), or the class alone (labels).",
        default=typed("logits"),
        words=("logits", "probabilities", "labels"),
        when=classifies,
        key="system.output",
    ),
    Question(
        name="model_kind",
        ask="What kind of model is it?",
        about="factory: your function that returns a torch.nn.Module; the others are files, a folder, an endpoint.",
        default=typed("factory"),
        words=(
            *("factory", "torchscript", "export", "onnx", "sklearn", "trees", "huggingface"),
            *("checkpoint", "joblib", "http"),
        ),
    ),
    Question(
        name="model",
        ask="Where is it?",
        about=f"module:function for a factory, else a path or address. {MARK}… marks it to be filled in later.",
        default=_default_model,
        form=_model,
        needed=True,
        key="system.model",
    ),
    Question(
        name="test",
        ask="Where are the test rows?",
        about="A file (.npz, .parquet, .csv, .jsonl) or module:function; rows that the model has not seen.",
        default=typed(f"{MARK}_MODULE:test_rows"),
        form=rows,
        needed=True,
        key="system.data.test",
    ),
)
"""In the order in which they are asked."""
