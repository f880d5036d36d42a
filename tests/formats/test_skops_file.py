"""skops files: what is known is loaded, what is compiled goes into its own process, all else is refused by name."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from redan.errors import TargetError
from redan.formats.isolated import Isolated
from redan.formats.skops_file import load_skops
from redan.targets import Output
from redan.targets.sklearn import from_sklearn


def test_a_missing_package_is_named_with_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.skops").touch()
    monkeypatch.setitem(sys.modules, "skops", None)
    monkeypatch.setitem(sys.modules, "skops.io", None)
    with pytest.raises(TargetError, match=r"pip install 'redan\[sklearn\]'"):
        load_skops(tmp_path / "model.skops")
    with pytest.raises(TargetError, match="there is no file"):
        load_skops(tmp_path / "missing.skops")


@pytest.fixture(scope="module")
def iris() -> tuple[Any, Any]:
    from sklearn.datasets import load_iris

    x, y = load_iris(return_X_y=True)
    return x, np.array(["setosa", "versicolor", "virginica"])[y]


@pytest.mark.extras
@pytest.mark.filterwarnings("ignore:Stochastic Optimizer:UserWarning")
def test_what_is_plain_python_is_loaded_here(iris: tuple[Any, Any], tmp_path: Path) -> None:
    import skops.io
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.feature_selection import SelectKBest
    from sklearn.linear_model import LogisticRegression
    from sklearn.naive_bayes import GaussianNB
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC, LinearSVC

    x, y = iris
    for model, output in (
        (make_pipeline(StandardScaler(), SelectKBest(k=2), LogisticRegression(max_iter=999)), Output.PROBABILITIES),
        (make_pipeline(StandardScaler(), MLPClassifier(5, max_iter=50)), Output.PROBABILITIES),
        (CalibratedClassifierCV(LinearSVC(), cv=2), Output.PROBABILITIES),
        (GaussianNB(), Output.PROBABILITIES),
        (SVC(), Output.LOGITS),
    ):
        skops.io.dump(model.fit(x, y), tmp_path / "model.skops")
        loaded = load_skops(tmp_path / "model.skops")
        assert type(loaded) is type(model)
        inputs = torch.from_numpy(x)
        assert torch.equal(from_sklearn(loaded, output=output)(inputs), from_sklearn(model, output=output)(inputs))


@pytest.mark.extras
def test_what_follows_indices_of_the_file_gets_a_process_of_its_own(iris: tuple[Any, Any], tmp_path: Path) -> None:
    import skops.io
    from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
    from sklearn.neighbors import KNeighborsClassifier

    x, y = iris
    for model in (
        RandomForestClassifier(3, random_state=0),
        HistGradientBoostingClassifier(max_iter=3),
        KNeighborsClassifier(3),
    ):
        skops.io.dump(model.fit(x, y), tmp_path / "model.skops")
        loaded = load_skops(tmp_path / "model.skops")
        assert isinstance(loaded, Isolated)
        np.testing.assert_allclose(loaded.predict_proba(x), model.predict_proba(x), atol=1e-12)
        loaded.close()


@pytest.mark.extras
def test_a_crafted_tree_harms_its_own_process_alone(iris: tuple[Any, Any], tmp_path: Path) -> None:
    """A child far outside the tree's nodes: the interpreter that follows it may crash."""
    import skops.io
    from sklearn.tree import DecisionTreeClassifier

    x, y = iris
    model = DecisionTreeClassifier(max_depth=2).fit(x, y)
    state = model.tree_.__getstate__()
    state["nodes"] = state["nodes"].copy()
    state["nodes"]["left_child"][0] = state["nodes"]["right_child"][0] = 2**40
    crafted = type(model.tree_)(4, np.array([3]), 1)
    try:
        crafted.__setstate__(state)
    except ValueError:
        pytest.fail("scikit-learn checks its trees now: they need no process of their own any more")
    model.tree_ = crafted
    skops.io.dump(model, tmp_path / "model.skops")
    loaded = load_skops(tmp_path / "model.skops")
    with pytest.raises(TargetError, match="died"):
        loaded.predict_proba(x)


@pytest.mark.extras
def test_other_types_are_refused_by_name_and_never_made(iris: tuple[Any, Any], tmp_path: Path) -> None:
    import skops.io
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    x, y = iris
    model = make_pipeline(FunctionTransformer(np.loadtxt, check_inverse=False), LogisticRegression(max_iter=999))
    model.steps[1][1].fit(x, y)
    skops.io.dump(model, tmp_path / "model.skops")
    with pytest.raises(
        TargetError, match=r"model.skops holds numpy.loadtxt, which redan does not know.*--trust-pickle"
    ):
        load_skops(tmp_path / "model.skops")


@pytest.mark.extras
def test_a_module_that_a_file_names_is_not_even_imported(iris: tuple[Any, Any], tmp_path: Path) -> None:
    """The schema of an honest file, its class renamed to one of a module that would tell of its import."""
    import skops.io
    from sklearn.linear_model import LogisticRegression

    (tmp_path / "told.py").write_text("raise RuntimeError('it was imported')", encoding="utf-8")
    sys.path.insert(0, str(tmp_path))
    try:
        skops.io.dump(LogisticRegression(max_iter=999).fit(*iris), tmp_path / "honest.skops")
        with (
            zipfile.ZipFile(tmp_path / "honest.skops") as honest,
            zipfile.ZipFile(tmp_path / "crafted.skops", "w") as crafted,
        ):
            for name in honest.namelist():
                data = honest.read(name)
                if name == "schema.json":
                    data = data.replace(b"sklearn.linear_model._logistic", b"told")
                crafted.writestr(name, data)
        with pytest.raises(TargetError, match=r"holds told\.LogisticRegression, which redan does not know"):
            load_skops(tmp_path / "crafted.skops")
    finally:
        sys.path.remove(str(tmp_path))


@pytest.mark.extras
def test_what_is_no_skops_file_says_so(tmp_path: Path) -> None:
    path = tmp_path / "model.skops"
    path.write_bytes(b"anything")
    with pytest.raises(TargetError, match=r"is not a skops file; write one with skops\.io\.dump"):
        load_skops(path)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("schema.json", "[1, 2")
    with pytest.raises(TargetError, match="cannot be read as a skops file"):
        load_skops(path)
