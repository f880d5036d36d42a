"""Boosted trees as targets and as plain trees: the libraries' own answers, at and beside every split."""

from __future__ import annotations

import contextlib
import io
import re
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import redan
from redan.certification.trees import smallest_change
from redan.errors import DataError, TargetError
from redan.formats.forest import Forest, cuts, decided, scores
from redan.formats.forest_readers import (
    forest_from_lightgbm,
    forest_from_sklearn,
    forest_from_xgboost,
    load_forest,
)
from redan.perturbations.norms import L2, Linf
from redan.perturbations.sparse import L0, L1
from redan.protocols import Access
from redan.targets import Output
from redan.targets.trees import from_lightgbm, from_xgboost, load_trees

extras = pytest.mark.extras
PAGE = Path(__file__).resolve().parents[2] / "docs" / "targets" / "trees.md"
Rows = NDArray[Any]


def data(classes: int, dtype: Any = np.float32) -> tuple[Rows, NDArray[np.int64]]:
    """Three hundred rows of five numbers; the class is where their weighted sum falls, with some noise."""
    draw = np.random.default_rng(classes)
    x = draw.uniform(0, 1, (300, 5))
    total = x @ np.array([3.0, -2.0, 1.5, 1.0, 0.5]) + draw.normal(0, 0.1, 300)
    return x.astype(dtype), np.digitize(total, np.quantile(total, np.linspace(0, 1, classes + 1)[1:-1]))


def boosted(classes: int, **settings: Any) -> Any:
    import xgboost

    x, y = data(classes)
    return xgboost.XGBClassifier(**{"n_estimators": 8, "max_depth": 3, "n_jobs": 1} | settings).fit(x, y)


def light(classes: int, **settings: Any) -> Any:
    import lightgbm

    x, y = data(classes, np.float64)
    known: dict[str, Any] = {"n_estimators": 8, "num_leaves": 6, "n_jobs": 1, "verbosity": -1}
    return lightgbm.LGBMClassifier(**known | settings).fit(x, y)


def trained(objective: str, y: Rows, **settings: Any) -> Any:
    import lightgbm

    x, _ = data(2, np.float64)
    known = {"objective": objective, "verbosity": -1, "num_threads": 1, "num_leaves": 6}
    return lightgbm.train(known | settings, lightgbm.Dataset(x, y), 6)


# -- targets -----------------------------------------------------------------------------------------------


@extras
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("ending", ["json", "ubj", "model"])
def test_xgboost_answers_as_itself_from_memory_and_from_a_file(classes: int, ending: str, tmp_path: Path) -> None:
    model, (x, _) = boosted(classes), data(classes)
    path = tmp_path / f"trees.{ending}"
    path.write_bytes(bytes(model.get_booster().save_raw("ubj" if ending == "ubj" else "json")))
    expected = np.log(model.predict_proba(x))
    for target in (from_xgboost(model), from_xgboost(model.get_booster()), load_trees(path)):
        assert (target.classes, target.dtype, target.access) == (classes, torch.float32, Access.SCORES)
        found = target(torch.from_numpy(x)).numpy()
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-6)
        assert (found.argmax(1) == model.predict(x)).all()
    margins = from_xgboost(model, output=Output.LOGITS)(torch.from_numpy(x)).numpy()
    raw = model.predict(x, output_margin=True)
    assert (margins == (np.stack([-raw / 2, raw / 2], 1) if classes == 2 else raw)).all()
    labels = from_xgboost(model, output=Output.LABELS)
    assert labels.access is Access.LABELS
    assert (labels(torch.from_numpy(x)).argmax(1).numpy() == model.predict(x)).all()


@extras
@pytest.mark.parametrize("classes", [2, 3])
def test_lightgbm_answers_as_itself_from_memory_and_from_a_file(classes: int, tmp_path: Path) -> None:
    model, (x, _) = light(classes), data(classes, np.float64)
    path = tmp_path / "trees"
    model.booster_.save_model(path)
    expected = np.log(model.predict_proba(x))
    for target in (from_lightgbm(model), from_lightgbm(model.booster_), load_trees(path)):
        assert (target.classes, target.dtype, target.access) == (classes, torch.float64, Access.SCORES)
        assert target(torch.from_numpy(x)).numpy() == pytest.approx(expected, rel=1e-12)
    margins = from_lightgbm(model, output=Output.LOGITS)(torch.from_numpy(x)).numpy()
    raw = model.predict(x, raw_score=True)
    assert (margins == (np.stack([-raw / 2, raw / 2], 1) if classes == 2 else raw)).all()


@extras
def test_a_regression_answers_values(tmp_path: Path) -> None:
    import xgboost

    x, _ = data(2)
    model = xgboost.XGBRegressor(n_estimators=4, n_jobs=1).fit(x, x.sum(1))
    model.save_model(tmp_path / "a.json")
    target = load_trees(tmp_path / "a.json")
    assert (target.output, target.classes) == (Output.VALUE, None)
    assert (target(torch.from_numpy(x))[:, 0].numpy() == model.predict(x)).all()
    with pytest.raises(TargetError, match=r"reg:squarederror' cannot answer probabilities; say output=Output.VALUE"):
        load_trees(tmp_path / "a.json", output=Output.PROBABILITIES)
    wide = x.astype(np.float64)
    light_one = trained("regression", wide.sum(1))
    assert (from_lightgbm(light_one)(torch.from_numpy(wide))[:, 0].numpy() == light_one.predict(wide)).all()


@extras
@pytest.mark.parametrize("objective", ["multi:softmax", "binary:hinge", "binary:logitraw"])
def test_objectives_that_answer_no_probabilities(objective: str) -> None:
    import xgboost

    count = 3 if objective == "multi:softmax" else 2
    x, y = data(count)
    settings = {"objective": objective, "nthread": 1} | ({"num_class": 3} if count == 3 else {})
    booster = xgboost.train(settings, xgboost.DMatrix(x, y), 5)
    said = booster.inplace_predict(x)
    expected = said > 0 if objective == "binary:logitraw" else said
    for output in (Output.LABELS, Output.LOGITS):
        target = from_xgboost(booster, output=output)
        assert (target(torch.from_numpy(x)).argmax(1).numpy() == expected).all()
    with pytest.raises(TargetError, match="cannot answer probabilities"):
        from_xgboost(booster, output=Output.PROBABILITIES)
    assert (decided(scores(forest_from_xgboost(booster, x), x)) == expected).all()


@extras
def test_a_wrapper_that_stopped_early_answers_with_its_best_iteration(tmp_path: Path) -> None:
    import xgboost

    x, y = data(2)
    y = y ^ (np.random.default_rng(0).uniform(size=300) < 0.2)
    model = xgboost.XGBClassifier(n_estimators=80, learning_rate=1.0, n_jobs=1, early_stopping_rounds=3)
    model.fit(x[:150], y[:150], eval_set=[(x[150:], y[150:])], verbose=False)
    booster = model.get_booster()
    assert model.best_iteration + 1 < booster.num_boosted_rounds()
    raw = model.predict(x, output_margin=True)
    assert (from_xgboost(model, output=Output.LOGITS)(torch.from_numpy(x))[:, 1].numpy() == raw / 2).all()
    every = booster.inplace_predict(x, predict_type="margin")
    assert (from_xgboost(booster, output=Output.LOGITS)(torch.from_numpy(x))[:, 1].numpy() == every / 2).all()
    assert not (raw == every).all()
    assert forest_from_xgboost(model, x).trees == model.best_iteration + 1
    assert forest_from_xgboost(booster, x).trees == booster.num_boosted_rounds()


@extras
@pytest.mark.parametrize("make", [lambda: from_xgboost(boosted(3)), lambda: from_lightgbm(light(3))])
def test_threads_get_the_bytes_of_one(make: Callable[[], Any]) -> None:
    target = make()
    x = torch.rand(64, 5, dtype=target.dtype, generator=torch.Generator().manual_seed(0))
    alone = target(x)
    with ThreadPoolExecutor(4) as pool:
        assert all(bool((one == alone).all()) for one in pool.map(lambda _: target(x), range(60)))
    assert bool((torch.cat([target(row[None]) for row in x]) == alone).all())


@extras
def test_the_model_given_keeps_its_settings() -> None:
    model = boosted(2, n_jobs=2)
    before = model.get_booster().save_config()
    from_xgboost(model)(torch.rand(3, 5))
    assert model.get_booster().save_config() == before


@extras
def test_attacks_run_through_it_and_gradients_are_refused() -> None:
    x, y = data(2)
    target = from_xgboost(boosted(2))
    result = redan.attack(target, x[:40], y[:40], redan.Square(queries=200), within=Linf(0.2))
    assert int(torch.as_tensor(result.success).sum()) > 10
    with pytest.raises(redan.errors.RedanError, match="gradient"):
        redan.attack(target, x[:4], y[:4], redan.PGD(), within=Linf(0.1))


@extras
def test_rows_of_another_width_are_refused_and_none_are_fine() -> None:
    for target in (from_xgboost(boosted(3)), from_lightgbm(light(3))):
        with pytest.raises(DataError, match=r"takes rows \(N, 5\), got \(2, 4\)"):
            target(torch.rand(2, 4, dtype=target.dtype))
        assert target(torch.rand(0, 5, dtype=target.dtype)).shape == (0, 3)


# -- refusals ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"\x80\x04\x95", "is a pickle, which runs code"),
        (b"binf\x00\x00", "neither XGBoost's .json or .ubj nor LightGBM's .txt"),
        (b"", "neither XGBoost's"),
    ],
)
def test_other_files_are_refused(content: bytes, cause: str, tmp_path: Path) -> None:
    path = tmp_path / "trees.json"
    path.write_bytes(content)
    for load in (load_trees, lambda path: load_forest(path, np.zeros((1, 5)))):
        with pytest.raises(TargetError, match=cause):
            load(path)
    with pytest.raises(TargetError, match="cannot be read: No such file"):
        load_trees(tmp_path / "absent.json")


@pytest.mark.parametrize(("package", "content"), [("xgboost", b"{}"), ("lightgbm", b"tree\nversion=v4\n")])
def test_a_missing_package_is_named(
    package: str, content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    path = tmp_path / "trees"
    path.write_bytes(content)
    with pytest.raises(TargetError, match=re.escape(f"package {package}; run: pip install 'redan[trees]'")):
        load_trees(path)


def test_missing_scikit_learn_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(TargetError, match=re.escape("pip install 'redan[sklearn]'")):
        forest_from_sklearn(object(), np.zeros((1, 5)))


@extras
def test_broken_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "trees"
    raw = bytes(boosted(2).get_booster().save_raw("json"))
    for content, called in (
        (raw[: len(raw) // 2], "XGBoost"),
        (b"{}", "XGBoost"),
        (b"tree\nversion=v4\n", "LightGBM"),
    ):
        path.write_bytes(content)
        with pytest.raises(TargetError, match=f"{called} cannot read"):
            load_trees(path)


@extras
def test_models_that_are_no_trees_for_it_are_refused() -> None:
    import lightgbm
    import xgboost

    x, y = data(2)
    for make in (from_xgboost, from_lightgbm):
        with pytest.raises(TargetError, match="is needed, got object"):
            make(object())
    with pytest.raises(TargetError, match="not fitted"):
        from_xgboost(xgboost.XGBClassifier())
    with pytest.raises(TargetError, match="is needed, got LGBMClassifier"):
        from_lightgbm(lightgbm.LGBMClassifier())
    with pytest.raises(TargetError, match="'gblinear' has no trees"):
        from_xgboost(xgboost.train({"booster": "gblinear", "nthread": 1}, xgboost.DMatrix(x, y), 2))
    with pytest.raises(TargetError, match="takes -1"):
        from_xgboost(boosted(2, missing=-1))
    with pytest.raises(TargetError, match="'rank:ndcg' does not say"):
        from_xgboost(xgboost.XGBRanker(n_estimators=2, n_jobs=1).fit(x, y, qid=np.zeros(300, dtype=int)))
    with pytest.raises(TargetError, match="has 3 classes, got classes=4"):
        from_xgboost(boosted(3), classes=4)


# -- plain trees -------------------------------------------------------------------------------------------


def forests() -> dict[str, Callable[[int], tuple[Forest, Callable[[Rows], Rows]]]]:
    """A forest and its library's classes of rows, a library and kind each."""

    def xgb(classes: int) -> tuple[Forest, Callable[[Rows], Rows]]:
        model = boosted(classes)
        return forest_from_xgboost(model, data(classes)[0]), model.predict

    def lgbm(classes: int) -> tuple[Forest, Callable[[Rows], Rows]]:
        model = light(classes)
        return forest_from_lightgbm(model, data(classes)[0]), model.predict

    def averaged(classes: int) -> tuple[Forest, Callable[[Rows], Rows]]:
        model = light(classes, boosting_type="rf", bagging_freq=1, bagging_fraction=0.6)
        return forest_from_lightgbm(model, data(classes)[0]), model.predict

    def fitted(name: str, **settings: Any) -> Callable[[int], tuple[Forest, Callable[[Rows], Rows]]]:
        def make(classes: int) -> tuple[Forest, Callable[[Rows], Rows]]:
            from sklearn import ensemble, tree

            x, y = data(classes)
            kind = getattr(ensemble, name, None) or getattr(tree, name)
            model = kind(random_state=0, **settings).fit(x, y)
            return forest_from_sklearn(model, x), model.predict

        return make

    return {
        "xgboost": xgb,
        "lightgbm": lgbm,
        "lightgbm-rf": averaged,
        "tree": fitted("DecisionTreeClassifier", max_depth=4),
        "extra-tree": fitted("ExtraTreeClassifier", max_depth=4),
        "random-forest": fitted("RandomForestClassifier", n_estimators=6, max_depth=4),
        "extra-trees": fitted("ExtraTreesClassifier", n_estimators=6, max_depth=4),
        "boosting": fitted("GradientBoostingClassifier", n_estimators=5),
        "boosting-from-zero": fitted("GradientBoostingClassifier", n_estimators=5, init="zero"),
    }


every_forest = pytest.mark.parametrize("name", list(forests()))


@extras
@every_forest
@pytest.mark.parametrize("classes", [2, 3])
def test_a_forest_decides_as_its_library_at_and_beside_every_split(name: str, classes: int) -> None:
    """Rows whose numbers are thresholds, or the next float on either side: strictness and precision both tell."""
    forest, predict = forests()[name](classes)
    inner = forest.left >= 0
    dtype = forest.precision.dtype
    draw = np.random.default_rng(0)
    edge = cuts(forest)[inner].astype(dtype)
    below, above = np.nextafter(edge, dtype.type(-1)), np.nextafter(edge, dtype.type(2))
    x = draw.uniform(0, 1, (3 * len(edge), 5)).astype(dtype)
    x[np.arange(len(x)), np.tile(forest.feature[inner], 3)] = np.concatenate([below, edge, above])
    assert (decided(scores(forest, x)) == predict(x)).all()
    moved = x[: len(edge)], x[len(edge) : 2 * len(edge)]
    assert not np.array_equal(scores(forest, moved[0]), scores(forest, moved[1]))


@extras
@every_forest
@pytest.mark.parametrize("norm", [Linf, L2, L1, L0])
def test_the_smallest_change_is_one_for_the_library_and_both_ways_agree(name: str, norm: Any) -> None:
    forest, predict = forests()[name](3)
    x, _ = data(3)
    x = x[:4].astype(forest.precision.dtype)
    y = decided(scores(forest, x))
    found = smallest_change(forest, x, y, norm=norm)
    again = smallest_change(forest, x, y, norm=norm, listing=0)
    assert found.exact.all()
    assert again.exact.all()
    assert torch.allclose(found.distance, again.distance, rtol=1e-5, atol=0)
    for one in (found, again):
        assert (predict(one.x.numpy()) != y).all()
        distance = norm(1.0).distance(one.x.double(), torch.from_numpy(x).double())
        assert torch.allclose(distance, one.distance, rtol=1e-12, atol=0)


@extras
def test_a_file_gives_the_forest_of_its_model(tmp_path: Path) -> None:
    x, _ = data(3)
    boosted(3).save_model(tmp_path / "a.ubj")
    light(3).booster_.save_model(tmp_path / "b.txt")
    for path, model, read in (
        ("a.ubj", boosted(3), forest_from_xgboost),
        ("b.txt", light(3), forest_from_lightgbm),
    ):
        loaded, known = load_forest(tmp_path / path, x), read(model, x)
        for part in ("threshold", "value", "left"):
            assert np.array_equal(getattr(loaded, part), getattr(known, part))


@extras
def test_the_target_has_the_last_word_about_its_forest() -> None:
    model, (x, _) = boosted(2), data(2)
    target, forest = from_xgboost(model), forest_from_xgboost(model, x)
    y = model.predict(x[:6])
    found = smallest_change(forest, x[:6], y, norm=Linf, model=target)
    assert found.exact.all()
    assert (target(found.x).argmax(1).numpy() != y).all()


@extras
def test_what_has_no_plain_trees_is_refused_by_name() -> None:
    import xgboost
    from sklearn import ensemble

    x, y = data(2)
    frame = xgboost.DMatrix(x, y)
    refused = [
        ({"booster": "dart"}, "'dart' is no sum of plain trees"),
        ({"objective": "reg:squarederror"}, "'reg:squarederror' answers no classes"),
    ]
    for settings, cause in refused:
        with pytest.raises(TargetError, match=cause):
            forest_from_xgboost(xgboost.train({"objective": "binary:logistic", "nthread": 1} | settings, frame, 2), x)
    coded = np.concatenate([x[:, :4], np.random.default_rng(0).integers(0, 6, (300, 1))], 1).astype(np.float32)
    odd = (coded[:, 4] % 2).astype(int)
    kinds = xgboost.DMatrix(coded, odd, feature_types=["q"] * 4 + ["c"], enable_categorical=True)
    one_hot: dict[str, Any] = {"objective": "binary:logistic", "nthread": 1, "max_cat_to_onehot": 1}
    with pytest.raises(TargetError, match="XGBoost model splits on categories"):
        forest_from_xgboost(xgboost.train(one_hot, kinds, 2), coded)

    import lightgbm

    wide = coded.astype(np.float64)
    for known, columns, cause in (
        ({"min_data_per_group": 1, "cat_smooth": 0.0}, [4], "splits on categories"),
        ({"zero_as_missing": True}, [], "takes zeros for missing values"),
        ({"linear_tree": True}, [], "linear functions in its leaves"),
    ):
        lines: dict[str, Any] = {"objective": "binary", "verbosity": -1, "num_threads": 1} | known
        rows = lightgbm.Dataset(wide, odd, categorical_feature=columns, params={"linear_tree": "linear_tree" in known})
        model = lightgbm.train(lines, rows, 2)
        with pytest.raises(TargetError, match=cause):
            forest_from_lightgbm(model, coded)
    with pytest.raises(TargetError, match="'regression' answers no classes"):
        forest_from_lightgbm(trained("regression", x.sum(1)), x)

    with pytest.raises(TargetError, match="no trees from HistGradientBoostingClassifier"):
        forest_from_sklearn(ensemble.HistGradientBoostingClassifier(max_iter=2).fit(x, y), x)
    with pytest.raises(TargetError, match="starts from another model"):
        start = ensemble.RandomForestClassifier(2, random_state=0)
        forest_from_sklearn(ensemble.GradientBoostingClassifier(n_estimators=2, init=start).fit(x, y), x)
    with pytest.raises(TargetError, match="2 labels a row"):
        both = np.stack([y, 1 - y], 1)
        forest_from_sklearn(ensemble.RandomForestClassifier(2, random_state=0).fit(x, both), x)


# -- the page ----------------------------------------------------------------------------------------------


@extras
def test_what_the_page_shows_is_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(block, "docs/targets/trees.md", "exec", dont_inherit=True), {"__name__": "trees"})  # noqa: S102  # our own document
    broke = re.search(r"Square broke (\d+) rows, (\d+) of 40 can be broken", said.getvalue())
    assert broke is not None
    assert 0.9 * int(broke[2]) <= int(broke[1]) <= int(broke[2]) < 40
