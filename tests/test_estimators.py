"""GRUClassifier and GRURegressor: what scikit-learn asks of an estimator, and sequences of all forms."""

import dataclasses
import pickle
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator

import tidegate as tg
from tidegate.errors import InputValueError
from tidegate.train.settings import Settings

SMALL: dict[str, Any] = {"hidden_size": 4, "epochs": 2, "threads": 1, "random_state": 0}


def which_came_first(count: int, steps: int = 8, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Noise with a mark of +4 or -4 at the first step."""
    rng = np.random.default_rng(seed)
    X, y = rng.normal(size=(count, steps, 1)), rng.integers(2, size=count)
    X[:, 0, 0] = np.where(y, 4, -4)
    return X, np.where(y, "up", "down")


#: While the tests run, arguments are held to their types, where scikit-learn asks that a constructor checks nothing.
TYPED = "check_do_not_raise_errors_in_init_or_set_params"


def checks():
    for estimator in (tg.GRUClassifier(**SMALL), tg.GRURegressor(**SMALL)):
        for made, check in estimator_checks_generator(estimator):
            name = getattr(check, "func", check).__name__
            if name == TYPED:
                continue
            if name.endswith("_train"):  # asks for a score
                made = clone(made).set_params(epochs=80, hidden_size=32, learning_rate=0.01)  # noqa: PLW2901
            yield pytest.param(made, check, id=f"{type(estimator).__name__}-{name}")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("estimator", "check"), list(checks()))
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)


def test_it_learns_and_says_how_sure_it_is():
    X, y = which_came_first(120)
    model = tg.GRUClassifier(hidden_size=16, epochs=80, threads=1, random_state=0).fit(X, y)
    assert model.classes_.tolist() == ["down", "up"]
    fresh, truth = which_came_first(60, seed=1)
    assert model.score(fresh, truth) > 0.95
    probabilities = model.predict_proba(fresh)
    assert np.allclose(probabilities.sum(1), 1)
    assert (model.classes_[probabilities.argmax(1)] == model.predict(fresh)).all()


def test_a_regressor_predicts_a_number():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(150, 6, 2))
    y = 100 + 10 * X[:, 0, 1]
    model = tg.GRURegressor(hidden_size=16, epochs=150, threads=1, random_state=0).fit(X, y)
    assert model.score(X, y) > 0.9


@pytest.mark.parametrize("form", ["two axes", "three axes", "ragged"])
def test_the_same_sequences_in_every_form_give_the_same(form):
    X, y = which_came_first(40)
    given = {"two axes": X[:, :, 0], "three axes": X, "ragged": list(X)}[form]
    told = tg.GRUClassifier(**SMALL).fit(given, y).predict_proba(given)
    assert np.array_equal(told, tg.GRUClassifier(**SMALL).fit(X, y).predict_proba(X))


def test_sequences_of_different_lengths():
    X, y = which_came_first(60, steps=12)
    ragged = [one[: 3 + number % 9] for number, one in enumerate(X)]
    model = tg.GRUClassifier(hidden_size=16, epochs=80, threads=1, random_state=0).fit(ragged, y)
    assert model.score(ragged, y) > 0.95


def test_in_a_pipeline_and_a_search():
    X, y = which_came_first(40)
    pipeline = make_pipeline(StandardScaler(), tg.GRUClassifier(**SMALL))
    search = GridSearchCV(pipeline, {"gruclassifier__hidden_size": [2, 3]}, cv=2)
    search.fit(X[:, :, 0], y)
    assert search.best_params_["gruclassifier__hidden_size"] in (2, 3)


def test_the_same_seed_gives_the_same_and_a_clone_and_a_pickle_too():
    X, y = which_came_first(40)
    model = tg.GRUClassifier(**SMALL).fit(X, y)
    again = clone(model).fit(X, y)
    kept = pickle.loads(pickle.dumps(model))
    for other in (again, kept):
        assert np.array_equal(other.predict_proba(X), model.predict_proba(X))


def test_refusals_are_one_sentence():
    X, y = which_came_first(10)
    with pytest.raises(NotFittedError):
        tg.GRUClassifier().predict(X)
    with pytest.raises(InputValueError, match="as many sequences as labels"):
        tg.GRUClassifier(**SMALL).fit(list(X), y[:5])
    with pytest.raises(InputValueError, match="at least two classes"):
        tg.GRUClassifier(**SMALL).fit(X, np.zeros(10))
    with pytest.raises(InputValueError, match="variant must be one of"):
        tg.GRUClassifier(**{**SMALL, "variant": "lstm"}).fit(X, y)


#: Settings that say nothing of arrays with a label a sequence, or that scikit-learn has a way of its own for.
NOT_PARAMETERS = {
    "data", "id", "time", "label", "features", "categorical", "ignore", "level", "per", "encoding", "grid", "hold",
    "hold_edl", "edl_rate", "hold_weight", "test_data", "test", "gaps", "task", "horizon", "quantiles", "lanes", "seed",
}  # fmt: skip


@pytest.mark.parametrize("estimator", [tg.GRUClassifier, tg.GRURegressor])
def test_parameters_are_the_settings_with_their_defaults(estimator):
    settings = {one.name: one.default for one in dataclasses.fields(Settings) if one.name not in NOT_PARAMETERS}
    assert estimator().get_params() == settings | {"random_state": None}


def test_every_parameter_reaches_the_run():
    other: dict[str, Any] = {
        "variant": "update-only", "hidden_size": 3, "num_layers": 2, "dropout": 0.1, "recurrent_dropout": 0.1,
        "input_dropout": 0.1, "candidate_dropout": 0.1, "weight_dropout": 0.1, "zoneout": 0.1, "write_budget": 0.2,
        "budget_weight": 2.0, "memory_steps": "5", "epochs": 1, "patience": 3, "batch_size": 8, "learning_rate": 0.01,
        "schedule": "constant", "weight_decay": 0.1, "clip_norm": 2.0, "validation": 0.2, "class_weights": "balanced",
        "loss": "cross-entropy", "precision": "bf16", "threads": 1, "chunk": 4, "recompute": True,
    }  # fmt: skip
    assert set(other) | {"bidirectional", "random_state"} == set(tg.GRUClassifier().get_params())
    X, y = which_came_first(30)
    run = tg.GRUClassifier(random_state=0, **other).fit(X, y).run_
    assert {name: getattr(run.settings, name) for name in other} == other
    run = tg.GRUClassifier(bidirectional=True, **SMALL).fit(X, y).run_
    assert run.settings.bidirectional
