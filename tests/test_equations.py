"""The equations are the table of the notes: against scalars written from it, against torch.nn, and at their limits."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from tests.contract.compare import TOLERANCES, assert_same
from tidegate import equations
from tidegate.conventions import TORCH_GRU, TORCH_RNN, PackedWeights, unpack
from tidegate.equations import ACTIVATIONS, Affine, Pinned, Step, Weights

Floats = NDArray[np.float64]
Equation = Callable[..., Step]
Blocks = dict[str, Affine]

#: Every row of the table: its name, its function, and whose weights it has.
ROWS: dict[str, tuple[Equation, tuple[str, ...]]] = {
    "dense": (equations.dense, ("candidate",)),
    "rnn": (equations.rnn, ("candidate",)),
    "update-only": (equations.update_only, ("candidate", "update")),
    "gru": (equations.gru, ("candidate", "update", "reset")),
    "gru-reset-before": (equations.gru_reset_before, ("candidate", "update", "reset")),
}
GATED = ["update-only", "gru", "gru-reset-before"]
B, I, H = 4, 3, 5

every_row = pytest.mark.parametrize("row", ROWS)
seeds = st.integers(0, 2**32 - 1)
sizes = st.integers(1, 6)


class Drawn(NamedTuple):
    """One step's inputs."""

    x: Tensor
    h_prev: Tensor
    weights: Weights


def draw(
    row: str, *, batch: tuple[int, ...] = (B,), sizes: tuple[int, int] = (I, H), bias: bool = True, seed: int = 0
) -> Drawn:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    inputs, hidden = sizes

    def affine() -> Affine:
        biases = (normal(hidden), normal(hidden)) if bias else (None, None)
        return Affine(normal(hidden, inputs), normal(hidden, hidden), *biases)

    weights = Weights(**{block: affine() for block in ROWS[row][1]})
    if row == "dense":
        weights = Weights(weights.candidate._replace(weight_hh=None, bias_hh=None))
    return Drawn(normal(*batch, inputs), normal(*batch, hidden), weights)


def run(row: str, drawn: Drawn, **options) -> Step:
    return ROWS[row][0](*drawn, **options)


# ---------------------------------------------------------------------------------------------------------------------
# The table, written once more: one number at a time, from the design and not from the code


def sigma(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def product(weight: Tensor | None, vector: list[float], unit: int) -> float:
    """`(W·v)` of one unit."""
    assert weight is not None
    row = weight.tolist()[unit]
    return math.fsum(row[k] * vector[k] for k in range(len(vector)))


def bias(vector: Tensor | None, unit: int) -> float:
    return 0.0 if vector is None else float(vector[unit])


def by_hand(row: str, drawn: Drawn, g: Callable[[float], float] = math.tanh) -> dict[str, Tensor]:
    """Gates, candidate and state of every sequence and unit by the formulas of the table; the two biases are `b`."""
    rows: list[dict[str, Floats]] = []
    for x, a in zip(drawn.x.tolist(), drawn.h_prev.tolist(), strict=True):
        units = range(len(a))
        w = drawn.weights

        def gate(block: Affine | None, x: list[float] = x, a: list[float] = a, units: range = units) -> list[float]:
            assert block is not None
            return [
                sigma(
                    product(block.weight_ih, x, i)
                    + product(block.weight_hh, a, i)
                    + bias(block.bias_ih, i)
                    + bias(block.bias_hh, i)
                )
                for i in units
            ]

        c = w.candidate
        Gu = gate(w.update) if row in GATED else [1.0] * len(a)
        Gr = gate(w.reset) if row.startswith("gru") else [0.0 if row == "dense" else 1.0] * len(a)
        from_x = [product(c.weight_ih, x, i) + bias(c.bias_ih, i) for i in units]
        if row == "dense":
            past = [0.0] * len(a)
        elif row == "gru-reset-before":
            past = [product(c.weight_hh, [Gr[k] * a[k] for k in units], i) + bias(c.bias_hh, i) for i in units]
        else:  # PyTorch's second bias belongs to the product, and is reset with it
            past = [Gr[i] * (product(c.weight_hh, a, i) + bias(c.bias_hh, i)) for i in units]
        candidate = [g(from_x[i] + past[i]) for i in units]
        hidden = [Gu[i] * candidate[i] + (1 - Gu[i]) * a[i] for i in units]
        rows.append(
            {name: np.array(values) for name, values in zip(Step._fields, (Gu, Gr, candidate, hidden), strict=True)}
        )
    return {name: torch.from_numpy(np.stack([each[name] for each in rows])) for name in Step._fields}


@every_row
@pytest.mark.parametrize("with_bias", [True, False], ids=["bias", "no-bias"])
def test_a_row_of_the_table_is_its_formula(row, with_bias):
    drawn = draw(row, bias=with_bias)
    assert_same(run(row, drawn)._asdict(), by_hand(row, drawn))


@every_row
@given(seed=seeds, batch=sizes, inputs=sizes, hidden=sizes, with_bias=st.booleans())
def test_a_row_of_the_table_is_its_formula_at_any_size(row, seed, batch, inputs, hidden, with_bias):
    drawn = draw(row, batch=(batch,), sizes=(inputs, hidden), bias=with_bias, seed=seed)
    assert_same(run(row, drawn)._asdict(), by_hand(row, drawn))


FUNCTIONS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[float], float]]] = {
    "relu": (ACTIVATIONS["relu"], lambda value: max(value, 0.0)),
    "sigmoid": (ACTIVATIONS["sigmoid"], sigma),
    "tanh": (ACTIVATIONS["tanh"], math.tanh),
    "identity": (ACTIVATIONS["identity"], lambda value: value),
    "a lambda": (lambda value: value / (1 + value.abs()), lambda value: value / (1 + abs(value))),
}


@every_row
@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_activation_is_free(row, name):
    of_tensors, of_numbers = FUNCTIONS[name]
    drawn = draw(row)
    assert_same(run(row, drawn, activation=of_tensors)._asdict(), by_hand(row, drawn, of_numbers))


def test_every_activation_that_has_a_name_is_tested():
    assert ACTIVATIONS.keys() <= FUNCTIONS.keys()


@every_row
def test_the_activation_is_tanh_unless_told_otherwise(row):
    drawn = draw(row)
    assert_same(run(row, drawn)._asdict(), run(row, drawn, activation=torch.tanh)._asdict(), exact=True)


# ---------------------------------------------------------------------------------------------------------------------
# torch.nn


def weights_of(cell: torch.nn.RNNCellBase) -> PackedWeights:
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    return PackedWeights(*(getattr(cell, name) for name in names))


@pytest.mark.parametrize("with_bias", [True, False], ids=["bias", "no-bias"])
def test_the_gru_that_resets_after_the_product_is_torch_nns(with_bias):
    cell = torch.nn.GRUCell(I, H, with_bias, dtype=torch.float64)
    x, h_prev, _ = draw("gru")
    step = equations.gru(x, h_prev, unpack(TORCH_GRU, weights_of(cell)))
    assert_same({"hidden": step.hidden}, {"hidden": cell(x, h_prev)})


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
@pytest.mark.parametrize("with_bias", [True, False], ids=["bias", "no-bias"])
def test_the_rnn_is_torch_nns(with_bias, nonlinearity):
    cell = torch.nn.RNNCell(I, H, with_bias, nonlinearity, dtype=torch.float64)
    x, h_prev, _ = draw("rnn")
    step = equations.rnn(x, h_prev, unpack(TORCH_RNN, weights_of(cell)), ACTIVATIONS[nonlinearity])
    assert_same({"hidden": step.hidden}, {"hidden": cell(x, h_prev)})


def test_the_dense_layer_is_torch_nns():
    x, h_prev, weights = draw("dense")
    layer = torch.nn.Linear(I, H, dtype=torch.float64)
    layer.load_state_dict({"weight": weights.candidate.weight_ih, "bias": weights.candidate.bias_ih})
    assert_same({"hidden": equations.dense(x, h_prev, weights).hidden}, {"hidden": layer(x).tanh()})


# ---------------------------------------------------------------------------------------------------------------------
# The limiting cases: promises of the design, to the bit


def pinned(update: float | None = None, reset: float | None = None) -> Pinned:
    return Pinned(*(None if value is None else torch.tensor(value, dtype=torch.float64) for value in (update, reset)))


def candidate_only(weights: Weights) -> Weights:
    return Weights(weights.candidate)


@pytest.mark.parametrize("row", GATED)
def test_update_1_and_reset_1_are_the_rnn(row):
    drawn = draw(row)
    got = run(row, drawn, pinned=pinned(update=1, reset=1))
    expected = equations.rnn(drawn.x, drawn.h_prev, candidate_only(drawn.weights))
    assert_same(got._asdict(), expected._asdict(), exact=True)


@pytest.mark.parametrize("row", ["rnn", "update-only", "gru"])
def test_update_1_and_reset_0_are_the_dense_layer(row):
    drawn = draw(row)
    got = run(row, drawn, pinned=pinned(update=1, reset=0))
    expected = equations.dense(drawn.x, drawn.h_prev, candidate_only(drawn.weights))
    assert_same(got._asdict(), expected._asdict(), exact=True)


def test_update_1_and_reset_0_are_the_dense_layer_where_reset_is_before_the_product():
    """The notes have one bias; PyTorch's second one is outside of what a reset before the product reaches."""
    drawn = draw("gru-reset-before", bias=False)
    got = run("gru-reset-before", drawn, pinned=pinned(update=1, reset=0))
    expected = equations.dense(drawn.x, drawn.h_prev, candidate_only(drawn.weights))
    assert_same(got._asdict(), expected._asdict(), exact=True)
    both = draw("gru-reset-before")
    candidate = both.weights.candidate
    assert candidate.bias_ih is not None
    assert candidate.bias_hh is not None
    one_bias = Weights(Affine(candidate.weight_ih, bias_ih=candidate.bias_ih + candidate.bias_hh))
    got = run("gru-reset-before", both, pinned=pinned(update=1, reset=0))
    assert_same(got._asdict(), equations.dense(both.x, both.h_prev, one_bias)._asdict())


@pytest.mark.parametrize("row", ["rnn", "update-only", "gru", "gru-reset-before"])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_reset_0_ignores_a_past_that_is_not_finite(row, bad):
    drawn = draw(row)
    spoilt = drawn._replace(h_prev=torch.full_like(drawn.h_prev, bad))
    options = {"pinned": pinned(update=1, reset=0)}
    got, expected = run(row, spoilt, **options), run(row, drawn, **options)
    assert_same(got._asdict(), expected._asdict(), exact=True)


@every_row
@pytest.mark.parametrize("bad", [0.0, math.nan, math.inf, -math.inf])
def test_update_0_holds_the_state_to_the_bit_whatever_comes_in(row, bad):
    drawn = draw(row)
    drawn.h_prev.view(-1)[:5] = torch.tensor([-0.0, 0.0, 5e-324, -math.inf, 1e308], dtype=torch.float64)
    spoilt = drawn._replace(x=torch.full_like(drawn.x, bad))
    got = run(row, spoilt, pinned=pinned(update=0))
    assert_same({"hidden": got.hidden}, {"hidden": drawn.h_prev}, exact=True)
    assert not got.update.any()


@pytest.mark.parametrize("row", ["gru", "gru-reset-before"])
def test_reset_1_is_the_update_only_gru(row):
    drawn = draw(row)
    got = run(row, drawn, pinned=pinned(reset=1))
    expected = equations.update_only(drawn.x, drawn.h_prev, drawn.weights._replace(reset=None))
    assert_same(got._asdict(), expected._asdict(), exact=True)


@every_row
def test_update_at_six_tenths_takes_60_percent_of_the_candidate_and_40_of_the_past(row):
    drawn = draw(row)
    got = run(row, drawn, pinned=pinned(update=0.6))
    assert_same({"hidden": got.hidden}, {"hidden": 0.6 * got.candidate + 0.4 * drawn.h_prev})


def test_the_worked_numbers_of_the_notes():
    """Of a candidate of 1 and a past of 0, 0.6 remains; of a candidate of 0 and a past of 1, 0.4."""
    x, one, zero = torch.ones(1), torch.ones(1), torch.zeros(1)
    update = torch.tensor([0.6])
    assert_same({"a": equations.blend(update, one, zero)}, {"a": torch.tensor([0.6])})
    assert_same({"a": equations.blend(update, zero, one)}, {"a": torch.tensor([0.4])})
    # The same through a whole cell: no weights, a candidate of 1 by its bias, an update gate of 0.6 by its own.
    nothing = torch.zeros(1, 1)
    weights = Weights(
        candidate=Affine(nothing, nothing, bias_ih=torch.ones(1)),
        update=Affine(nothing, nothing, bias_ih=torch.tensor([math.log(0.6 / 0.4)])),
        reset=Affine(nothing, nothing),
    )
    for h_prev, expected in ((0.0, 0.6), (1.0, 1.0), (-1.0, 0.2), (0.5, 0.8)):
        step = equations.gru(x, torch.tensor([h_prev]), weights, activation=lambda value: value)
        assert_same({"a": step.hidden}, {"a": torch.tensor([expected])})


@pytest.mark.parametrize("row", GATED)
@pytest.mark.parametrize(("level", "kept"), [(200.0, "candidate"), (-800.0, "h_prev")])
def test_a_gate_that_saturates_passes_one_side_to_the_bit(row, level, kept):
    drawn = draw(row)
    gate = drawn.weights.update
    assert gate is not None
    weights = drawn.weights._replace(update=gate._replace(bias_ih=torch.full_like(gate.bias_ih, level)))  # type: ignore[arg-type]
    step = run(row, drawn._replace(weights=weights))
    expected = step.candidate if kept == "candidate" else drawn.h_prev
    assert_same({"hidden": step.hidden}, {"hidden": expected}, exact=True)


@every_row
def test_a_pin_of_nan_leaves_its_gate_free_and_others_force_it(row):
    drawn = draw(row)
    pin = torch.full((B, H), math.nan, dtype=torch.float64)
    pin[1, 2], pin[3, 0] = 0.25, 0.0
    free, forced = run(row, drawn), run(row, drawn, pinned=Pinned(update=pin))
    where = ~pin.isnan()
    assert_same({"update": forced.update[where]}, {"update": pin[where]}, exact=True)
    assert_same({"update": forced.update[~where]}, {"update": free.update[~where]}, exact=True)
    assert_same({"hidden": forced.hidden[~where]}, {"hidden": free.hidden[~where]}, exact=True)


@pytest.mark.parametrize(
    ("row", "block"), [(row, block) for row in GATED for block in ROWS[row][1] if block != "candidate"]
)
def test_a_gate_without_weights_is_refused(row, block):
    drawn = draw(row)
    without: dict[str, Any] = {block: None}
    with pytest.raises(ValueError, match="needs the weights of both of its gates; one of them is None"):
        run(row, drawn._replace(weights=drawn.weights._replace(**without)))


# ---------------------------------------------------------------------------------------------------------------------
# Any dtype, any leading axes, differentiable


@every_row
@pytest.mark.parametrize("dtype", TOLERANCES)
def test_every_dtype_runs_and_stays_itself(row, dtype):
    drawn = draw(row)

    def rounded(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else (tensor / 4).to(dtype)

    def cast(to: torch.dtype) -> Drawn:
        weights = Weights(
            *(
                None
                if block is None
                else Affine(*(None if part is None else part.to(to) for part in map(rounded, block)))  # type: ignore[arg-type]
                for block in drawn.weights
            )
        )
        return Drawn((drawn.x / 4).to(dtype).to(to), (drawn.h_prev / 4).to(dtype).to(to), weights)

    assert_same(run(row, cast(dtype))._asdict(), by_hand(row, cast(torch.float64)), dtype=dtype)


@every_row
def test_one_sequence_and_any_leading_axes_are_the_rows_of_a_batch(row):
    drawn = draw(row, batch=(2, 3))
    whole = run(row, drawn)
    for i in range(2):
        for j in range(3):
            one = run(row, Drawn(drawn.x[i, j], drawn.h_prev[i, j], drawn.weights))
            assert one.hidden.shape == (H,)
            assert_same(one._asdict(), {name: value[i, j] for name, value in whole._asdict().items()})


@every_row
def test_a_step_is_differentiable_in_every_weight(row):
    drawn = draw(row)
    leaves = [drawn.x, drawn.h_prev]
    leaves += [part for block in drawn.weights if block is not None for part in block if part is not None]
    for leaf in leaves:
        leaf.requires_grad_()
    gradients = torch.autograd.grad(run(row, drawn).hidden.sum(), leaves, materialize_grads=True)
    for leaf, gradient in zip(leaves, gradients, strict=True):
        assert gradient.isfinite().all()
        assert gradient.any() == (row != "dense" or leaf is not drawn.h_prev)


# ---------------------------------------------------------------------------------------------------------------------
# Properties


def numbers(low: float, high: float) -> st.SearchStrategy[list[float]]:
    return st.lists(st.floats(low, high), min_size=4, max_size=4)


@given(update=numbers(0, 1), candidate=numbers(-1e6, 1e6), h_prev=numbers(-1e6, 1e6))
def test_a_blend_lies_between_the_candidate_and_the_past(update, candidate, h_prev):
    u, c, h = (torch.tensor(values, dtype=torch.float64) for values in (update, candidate, h_prev))
    blended = equations.blend(u, c, h)
    slack = 4 * torch.finfo(torch.float64).eps * torch.maximum(c.abs(), h.abs())
    assert (blended >= torch.minimum(c, h) - slack).all()
    assert (blended <= torch.maximum(c, h) + slack).all()
    assert_same({"blend": blended}, {"blend": h + u * (c - h)})


@pytest.mark.parametrize("row", GATED)
@given(seed=seeds, scale=st.sampled_from([1e-3, 1.0, 30.0, 1e4]))
def test_gates_lie_between_0_and_1(row, seed, scale):
    drawn = draw(row, seed=seed)
    step = run(row, drawn._replace(x=drawn.x * scale))
    for gate in (step.update, step.reset):
        assert ((gate >= 0) & (gate <= 1)).all()


@pytest.mark.parametrize("row", ["update-only", "gru", "gru-reset-before"])
@given(seed=seeds, steps=st.integers(1, 12))
def test_the_state_is_an_average_of_all_candidates_whose_weights_sum_to_1(row, seed, steps):
    """`a(t) = Σ_s w(s,t)*ã(s) + w(init,t)*a(0)` with `w(s,t) = Gu(s) * Π_{k=s+1..t}(1-Gu(k))`."""
    drawn = draw(row, seed=seed)
    inputs = torch.randn(steps, B, I, dtype=torch.float64)
    taken: list[Step] = []
    hidden = drawn.h_prev
    for x in inputs:
        taken.append(run(row, Drawn(x, hidden, drawn.weights)))
        hidden = taken[-1].hidden

    def kept_after(s: int) -> Tensor:
        return torch.stack([torch.ones(B, H, dtype=torch.float64), *(1 - step.update for step in taken[s + 1 :])]).prod(
            0
        )

    weights = [step.update * kept_after(s) for s, step in enumerate(taken)]
    of_init = kept_after(-1)
    state = of_init * drawn.h_prev + sum(
        (weight * step.candidate for weight, step in zip(weights, taken, strict=True)), torch.zeros(B, H)
    )
    total = torch.stack([of_init, *weights])
    assert ((total >= 0) & (total <= 1)).all()
    assert_same({"sum": total.sum(0), "state": state}, {"sum": torch.ones_like(of_init), "state": hidden})
