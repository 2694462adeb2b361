"""The contract of the operators: where the state is reset, a sequence is its pieces, run apart."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.contract.cases import SMALL, SYSTEMS, Inputs, Size, draw, forward, plain_loop, values, with_gradients
from tests.contract.common import FLOAT32, FLOAT64, Outputs, both_dtypes, both_ways, every_backend, every_system
from tests.contract.compare import assert_same
from tidegate.equations import Dropped, Pinned
from tidegate.ops import cpu, reference
from tidegate.ops.pieces import piece_by_piece

NAMES = ("hidden", "update", "reset", "candidate")


def in_pieces(
    inputs: Inputs, resets: Tensor, backend: str, reverse: bool, mask: Tensor | None = None, pins: Pinned | None = None
) -> Outputs:
    """Each row cut where it is reset, each piece run by itself from `h_0`, and all laid beside each other."""
    T, B = resets.shape
    rows = []
    for row in range(B):
        order = range(T - 1, -1, -1) if reverse else range(T)
        pieces: list[list[int]] = []
        for t in order:
            if not pieces or resets[t, row]:
                pieces.append([])
            pieces[-1].append(t)
        parts: dict[int, list[Tensor]] = {}
        for piece in pieces:
            steps = sorted(piece)
            options: dict[str, Any] = {"reverse": reverse}
            if mask is not None:
                options["mask"] = mask[steps][:, row : row + 1]
            if pins is not None:
                options["pins"] = Pinned(*(None if pin is None else pin[steps] for pin in pins))
            alone = inputs.but(x=inputs.x[steps][:, row : row + 1], h_0=inputs.h_0[row : row + 1])
            ran = forward(alone, backend, **options)
            parts |= {t: [ran[name][i] for name in NAMES] for i, t in enumerate(steps)}
        told = [torch.stack(each) for each in zip(*(parts[t] for t in range(T)), strict=True)]
        rows.append(dict(zip(NAMES, told, strict=True)) | {"h_n": ran["h_n"]})
    return {name: torch.cat([row[name] for row in rows], -2) for name in (*NAMES, "h_n")}


def some_resets(size: Size) -> Tensor:
    """Rows without a reset, with one everywhere, and with a few: a single step, the first, the last, neighbours."""
    resets = torch.rand(size.T, size.B) < 0.3
    resets[:, 0], resets[:, -1] = False, True
    return resets


@every_system
@every_backend
@both_ways
def test_a_sequence_with_resets_is_its_pieces(case, backend, reverse):
    inputs, resets = draw(case, SMALL), some_resets(SMALL)
    got = with_gradients(lambda leaves: forward(leaves, backend, resets=resets, reverse=reverse), inputs, FLOAT32)
    expected = with_gradients(lambda leaves: in_pieces(leaves, resets, backend, reverse), inputs, FLOAT32)
    assert_same(got, expected, condition=case.condition)
    if backend != "reference":  # torch's products depend on the batch, by rounding
        assert_same(values(got), values(expected), exact=True)


@every_system
@every_backend
@both_ways
def test_masks_and_pins_stay_where_they_are(case, backend, reverse):
    inputs, resets = draw(case, SMALL), some_resets(SMALL)
    mask = torch.rand(SMALL.T, SMALL.B) < 0.6
    update = torch.tensor([0.0, 1.0, 0.6, torch.nan])[torch.randint(0, 4, (SMALL.T, 1, SMALL.H))]
    pins = Pinned(update, torch.full((SMALL.T, 1, 1), 0.5))
    options: dict[str, Any] = {"resets": resets, "reverse": reverse, "mask": mask, "pins": pins}
    got = with_gradients(lambda leaves: forward(leaves, backend, **options), inputs, FLOAT32)
    expected = with_gradients(lambda leaves: in_pieces(leaves, resets, backend, reverse, mask, pins), inputs, FLOAT32)
    assert_same(got, expected, condition=case.condition)


@every_system
@every_backend
@both_ways
def test_the_gradient_of_the_initial_state_is_the_sum_over_the_pieces(case, backend, reverse):
    inputs, T = draw(case, SMALL), SMALL.T
    resets = torch.zeros(T, SMALL.B, dtype=torch.bool)
    resets[4 if not reverse else 3] = True  # the same two pieces, either way

    def gradient(part: slice) -> Tensor:
        leaf = inputs.but(h_0=inputs.h_0.clone().requires_grad_(), x=inputs.x[part])
        ran = forward(leaf, backend, reverse=reverse, **({"resets": resets} if part == slice(None) else {}))
        return torch.autograd.grad(ran["hidden"].sum(), leaf.h_0)[0]

    both = gradient(slice(0, 4)) + gradient(slice(4, None))
    assert_same({"d_h_0": gradient(slice(None))}, {"d_h_0": both}, condition=case.condition)


@every_system
@every_backend
def test_a_reset_before_the_first_step_is_none(case, backend):
    inputs, resets = draw(case, SMALL), torch.zeros(SMALL.T, SMALL.B, dtype=torch.bool)
    resets[0] = True
    assert_same(forward(inputs, backend, resets=resets), forward(inputs, backend), exact=True)


@every_system
@every_backend
def test_what_comes_before_a_reset_is_out_of_reach(case, backend):
    inputs, resets = draw(case, SMALL), torch.zeros(SMALL.T, SMALL.B, dtype=torch.bool)
    resets[5] = True

    def late(leaves: Inputs) -> Outputs:
        return {name: value[5:] for name, value in forward(leaves, backend, resets=resets).items() if name != "h_n"}

    got = with_gradients(late, inputs, FLOAT32)
    assert got["d_x"][5:].any()
    assert not got["d_x"][:5].any()
    other = inputs.but(x=torch.cat([torch.randn_like(inputs.x[:5]), inputs.x[5:]]))
    assert_same(late(other), late(inputs), exact=True)


@every_system
@every_backend
@both_dtypes
@settings(max_examples=12)
@given(
    size=st.builds(Size, *(st.integers(1, most) for most in (9, 4, 5, 6))),
    share=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    seed=st.integers(0, 2**16),
    reverse=st.booleans(),
)
def test_any_size_and_any_resets_are_those_of_the_equations(case, backend, dtype, size, share, seed, reverse):
    generator = torch.Generator().manual_seed(seed)
    resets = torch.rand(size.T, size.B, generator=generator) < share
    options: dict[str, Any] = {"resets": resets, "reverse": reverse}
    inputs = draw(case, size)
    got = with_gradients(lambda leaves: forward(leaves, backend, **options), inputs, dtype)
    expected = with_gradients(lambda leaves: plain_loop(leaves, **options), inputs, FLOAT64)
    assert_same(got, expected, dtype=dtype, condition=case.condition)


def what_is_dropped(leaves: Inputs, *, state: bool) -> Dropped:
    """Random factors, the same at every call."""
    generator, (T, B, _), H = torch.Generator().manual_seed(0), leaves.x.shape, leaves.h_0.shape[-1]
    m, c = ((torch.rand(shape, generator=generator) < 0.6).to(leaves.x) / 0.6 for shape in ((B, H), (T, B, H)))
    return Dropped(m if state else None, c, 0.7)


@every_system
@every_backend
@both_ways
def test_what_is_dropped_goes_with_resets(case, backend, reverse):
    inputs, resets = draw(case, SMALL), some_resets(SMALL)
    state = backend == "reference"

    def options(leaves: Inputs) -> dict[str, Any]:
        return {"resets": resets, "reverse": reverse, "dropped": what_is_dropped(leaves, state=state)}

    got = with_gradients(lambda leaves: forward(leaves, backend, **options(leaves)), inputs, FLOAT64)
    expected = with_gradients(lambda leaves: plain_loop(leaves, **options(leaves)), inputs, FLOAT64)
    assert_same(got, expected, condition=case.condition)


@every_system
@both_ways
def test_pieces_have_their_own_part_of_what_is_dropped(case, reverse):
    inputs, resets = draw(case, SMALL), some_resets(SMALL)
    call = inputs.call(resets=resets, reverse=reverse, gates=True, dropped=what_is_dropped(inputs, state=True))
    got, expected = (steps._asdict() for steps in (piece_by_piece(call, reference.run), reference.run(call)))
    assert_same(got, expected, dtype=FLOAT32, condition=case.condition)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_the_kernels_run_the_pieces_themselves(dtype, monkeypatch):
    """Many pieces of any lengths take few calls, and no step of reference."""
    shapes: list[tuple[int, ...]] = []
    recurrence = cpu.operators.recurrence

    def watched(*given: Any) -> Any:
        shapes.append(tuple(given[1].shape))
        return recurrence(*given)

    monkeypatch.setattr(cpu, "recurrence", watched)
    inputs = draw(next(case for case in SYSTEMS if case.name == "gru"), Size(64, 5, 3, 7)).map(
        lambda one: one.to(dtype)
    )
    resets = torch.rand(64, 5) < 0.2
    forward(inputs, "cpu", resets=resets)
    assert 1 < len(shapes) <= 7
    pieces = int((resets | (torch.arange(64) == 0).unsqueeze(-1)).sum())
    assert sum(shape[1] for shape in shapes) == pieces
    assert sum(shape[0] * shape[1] for shape in shapes) < 2 * 64 * 5
