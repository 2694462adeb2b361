"""The contract of what a step leaves out: values and every gradient are those of formulas written out here."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.contract.cases import SMALL, Inputs, Size, SystemCase, draw, forward, with_gradients
from tests.contract.common import DENSE, FLOAT64, Outputs, both_dtypes, both_ways, every_system
from tests.contract.compare import assert_same
from tidegate import ops
from tidegate.equations import ACTIVATIONS, Dropped
from tidegate.errors import BackendError, InputValueError


def by_hand(inputs: Inputs, m: Tensor, c: Tensor, s: float, *, reverse: bool = False) -> Outputs:
    """The formulas: `m` (B, H) on the state in products, `c` (T, B, H) on the candidate, `s` on the update gate."""
    system, w = inputs.case.system, inputs.weights
    assert w.bias_ih is not None
    H = inputs.h_0.shape[-1]
    assert isinstance(inputs.case.activation, str)
    g = ACTIVATIONS[inputs.case.activation]
    blocks = {"gru": 3, "gru-reset-before": 3, "gru-layer-norm": 3, "update-only": 2}.get(system, 1)

    def normed(value: Tensor, gain: Tensor | None) -> Tensor:
        return value if gain is None else torch.nn.functional.layer_norm(value, (H,), None, None, 1e-5) * gain

    def of(matrix: Tensor, bias: Tensor, gain: Tensor | None, value: Tensor, block: int) -> Tensor:
        rows = slice(block * H, (block + 1) * H)
        return normed(value @ matrix[rows].T, None if gain is None else gain[rows]) + bias[rows]

    def taken(x: Tensor, block: int) -> Tensor:
        assert w.bias_ih is not None
        return of(w.weight_ih, w.bias_ih, w.gain_ih, x, block)

    def carried(h: Tensor, block: int) -> Tensor:
        assert w.weight_hh is not None
        assert w.bias_hh is not None
        return of(w.weight_hh, w.bias_hh, w.gain_hh, h, block)

    T = len(inputs.x)
    rows: list[tuple[Tensor, ...]] = [()] * T
    h = inputs.h_0
    for t in reversed(range(T)) if reverse else range(T):
        x, past, one = inputs.x[t], m * h, torch.ones_like(h)
        Gu, Gr = s * one, one
        if blocks > 1:
            z = torch.sigmoid(taken(x, blocks - 2) + carried(past, blocks - 2))
            Gu = s * (1 - z)
        if blocks > 2:
            Gr = torch.sigmoid(taken(x, 0) + carried(past, 0))
        if system == "dense":
            Gr, new = 0 * one, g(taken(x, 0))
        elif system == "gru-reset-before":
            new = g(taken(x, 2) + carried(Gr * past, 2))
        else:
            new = g(taken(x, blocks - 1) + Gr * carried(past, blocks - 1))
        new = c[t] * new
        h = Gu * new + (1 - Gu) * h
        rows[t] = (h, Gu, Gr, new)
    told = [torch.stack(part) for part in zip(*rows, strict=True)]
    return dict(zip(("hidden", "update", "reset", "candidate"), told, strict=True)) | {"h_n": h}


def factors(size: Size, p: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def drawn(*shape: int) -> Tensor:
        return (torch.rand(shape, generator=generator) >= p) / (1 - p)

    return drawn(size.B, size.H), drawn(size.T, size.B, size.H)


CHOICES: dict[str, Callable[[Tensor, Tensor], tuple[Tensor | None, Tensor | None, float | None]]] = {
    "nothing": lambda _m, _c: (None, None, None),
    "state": lambda m, _c: (m, None, None),
    "candidate": lambda _m, c: (None, c, None),
    "zoneout in evaluation": lambda _m, _c: (None, None, 0.7),
    "all": lambda m, c: (m, c, 0.7),
}


@pytest.mark.parametrize("which", CHOICES)
@every_system
@both_dtypes
@both_ways
def test_values_and_every_gradient_are_those_of_the_formulas(case, which, dtype, reverse):
    inputs, drawn = draw(case, SMALL), factors(SMALL, 0.4)
    m, c, s = CHOICES[which](*drawn)

    def dropped(leaves: Inputs) -> Dropped:
        state, candidate = (None if one is None else one.to(leaves.x) for one in (m, c))
        return Dropped(state, candidate, s)

    def formulas(leaves: Inputs) -> Outputs:
        mask, each = (torch.ones_like(one) if given is None else one for one, given in zip(drawn, (m, c), strict=True))
        return by_hand(leaves, mask.to(leaves.x), each.to(leaves.x), 1.0 if s is None else s, reverse=reverse)

    got = with_gradients(
        lambda leaves: forward(leaves, "reference", dropped=dropped(leaves), reverse=reverse), inputs, dtype
    )
    expected = with_gradients(formulas, inputs, FLOAT64)
    assert_same(got, expected, dtype=dtype, condition=case.condition)


@every_system
@settings(max_examples=15)
@given(
    size=st.builds(Size, *(st.integers(1, most) for most in (5, 4, 5, 6))),
    p=st.sampled_from([0.0, 0.3, 0.9]),
    s=st.sampled_from([0.1, 0.9, 1.0]),
    seed=st.integers(0, 2**16),
)
def test_any_size_and_any_factors_are_those_of_the_formulas(case, size, p, s, seed):
    inputs, (m, c) = draw(case, size), factors(size, p, seed)
    dropped = Dropped(m.double(), c.double(), s)
    got = with_gradients(lambda leaves: forward(leaves, "reference", dropped=dropped), inputs, FLOAT64)
    expected = with_gradients(lambda leaves: by_hand(leaves, m.double(), c.double(), s), inputs, FLOAT64)
    assert_same(got, expected, condition=case.condition)


@pytest.mark.parametrize(
    ("dropped", "reason"),
    [
        (Dropped(state=torch.ones(3, 7)), r"drop nothing of the state .*\(recurrent dropout\)"),
        (Dropped(candidate=torch.ones(9, 3, 7)), r"drop nothing of the candidate"),
        (Dropped(write=0.9), r"do not scale the update gate, as zoneout does in evaluation"),
    ],
    ids=["state", "candidate", "write"],
)
@every_system
def test_the_kernels_refuse_what_they_do_not_leave_out(case, dropped, reason):
    call = draw(case, SMALL).call(dropped=dropped)
    if case.system != "gru-layer-norm":
        with pytest.raises(BackendError, match=rf'^backend "cpu" cannot run this layer: its kernels {reason}$'):
            ops.run(call, "cpu")
    choice = ops.choose(call)
    assert choice.backend == "reference"
    assert "not cpu: its kernels" in choice.reason


def test_the_dense_layer_has_no_past_to_drop():
    inputs, (m, _) = draw(DENSE, SMALL), factors(SMALL, 0.5)
    assert_same(forward(inputs, "reference", dropped=Dropped(state=m)), forward(inputs, "reference"), exact=True)


def test_a_layer_normalised_system_without_gains_is_refused():
    plain = draw(SystemCase("gru", "gru"), SMALL)
    call = Inputs(SystemCase("", "gru-layer-norm"), plain.x, plain.h_0, plain.weights).call()
    with pytest.raises(InputValueError, match=r"^a layer-normalised GRU needs gain_ih and gain_hh in every block"):
        ops.run(call, "reference")
