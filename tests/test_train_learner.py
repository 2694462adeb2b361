"""Which weights decay, and by how much."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.train_helpers import first_symbol, fitting_settings
from tidegate.train.fitting import new_model
from tidegate.train.learner import Learner
from tidegate.train.split import split
from tidegate.train.tasks import task_for

pytestmark = pytest.mark.filterwarnings("ignore")


def groups(steps: int, **options):
    """The optimizer's parameters by whether they decay: the names of both, and the two decays."""
    sequences, settings = first_symbol(), fitting_settings(**options)
    parts = split(sequences, validation=0.2, test=0.0, seed=0)
    task = task_for(sequences, parts.train)
    model = new_model(sequences, parts, task, settings)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed, kept = Learner(model, task, settings, steps).configure_optimizers().param_groups
    told = [{names[id(parameter)] for parameter in group["params"]} for group in (decayed, kept)]
    return *told, decayed["weight_decay"], kept["weight_decay"]


def test_matrices_decay_alone():
    decayed, kept, decay, none = groups(100, variant="gru-layer-norm", num_layers=2, weight_decay=0.3)
    assert (decay, none) == (0.3, 0)
    assert all("weight" in name for name in decayed)
    assert {"head.weight", "layer.weight_hh_l0", "layer.weight_ih_l1"} <= decayed
    assert "head.bias" in kept
    assert not decayed & kept


@given(st.integers(1, 10**6), st.integers(1, 1000), st.floats(1e-300, 1e5))
def test_decay_that_nobody_chose_is_normalised(steps, epochs, learning_rate):
    """Loshchilov & Hutter 2019, appendix B.1: by the square root of all steps; but no epoch takes more than a tenth."""
    *_, decay, none = groups(steps * epochs, epochs=epochs, learning_rate=learning_rate)
    assert decay * learning_rate == pytest.approx(0.1 / math.sqrt(steps * max(steps, epochs)))
    assert steps * decay * learning_rate <= 0.1 * (1 + 1e-9)
    assert none == 0


def test_one_epoch_takes_a_tenth_at_most():
    *_, decay, _ = groups(250, epochs=1, learning_rate=3e-3)
    assert (1 - 3e-3 * decay) ** 250 == pytest.approx(0.9, abs=0.01)


def test_no_decay_can_be_asked_for():
    assert groups(100, weight_decay=0)[2] == 0
