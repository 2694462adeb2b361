"""The contract of the operators: a sequence is its steps, its chunks and its rows."""

import pytest
import torch

from tests.contract.cases import (
    SMALL,
    Inputs,
    draw,
    forward,
    with_gradients,
)
from tests.contract.common import (
    FLOAT32,
    NOT_FINITE,
    Outputs,
    both_sizes,
    both_ways,
    every_backend,
    every_system,
)
from tests.contract.compare import assert_same
from tidegate.equations import Pinned


@pytest.mark.parametrize("chunks", [(1,) * 9, (4, 5), (1, 8), (2, 3, 4)], ids=str)
@every_system
@every_backend
@both_ways
def test_a_sequence_is_its_steps_and_its_chunks(case, backend, chunks, reverse):
    def chunk_by_chunk(inputs: Inputs) -> Outputs:
        ran = []
        parts = torch.split(inputs.x, list(chunks))
        for x in reversed(parts) if reverse else parts:
            ran.append(forward(inputs.but(x=x), backend, reverse=reverse))
            inputs = inputs.but(h_0=ran[-1]["h_n"])
        ordered = ran[::-1] if reverse else ran
        return {name: torch.cat([part[name] for part in ordered]) for name in ran[0] if name != "h_n"} | {
            "h_n": ran[-1]["h_n"]
        }

    inputs = draw(case, SMALL)
    whole = with_gradients(lambda leaves: forward(leaves, backend, reverse=reverse), inputs, FLOAT32)
    assert_same(with_gradients(chunk_by_chunk, inputs, FLOAT32), whole)


@both_sizes
@every_system
@every_backend
def test_each_row_of_a_batch_is_what_it_is_alone(case, size, backend):
    def row_by_row(inputs: Inputs) -> Outputs:
        rows = [
            forward(inputs.but(x=inputs.x[:, row : row + 1], h_0=inputs.h_0[row : row + 1]), backend)
            for row in range(size.B)
        ]
        return {name: torch.cat([part[name] for part in rows], dim=-2) for name in rows[0]}

    inputs = draw(case, size)
    assert_same(
        with_gradients(row_by_row, inputs, FLOAT32),
        with_gradients(lambda leaves: forward(leaves, backend), inputs, FLOAT32),
    )


@pytest.mark.parametrize("bad", NOT_FINITE)
@both_sizes
@every_system
@every_backend
def test_a_row_that_is_not_finite_leaves_the_other_rows_as_they_were(case, size, backend, bad):
    def others(inputs: Inputs) -> Outputs:
        return {
            name: torch.cat([value[..., :1, :], value[..., 2:, :]], -2)
            for name, value in forward(inputs, backend).items()
        }

    inputs = draw(case, size)
    spoilt_x, spoilt_h_0 = inputs.x.clone(), inputs.h_0.clone()
    spoilt_x[:, 1], spoilt_h_0[1] = bad, bad
    got, expected = others(inputs.but(x=spoilt_x, h_0=spoilt_h_0)), others(inputs)
    assert_same(got, expected, exact=True)


@every_system
@every_backend
def test_a_row_takes_no_gradient_from_another(case, backend):
    def second_row(inputs: Inputs) -> Outputs:
        return {name: value[..., 1, :] for name, value in forward(inputs, backend).items()}

    got = with_gradients(second_row, draw(case, SMALL), FLOAT32)
    assert got["d_x"][:, 1].all()
    assert not got["d_x"][:, [0, 2]].any()
    assert not got["d_h_0"][[0, 2]].any()


@both_sizes
@every_system
@every_backend
def test_an_output_gives_no_gradient_to_a_later_input(case, size, backend):
    def early(inputs: Inputs) -> Outputs:
        return {name: value[:3] for name, value in forward(inputs, backend).items() if name != "h_n"}

    got = with_gradients(early, draw(case, size), FLOAT32)
    assert got["d_x"][:3].any()
    assert not got["d_x"][3:].any()


@both_sizes
@every_system
@every_backend
def test_reverse_is_forward_on_the_flipped_sequence(case, size, backend):
    mask = torch.rand(size.T, size.B) < 0.7
    pins = Pinned(torch.rand(size.T, 1, size.H), torch.rand(size.T, size.B, 1))

    def flipped(inputs: Inputs) -> Outputs:
        forced = Pinned(*(pin.flip(0) for pin in pins))  # type: ignore[union-attr]
        ran = forward(inputs.but(x=inputs.x.flip(0)), backend, mask=mask.flip(0), pins=forced)
        return {name: value if name == "h_n" else value.flip(0) for name, value in ran.items()}

    inputs = draw(case, size)
    got = with_gradients(lambda leaves: forward(leaves, backend, mask=mask, pins=pins, reverse=True), inputs, FLOAT32)
    assert_same(got, with_gradients(flipped, inputs, FLOAT32))
