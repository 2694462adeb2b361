"""GRUClassifier and GRURegressor: training as scikit-learn knows it, for pipelines, searches and cross-validation."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidegate.errors import InputValueError
from tidegate.extras import require
from tidegate.train.run import Run, fit

require("sklearn", "sklearn")  # the classes below are built on it, so it cannot wait for a function

from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin  # noqa: E402
from sklearn.utils import check_random_state  # noqa: E402
from sklearn.utils.multiclass import check_classification_targets  # noqa: E402
from sklearn.utils.validation import (  # noqa: E402
    _check_n_features,
    check_array,
    check_is_fitted,
    column_or_1d,
    validate_data,
)

__all__ = ["GRUClassifier", "GRURegressor"]

#: What scikit-learn's parameters are called among the settings, where it is not the same.
_SETTINGS = (
    "variant", "hidden_size", "num_layers", "bidirectional", "dropout", "recurrent_dropout", "input_dropout",
    "candidate_dropout", "weight_dropout", "zoneout", "write_budget", "budget_weight", "memory_steps", "epochs",
    "patience", "batch_size", "learning_rate", "schedule", "weight_decay", "clip_norm", "validation", "class_weights",
    "loss", "precision", "threads", "chunk", "recompute",
)  # fmt: skip


class _Estimator(BaseEstimator):  # type: ignore[misc]
    """What both share. X is (S, T), one number a step; (S, T, F); or a list of arrays (T, F) of any lengths."""

    run_: Run

    def __init__(
        self,
        *,
        variant: str = "gru",
        hidden_size: int = 128,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        input_dropout: float = 0.0,
        candidate_dropout: float = 0.0,
        weight_dropout: float = 0.0,
        zoneout: float = 0.0,
        write_budget: float | None = None,
        budget_weight: float = 1.0,
        memory_steps: str | float = "auto",
        epochs: int = 200,
        patience: int | None = None,
        batch_size: int = 32,
        learning_rate: float = 3e-3,
        schedule: str = "cosine",
        weight_decay: float | None = None,
        clip_norm: float = 1.0,
        validation: float = 0.15,
        class_weights: str = "none",
        loss: str = "auto",
        precision: str = "32",
        threads: int | None = None,
        chunk: int | None = None,
        recompute: bool = False,
        random_state: Any = None,
    ) -> None:
        self.variant = variant
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bidirectional = bidirectional
        self.dropout = dropout
        self.recurrent_dropout = recurrent_dropout
        self.input_dropout = input_dropout
        self.candidate_dropout = candidate_dropout
        self.weight_dropout = weight_dropout
        self.zoneout = zoneout
        self.write_budget = write_budget
        self.budget_weight = budget_weight
        self.memory_steps = memory_steps
        self.epochs = epochs
        self.patience = patience
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.schedule = schedule
        self.weight_decay = weight_decay
        self.clip_norm = clip_norm
        self.validation = validation
        self.class_weights = class_weights
        self.loss = loss
        self.precision = precision
        self.threads = threads
        self.chunk = chunk
        self.recompute = recompute
        self.random_state = random_state

    def _fit(self, X: Any, y: NDArray[Any], categories: tuple[str, ...] | None) -> None:
        options = {name: getattr(self, name) for name in _SETTINGS}
        seed = self.random_state
        if not isinstance(seed, int | np.integer):
            seed = check_random_state(seed).randint(2**31)
        label = y if categories is None else np.array(categories, object)[y]
        task = "classify" if categories is not None else "regress"
        self.run_ = fit(X, label, task=task, test=0.0, seed=int(seed), **options)
        self.n_iter_ = len(self.run_.facts["history"])

    def _sequences(self, X: Any, *, fitting: bool) -> Any:
        """X checked as scikit-learn checks it, as far as it knows such data; ragged sequences are ours to check."""
        if isinstance(X, list) and X and not _is_table(X):
            return X
        least = 2 if fitting else 1
        if getattr(X, "ndim", 2) == 3:
            X = check_array(X, allow_nd=True, ensure_all_finite="allow-nan", ensure_min_samples=least)
            _check_n_features(self, X.reshape(len(X), -1), reset=fitting)
            return X
        return validate_data(
            self, X, reset=fitting, ensure_all_finite="allow-nan", dtype="numeric", ensure_min_samples=least
        )

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.three_d_array = True
        tags.non_deterministic = False
        return tags

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "run_")


class GRUClassifier(ClassifierMixin, _Estimator):  # type: ignore[misc]
    """Classify sequences with a gated recurrent unit; parameters are the settings of `tidegate.fit`.

    After `fit`: `classes_`, `run_` (the trained `Run`), `n_iter_` (epochs).
    """

    def fit(self, X: Any, y: Any) -> "GRUClassifier":
        """Train on sequences X with the classes y, (S,)."""
        X = self._sequences(X, fitting=True)
        y = column_or_1d(y, warn=True)
        check_classification_targets(y)
        _check_as_many(X, y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise InputValueError(f"y must hold at least two classes; got one class, {self.classes_[0]!r}")
        names = tuple(f"{number:06d}" for number in range(len(self.classes_)))  # in the order of classes_
        self._fit(X, codes, names)
        return self

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """The probability of each of `classes_`, (S, C)."""
        check_is_fitted(self)
        told = self.run_.predict(self._sequences(X, fitting=False))
        probabilities = np.zeros((len(told["prediction"]), len(self.classes_)))
        for number in range(len(self.classes_)):
            column = told.get(f"probability_{number:06d}")
            if column is not None:
                probabilities[:, number] = column
        return probabilities

    def predict(self, X: Any) -> NDArray[Any]:
        """The likeliest class of each sequence, (S,)."""
        likeliest = self.predict_proba(X).argmax(1)
        classes: NDArray[Any] = self.classes_[likeliest]
        return classes


class GRURegressor(RegressorMixin, _Estimator):  # type: ignore[misc]
    """Predict a number for each sequence with a gated recurrent unit; parameters are the settings of `tidegate.fit`.

    After `fit`: `run_` (the trained `Run`), `n_iter_` (epochs).
    """

    def fit(self, X: Any, y: Any) -> "GRURegressor":
        """Train on sequences X with the numbers y, (S,)."""
        X = self._sequences(X, fitting=True)
        y = check_array(column_or_1d(y, warn=True), ensure_2d=False, dtype=np.float64)
        _check_as_many(X, y)
        self._fit(X, y, None)
        return self

    def predict(self, X: Any) -> NDArray[np.float64]:
        """The number of each sequence, (S,)."""
        check_is_fitted(self)
        told: NDArray[np.float64] = self.run_.predict(self._sequences(X, fitting=False))["prediction"]
        return told


def _is_table(rows: list[Any]) -> bool:
    """Whether a list is scikit-learn's own kind: rows alike, of one number a step; or nothing like sequences at all."""
    depths = {np.ndim(row) if isinstance(row, list | tuple | np.ndarray) else 0 for row in rows}
    return not depths & {1, 2} or (depths == {1} and len({len(row) for row in rows}) == 1)


def _check_as_many(X: Any, y: NDArray[Any]) -> None:
    if len(X) != len(y):
        raise InputValueError(f"X and y must hold as many sequences as labels; got {len(X)} and {len(y)}")
