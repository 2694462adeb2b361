"""The poison works: a backend that leaves a number of its output unwritten cannot pass, whatever the memory held."""

from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from torch import Tensor

from tests.contract.cases import SMALL, draw, forward, plain_loop, with_gradients
from tests.contract.common import FLOAT32, GRU, every_system
from tests.contract.compare import assert_same
from tests.contract.conftest import memory, poison
from tidegate.ops import Call, Steps, backends, reference


def stand_in(run: Callable[[Call], Steps]) -> ModuleType:
    """A backend that takes every call."""
    module = ModuleType("forgetful")
    module.unsupported = module.remark = lambda call: None  # type: ignore[attr-defined]
    module.run = run  # type: ignore[attr-defined]
    return module


def writing(rows: slice) -> Callable[[Call], Steps]:
    """The reference, which writes only these rows of each output into memory that it allocates."""

    def run(call: Call) -> Steps:
        def written(right: Tensor | None) -> Tensor | None:
            if right is None:
                return None
            output = torch.empty_like(right)
            output[rows] = right[rows]
            return output

        hidden, *gates = reference.run(call)
        output = written(hidden)
        assert output is not None
        return Steps(output, *map(written, gates))

    return run


def answer(monkeypatch: pytest.MonkeyPatch, case, run: Callable[[Call], Steps]) -> dict[str, Tensor]:
    monkeypatch.setattr(backends, "BACKENDS", {"forgetful": stand_in(run)})
    return forward(draw(case, SMALL), "forgetful")


def expected(case) -> dict[str, Tensor]:
    return plain_loop(draw(case, SMALL).map(Tensor.double))


@every_system
def test_a_backend_that_writes_everything_passes(case, monkeypatch):
    assert_same(answer(monkeypatch, case, writing(slice(None))), expected(case), dtype=FLOAT32)


@every_system
def test_a_backend_that_writes_nothing_is_rejected_in_every_output(case, monkeypatch):
    with pytest.raises(AssertionError, match="not finite") as caught:
        assert_same(answer(monkeypatch, case, writing(slice(0))), expected(case), dtype=FLOAT32)
    for name in expected(case):
        assert f"\n  {name} has " in str(caught.value)


@every_system
@pytest.mark.parametrize("rows", [slice(1, None), slice(0, -1)], ids=["all but the first", "all but the last"])
def test_one_forgotten_step_is_rejected(case, rows, monkeypatch):
    place = r"\(0, 0, 0\)" if rows.start else rf"\({SMALL.T - 1}, 0, 0\)"
    with pytest.raises(AssertionError, match=f"hidden has .* not finite, first at {place}"):
        assert_same(answer(monkeypatch, case, writing(rows)), expected(case), dtype=FLOAT32)


class ForgetsAGradient(torch.autograd.Function):
    """The identity, whose backward allocates a gradient and leaves it unwritten."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx, *gradients: Tensor) -> Tensor:
        return torch.empty_like(gradients[0])


def test_a_gradient_that_is_not_written_is_rejected():
    def forgetful(inputs):
        return plain_loop(inputs.but(x=ForgetsAGradient.apply(inputs.x)))

    got, right = (with_gradients(compute, draw(GRU, SMALL), torch.float64) for compute in (forgetful, plain_loop))
    with pytest.raises(AssertionError, match=r"1 of 11 differ:\n  d_x has .* not finite"):
        assert_same(got, right)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(
    "allocate",
    [
        lambda old: torch.empty(old.shape, dtype=old.dtype),
        torch.empty_like,
        lambda old: old.new_empty(old.shape),
        lambda old: torch.empty_strided(old.shape, old.stride(), dtype=old.dtype),
    ],
    ids=["empty", "empty_like", "new_empty", "empty_strided"],
)
def test_every_way_to_unwritten_memory_is_poisoned(allocate, dtype):
    assert allocate(torch.ones(50, 70, dtype=dtype)).isnan().all()


def test_the_settings_are_as_they_were_afterwards_even_after_an_error():
    def settings() -> tuple[bool, bool, bool]:
        return (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
            memory.fill_uninitialized_memory,
        )

    def poisoned_until_an_error() -> None:
        with poison():
            assert settings() == (True, False, True)
            raise ZeroDivisionError

    before = settings()
    try:
        for deterministic, warn_only, fill in ((False, False, False), (True, True, False), (True, False, True)):
            torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
            memory.fill_uninitialized_memory = fill
            with pytest.raises(ZeroDivisionError):
                poisoned_until_an_error()
            assert settings() == (deterministic, warn_only, fill)
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        memory.fill_uninitialized_memory = before[2]


def test_the_contract_itself_runs_poisoned():
    assert torch.empty(3).isnan().all()
