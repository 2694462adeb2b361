"""The contract of the operators: the memory map is exact, and gates are gates."""

import pytest
import torch

from tests.contract.cases import (
    SMALL,
    WIDE,
    Size,
    draw,
    forward,
)
from tests.contract.common import (
    DENSE,
    both_ways,
    every_backend,
    every_system,
)
from tests.contract.compare import assert_same
from tidegate.gates import DirectionTrace


@pytest.mark.parametrize("size", [SMALL, WIDE, Size(1, 3, 2, 7), Size(63, 3, 5, 7)], ids=str)
@every_system
@every_backend
@both_ways
def test_the_memory_map_sums_to_1_and_rebuilds_every_state(case, size, backend, reverse):
    inputs, mask = draw(case, size), torch.rand(size.T, size.B) < 0.8
    ran = forward(inputs, backend, mask=mask, reverse=reverse)
    seen = DirectionTrace(
        ran["update"], ran["reset"], ran["candidate"], ran["hidden"], inputs.h_0, mask, backward=reverse
    )
    held = torch.cat([inputs.h_0.unsqueeze(0), ran["candidate"]])
    for t in {0, size.T // 2, size.T - 1, -1}:
        memory = seen.memory(t)
        assert memory.shape == (size.T + 1, size.B, size.H)
        assert ((memory >= 0) & (memory <= 1)).all()
        assert not memory[1:][~mask].any()
        unseen = memory[1 : t % size.T + 1] if reverse else memory[t % size.T + 2 :]
        assert not unseen.any()
        got = {"sum": memory.sum(0), "state": (memory * held).sum(0)}
        assert_same(got, {"sum": torch.ones_like(inputs.h_0), "state": ran["hidden"][t]})


@every_system
@every_backend
def test_gates_lie_between_0_and_1_and_a_gate_that_a_system_lacks_is_what_the_system_is_without_it(case, backend):
    ran = forward(draw(case, WIDE), backend)
    for gate in ("update", "reset"):
        assert ((ran[gate] >= 0) & (ran[gate] <= 1)).all()
    assert (ran["update"] == 1).all() == ("update" not in case.blocks)
    assert (ran["reset"] == (0 if case is DENSE else 1)).all() == ("reset" not in case.blocks)
