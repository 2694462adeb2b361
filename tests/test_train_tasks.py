"""Tasks: losses and metrics against what one would write by hand, refusals, and JSON."""

import json
import math
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.refusals import assert_refused
from tests.train_helpers import sequences_of
from tidegate.errors import InputValueError
from tidegate.train.tasks import Task, is_known, known_values, task_for

NAN = float("nan")
LOSSES = {
    "mse": lambda miss: miss * miss,
    "mae": abs,
    "huber": lambda miss: miss * miss / 2 if abs(miss) < 1 else abs(miss) - 0.5,
}


def labelled(values, categories=None, *, per_step=False, lengths=None):
    lengths = lengths or [1] * len(values)
    pieces = [np.zeros((length, 1)) for length in lengths]
    return sequences_of(pieces, label=values, categories=categories, per_step=per_step)


def everything(sequences):
    return np.arange(len(sequences))


def task_of(values, categories=None, *, per_step=False, lengths=None, **options):
    sequences = labelled(values, categories, per_step=per_step, lengths=lengths)
    return task_for(sequences, everything(sequences), **options)


# ---------------------------------------------------------------------------------------------------------------------
# which task


@pytest.mark.parametrize("per_step", [False, True])
@pytest.mark.parametrize("categories", [("a", "b"), None])
def test_the_label_decides(categories, per_step):
    task = task_of([0, 1, 1], categories, per_step=per_step, lengths=[2, 1] if per_step else None)
    assert (
        task.name
        == {
            (True, False): "classify",
            (True, True): "label-steps",
            (False, False): "regress",
            (False, True): "regress-steps",
        }[categories is not None, per_step]
    )
    assert task.per_step == per_step
    assert task.outputs == (2 if categories else 1)
    assert task.loss == ("cross-entropy" if categories else "mse")
    assert (
        task_of([0, 1, 1], categories, per_step=per_step, lengths=[2, 1] if per_step else None, name=task.name) == task
    )


def test_the_training_part_alone_decides_mean_and_spread():
    sequences = labelled([1, 3, NAN, 1e9, 5])
    task = task_for(sequences, np.array([0, 1, 2, 4]))
    assert task.mean == 3
    assert task.spread == pytest.approx(math.sqrt(8 / 3))


@given(st.lists(st.floats(-1e300, 1e300) | st.just(NAN), min_size=1))
def test_any_numbers_get_a_spread_or_a_refusal(values):
    known = np.array([value for value in values if not math.isnan(value)])
    if len(set(known)) < 2:
        assert_refused(lambda: task_of(values), InputValueError, "must vary in the training part")
    else:
        assert 0 < task_of(values).spread < math.inf


@pytest.mark.parametrize(
    ("values", "categories", "options", "words"),
    [
        ([1, 1, NAN], ("a", "b"), {}, "label 'answer' must vary in the training part; it is always the same"),
        ([7, 7], None, {}, "it is always the same"),
        ([NAN, NAN], ("a", "b"), {}, "it is not known anywhere"),
        ([NAN, NAN], None, {}, "it is not known anywhere"),
        ([1, math.inf], None, {}, "label 'answer' must be finite; it holds inf"),
        ([0, 1], ("a", "b"), {"name": "regress"}, "task must be 'classify', since label 'answer' is a category of ev"),
        ([0, 1], None, {"name": "label-steps"}, "task must be 'regress', since label 'answer' is a number of every s"),
        ([0, 1], ("a", "b"), {"loss": "mse"}, "loss must be cross-entropy for this label; got 'mse'"),
        ([0, 1], None, {"loss": "cross-entropy"}, "loss must be mse or mae or huber for this label"),
        ([0, 1], None, {"class_weights": "balanced"}, "class_weights must be 'none' for a label that is a number"),
        ([0, 1], ("a", "b"), {"class_weights": "all"}, "class_weights must be 'none' or 'balanced'; got 'all'"),
    ],
)
def test_what_does_not_go_with_the_label_is_refused(values, categories, options, words):
    assert_refused(lambda: task_of(values, categories, **options), InputValueError, words)


def test_no_label_is_refused():
    assert_refused(
        lambda: task_for(sequences_of([[[0.0]]]), np.array([0])),
        InputValueError,
        "label must name a column of the data",
    )


def test_known_values_are_those_of_the_steps_of_some_sequences():
    sequences = labelled([1, NAN, 3, 4, NAN, 6], per_step=True, lengths=[3, 1, 2])
    assert known_values(sequences, np.array([0, 2])).tolist() == [1, 3, 6]
    assert known_values(sequences, np.array([], int)).tolist() == []
    assert known_values(sequences_of([[[0.0]]]), np.array([0])).tolist() == []


# ---------------------------------------------------------------------------------------------------------------------
# losses


@pytest.mark.parametrize("loss", ["mse", "mae", "huber"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_losses_of_numbers(loss, dtype):
    task = task_of([990.0, 1010.0], loss=loss)
    answers = torch.tensor([[0.25], [-3.0], [0.5], [0.0]], dtype=dtype)
    label = torch.tensor([1000.0, 1010.0, NAN, 993.0], dtype=torch.float64)
    wanted = [LOSSES[loss](answer - (told - 1000) / 10) for answer, told in ((0.25, 1000), (-3, 1010), (0, 993))]
    torch.testing.assert_close(task.loss_of(answers, label), torch.tensor(wanted, dtype=dtype))


@pytest.mark.parametrize("class_weights", ["none", "balanced"])
def test_the_loss_of_classes(class_weights):
    task = task_of([0, 0, 0, 1, 2, NAN], ("a", "b", "c", "absent"), class_weights=class_weights)
    answers = torch.randn(3, 4, dtype=torch.float64)
    label = torch.tensor([2.0, NAN, 0.0], dtype=torch.float64)
    weights = {0: 5 / 9, 2: 5 / 3} if class_weights == "balanced" else {0: 1, 2: 1}
    wanted = [
        weights[one] * (math.log(sum(math.exp(x) for x in answers[at].tolist())) - float(answers[at, one]))
        for at, one in ((0, 2), (2, 0))
    ]
    torch.testing.assert_close(task.loss_of(answers, label), torch.tensor(wanted, dtype=torch.float64))
    counted = [task.class_weights[one] for one in (0, 0, 0, 1, 2)] if task.class_weights else [1]
    assert np.mean(counted) == pytest.approx(1)


def test_the_loss_of_steps_is_that_of_each_known_one():
    task = task_of([0.0, 2.0], loss="mae")
    answers = torch.randn(5, 3, 1, dtype=torch.float64)
    label = torch.randn(5, 3, dtype=torch.float64)
    label[3:, 1] = NAN
    wanted = (answers[..., 0] - (label - 1)).abs()
    torch.testing.assert_close(task.loss_of(answers, label), wanted[~label.isnan()])


def test_nothing_known_is_no_loss():
    for task, outputs in ((task_of([0, 1]), 1), (task_of([0, 1], ("a", "b")), 2)):
        assert task.loss_of(torch.randn(3, outputs), torch.full((3,), NAN, dtype=torch.float64)).shape == (0,)


def test_bfloat16_answers_do_not_round_the_label():
    task = task_of([-1.0, 1.0], loss="mae")
    label = torch.tensor([0.123456], dtype=torch.float64)
    loss = task.loss_of(torch.zeros(1, 1, dtype=torch.bfloat16), label)
    assert float(loss) == pytest.approx(0.123456, rel=1e-6)


# ---------------------------------------------------------------------------------------------------------------------
# metrics


def test_metrics_of_classes_are_what_one_counts():
    task = task_of([0, 1, 2], ("a", "b", "c"))
    said = [0, 0, 1, 1, 2, 0]
    true = [0, 1, 1, 1, 2, 2]
    metrics = task.metrics()
    for some in (slice(0, 2), slice(2, 6)):
        told = torch.nn.functional.one_hot(torch.tensor(said[some]), 3).float() * 3
        metrics.update(task.told(told), torch.tensor(true[some]))
    counted = {name: float(value) for name, value in metrics.compute().items()}
    each = []
    for one in range(3):
        hits = sum(s == t == one for s, t in zip(said, true, strict=True))
        each.append(2 * hits / (said.count(one) + true.count(one)))
    assert counted == {"accuracy": pytest.approx(4 / 6), "f1": pytest.approx(sum(each) / 3)}


def test_metrics_of_numbers_are_what_one_counts():
    task = task_of([0.0, 20.0])
    metrics = task.metrics()
    answers = torch.tensor([[0.0], [1.0], [0.5]])
    assert task.told(answers).tolist() == [10, 20, 15]
    metrics.update(task.told(answers), torch.tensor([10.0, 21.0, 12.0], dtype=torch.float64))
    counted = {name: float(value) for name, value in metrics.compute().items()}
    assert counted == {"mae": pytest.approx(4 / 3), "rmse": pytest.approx(math.sqrt(10 / 3))}


def test_probabilities_sum_to_1():
    told = task_of([0, 1, 2], ("a", "b", "c")).told(torch.randn(4, 5, 3).bfloat16() * 50)
    torch.testing.assert_close(told.sum(-1), torch.ones(4, 5))


# ---------------------------------------------------------------------------------------------------------------------
# kept with a run


@given(st.lists(st.floats(-1e9, 1e9), min_size=2, unique=True))
def test_json_brings_back_the_same_task(values):
    for task in (
        task_of(values, loss="huber"),
        task_of([0, 0, 1, 2], ("ä", 'b"', ""), class_weights="balanced"),
        task_of([0, 1, 1], ("a", "b"), per_step=True, lengths=[1, 2]),
    ):
        assert Task.from_dict(json.loads(json.dumps(task.to_dict()))) == task


def test_other_data_are_held_to_the_task():
    task = task_of([0, 1], ("a", "b"))
    known = task.known_label()
    assert (known.name, known.per_step, known.categories) == ("answer", False, ("a", "b"))
    task.check(labelled([1, NAN], ("a", "b")))
    unlabelled = sequences_of([[[0.0]]])
    assert_refused(lambda: task.check(unlabelled), InputValueError, "data must have the label 'answer' to be scored")
    for other in (
        labelled([0, 1]),
        labelled([0, 1], ("a", "c")),
        labelled([0, 1], ("a", "b"), per_step=True, lengths=[2]),
    ):
        assert_refused(partial(task.check, other), InputValueError, "label 'answer' must be of the kind that")
    unseen = labelled([0, -1], ("a", "b"))
    words = "must have classes seen in training, a, b; sequence 's1' has another"
    assert_refused(lambda: task.check(unseen), InputValueError, words)
    steps = task_of([0, 1], ("a", "b"), per_step=True, lengths=[2])
    unseen = labelled([0, 1, -1], ("a", "b"), per_step=True, lengths=[1, 2])
    assert_refused(lambda: steps.check(unseen), InputValueError, "a, b; sequence 's1', step 2 has another")


def test_whether_anything_is_known_is_asked_of_some_sequences(monkeypatch):
    monkeypatch.setattr("tidegate.data.rows.CHUNK", 2)
    steps = labelled([NAN, NAN, NAN, NAN, 3, NAN], per_step=True, lengths=[3, 2, 1])
    ends = labelled([NAN, 2, NAN])
    for sequences in (steps, ends):
        assert [is_known(sequences, [number]) for number in range(3)] == [False, True, False]
        assert is_known(sequences, [0, 1])
        assert not is_known(sequences, [0, 2])
        assert not is_known(sequences, [])
    assert not is_known(sequences_of([[[0.0]]]), [0])
