"""The contract of what a step leaves out: values and every gradient are those of formulas written out here."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.contract.cases import SMALL, WIDE, Inputs, Size, SystemCase, draw, forward, plain_loop, with_gradients
from tests.contract.common import (
    DENSE,
    FLOAT32,
    FLOAT64,
    GRU_LAYER_NORM,
    Outputs,
    both_dtypes,
    both_sizes,
    both_ways,
    every_backend,
    every_system,
)
from tests.contract.compare import assert_same
from tidegate import ops
from tidegate.equations import ACTIVATIONS, Dropped, Pinned
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


def refused(inputs: Inputs, backend: str, dropped: Dropped) -> bool:
    """Whether the backend refuses the call; only what drops the state may be."""
    call = inputs.call(dropped=dropped)
    if ops.BACKENDS[backend].unsupported(call) is None:
        return False
    assert dropped.state is not None
    with pytest.raises(BackendError, match="drop nothing of the state"):
        ops.run(call, backend)
    return True


CHOICES: dict[str, Callable[[Tensor, Tensor], tuple[Tensor | None, Tensor | None, float | None]]] = {
    "nothing": lambda _m, _c: (None, None, None),
    "state": lambda m, _c: (m, None, None),
    "candidate": lambda _m, c: (None, c, None),
    "zoneout in evaluation": lambda _m, _c: (None, None, 0.7),
    "candidate and zoneout": lambda _m, c: (None, c, 0.7),
    "all": lambda m, c: (m, c, 0.7),
}


@pytest.mark.parametrize("which", CHOICES)
@every_system
@every_backend
@both_dtypes
@both_ways
def test_values_and_every_gradient_are_those_of_the_formulas(case, which, backend, dtype, reverse):
    inputs, drawn = draw(case, WIDE), factors(WIDE, 0.4)
    m, c, s = CHOICES[which](*drawn)

    def dropped(leaves: Inputs) -> Dropped:
        state, candidate = (None if one is None else one.to(leaves.x) for one in (m, c))
        return Dropped(state, candidate, s)

    def formulas(leaves: Inputs) -> Outputs:
        mask, each = (torch.ones_like(one) if given is None else one for one, given in zip(drawn, (m, c), strict=True))
        return by_hand(leaves, mask.to(leaves.x), each.to(leaves.x), 1.0 if s is None else s, reverse=reverse)

    if refused(inputs, backend, dropped(inputs)):
        return
    got = with_gradients(
        lambda leaves: forward(leaves, backend, dropped=dropped(leaves), reverse=reverse), inputs, dtype
    )
    expected = with_gradients(formulas, inputs, FLOAT64)
    assert_same(got, expected, dtype=dtype, condition=case.condition)


@every_system
@every_backend
@settings(max_examples=15)
@given(
    size=st.builds(Size, *(st.integers(1, most) for most in (5, 4, 5, 6))),
    p=st.sampled_from([0.0, 0.3, 0.9]),
    s=st.sampled_from([0.1, 0.9, 1.0]),
    seed=st.integers(0, 2**16),
)
def test_any_size_and_any_factors_are_those_of_the_formulas(case, backend, size, p, s, seed):
    inputs, (m, c) = draw(case, size), factors(size, p, seed)
    if refused(inputs, backend, Dropped(state=m)):
        m = torch.ones_like(m)
    dropped = Dropped(m.double() if (m != 1).any() else None, c.double(), s)
    got = with_gradients(lambda leaves: forward(leaves, backend, dropped=dropped), inputs, FLOAT64)
    expected = with_gradients(lambda leaves: by_hand(leaves, m.double(), c.double(), s), inputs, FLOAT64)
    assert_same(got, expected, condition=case.condition)


@st.composite
def all_that_steers(draw_from: st.DrawFn) -> tuple[Size, dict[str, Any]]:
    """A size, and any factors of the candidate and the update gate with any mask, pins and direction."""
    T, B, I, H = (draw_from(st.integers(1, most), label=axis) for axis, most in zip("TBIH", (6, 6, 5, 9), strict=True))
    generator = torch.Generator().manual_seed(draw_from(st.integers(0, 2**16), label="seed"))
    shapes = st.sampled_from([None, (T, 1, 1), (T, B, 1), (T, 1, H), (T, B, H)])

    def one_of(numbers: list[float], shape: tuple[int, ...] | None) -> Tensor | None:
        return None if shape is None else torch.tensor(numbers)[torch.randint(len(numbers), shape, generator=generator)]

    pins = Pinned(*(one_of([0.0, 1.0, 0.6, torch.nan, torch.nan], draw_from(shapes)) for _ in range(2)))
    mask = torch.rand(T, B, generator=generator) < 0.7 if draw_from(st.booleans(), label="masked") else None
    factor, write = one_of([0.0, 2.0, 1.25], draw_from(shapes)), draw_from(st.sampled_from([None, 0.3, 0.9]))
    reverse = draw_from(st.booleans(), label="reverse")
    return Size(T, B, I, H), {"mask": mask, "pins": pins, "dropped": Dropped(None, factor, write), "reverse": reverse}


@every_system
@every_backend
@both_dtypes
@settings(max_examples=20)
@given(drawn=all_that_steers())
def test_factors_go_with_any_mask_pins_and_direction(case, backend, dtype, drawn):
    if case is GRU_LAYER_NORM and dtype == FLOAT32:
        pytest.skip("two units that hardly differ, normalised in float32, may be anything")
    size, options = drawn

    def in_dtype(leaves: Inputs) -> dict[str, Any]:
        factor, pins = options["dropped"].candidate, options["pins"]
        return {
            **options,
            "pins": Pinned(*(None if pin is None else pin.to(leaves.x) for pin in pins)),
            "dropped": options["dropped"]._replace(candidate=None if factor is None else factor.to(leaves.x)),
        }

    inputs = draw(case, size)
    got = with_gradients(lambda leaves: forward(leaves, backend, **in_dtype(leaves)), inputs, dtype)
    expected = with_gradients(lambda leaves: plain_loop(leaves, **in_dtype(leaves)), inputs, FLOAT64)
    assert_same(got, expected, dtype=dtype, condition=case.condition)


@every_system
@every_backend
@both_sizes
@both_dtypes
@pytest.mark.parametrize("ones", ["write", "candidate", "both"])
def test_factors_of_1_change_no_bit(case, backend, size, dtype, ones):
    inputs = draw(case, size)

    def dropped(leaves: Inputs) -> Dropped:
        candidate = None if ones == "write" else leaves.x.new_ones(size.T, size.B, size.H)
        return Dropped(candidate=candidate, write=None if ones == "candidate" else 1.0)

    got = with_gradients(lambda leaves: forward(leaves, backend, dropped=dropped(leaves)), inputs, dtype)
    assert_same(got, with_gradients(lambda leaves: forward(leaves, backend), inputs, dtype), exact=True)


@every_backend
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@every_system
def test_a_scaled_gate_at_0_still_holds_whatever_comes_in(case, backend, bad):
    inputs = draw(case, SMALL)
    inputs = inputs.but(x=torch.full_like(inputs.x, bad))
    options: dict[str, Any] = {"dropped": Dropped(write=0.7), "pins": Pinned(update=torch.zeros(SMALL.T, 1, 1))}
    got = with_gradients(lambda leaves: forward(leaves, backend, gates=False, **options), inputs, FLOAT64)
    held = {"hidden": inputs.h_0.double().expand(SMALL.T, -1, -1)}
    assert_same({"hidden": got["hidden"]}, held, exact=True)
    assert all(value.isfinite().all() for value in got.values())


@pytest.mark.parametrize(
    ("dropped", "reason"),
    [
        (Dropped(state=torch.ones(3, 7)), r"drop nothing of the state .*\(recurrent dropout\)"),
        (Dropped(torch.ones(3, 7), torch.ones(9, 3, 7), 0.9), r"drop nothing of the state .*\(recurrent dropout\)"),
    ],
    ids=["state", "all"],
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
