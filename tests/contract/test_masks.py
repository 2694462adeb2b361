"""The contract of the operators: a masked sequence is the sequence without those steps."""

import pytest
import torch
from torch import Tensor

from tests.contract.cases import (
    SMALL,
    Inputs,
    draw,
    forward,
    with_gradients,
)
from tests.contract.common import (
    FLOAT32,
    MASKS,
    NOT_FINITE,
    Outputs,
    both_sizes,
    both_ways,
    every_backend,
    every_system,
)
from tests.contract.compare import assert_same


def without_masked_steps(inputs: Inputs, mask: Tensor, backend: str, reverse: bool) -> Outputs:
    """Every row run by itself on the steps that its mask leaves, and laid out as the masked run lays it out."""
    T, B = mask.shape
    rows: list[Outputs] = []
    for row in range(B):
        used = mask[:, row].nonzero().flatten().tolist()
        h_0 = inputs.h_0[row : row + 1]
        ran = (
            {}
            if not used
            else forward(inputs.but(x=inputs.x[used][:, row : row + 1], h_0=h_0), backend, reverse=reverse)
        )
        state, parts = h_0, []
        for t in range(T - 1, -1, -1) if reverse else range(T):
            if t in used:
                at = used.index(t)
                state = ran["hidden"][at]
                gates = [ran[name][at] for name in ("update", "reset", "candidate")]
            else:
                gates = [torch.zeros_like(state)] * 3
            parts.append((state, *gates))
        ordered = parts[::-1] if reverse else parts
        names = ("hidden", "update", "reset", "candidate")
        rows.append({name: torch.stack(values) for name, values in zip(names, zip(*ordered, strict=True), strict=True)})
        rows[-1]["h_n"] = state
    return {name: torch.cat([part[name] for part in rows], dim=-2) for name in rows[0]}


@pytest.mark.parametrize("kind", MASKS)
@every_system
@every_backend
@both_ways
def test_a_masked_sequence_is_the_sequence_without_those_steps(case, backend, kind, reverse):
    inputs, mask = draw(case, SMALL), MASKS[kind](SMALL)
    got = with_gradients(lambda leaves: forward(leaves, backend, mask=mask, reverse=reverse), inputs, FLOAT32)
    expected = with_gradients(lambda leaves: without_masked_steps(leaves, mask, backend, reverse), inputs, FLOAT32)
    assert_same(got, expected)


@pytest.mark.parametrize("bad", NOT_FINITE)
@both_sizes
@every_system
@every_backend
@both_ways
def test_the_input_under_a_mask_may_be_anything_and_gets_a_gradient_of_exactly_zero(case, size, backend, bad, reverse):
    inputs, mask = draw(case, size), MASKS["holes"](size)
    spoilt = inputs.but(x=torch.where(mask.unsqueeze(-1), inputs.x, bad))
    got, expected = (
        with_gradients(lambda leaves: forward(leaves, backend, mask=mask, reverse=reverse), each, FLOAT32)
        for each in (spoilt, inputs)
    )
    assert_same(got, expected, exact=True)
    assert not got["d_x"][~mask].any()
    assert got["d_x"][mask].any()


@every_system
@every_backend
def test_a_mask_holds_the_state_to_the_bit_and_gives_no_gate(case, backend):
    inputs, mask = draw(case, SMALL), MASKS["holes"](SMALL)
    inputs.h_0[:, 0] = -0.0
    ran = forward(inputs, backend, mask=mask)
    before = torch.cat([inputs.h_0.unsqueeze(0), ran["hidden"][:-1]])
    assert_same({"held": ran["hidden"][~mask]}, {"held": before[~mask]}, exact=True)
    for gate in ("update", "reset", "candidate"):
        assert not ran[gate][~mask].any()


@every_system
@every_backend
def test_a_mask_of_all_true_is_no_mask_to_the_bit(case, backend):
    inputs, mask = draw(case, SMALL), MASKS["everything"](SMALL)
    got, expected = forward(inputs, backend, mask=mask), forward(inputs, backend)
    assert_same(got, expected, exact=True)
