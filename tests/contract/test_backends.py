"""The contract of the operators: the backend that was meant is the one that ran."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.contract.cases import (
    BACKENDS,
    SMALL,
    Inputs,
    SystemCase,
    draw,
    forward,
    named_outputs,
    plain_loop,
)
from tests.contract.common import (
    FLOAT32,
    GRU,
    GRU_RESET_BEFORE,
    MASKS,
    RNN,
    RNN_RELU,
    UPDATE_ONLY,
    both_ways,
    every_backend,
    every_system,
    pinned_to,
)
from tests.contract.compare import assert_same
from tidegate import ops
from tidegate.errors import BackendError
from tidegate.ops import Call, Pins, Steps, backends, reference
from tidegate.ops.functional import Reset


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Call]]:
    """What each backend was called with."""
    seen: dict[str, list[Call]] = {name: [] for name in BACKENDS}

    def spy(name: str, run: Callable[[Call], Steps]) -> Callable[[Call], Steps]:
        def spied(call: Call) -> Steps:
            seen[name].append(call)
            return run(call)

        return spied

    for name in BACKENDS:
        monkeypatch.setattr(ops.BACKENDS[name], "run", spy(name, ops.BACKENDS[name].run))
    return seen


@every_system
@every_backend
def test_the_backend_that_was_meant_is_the_one_that_ran(case, backend, calls):
    call = draw(case, SMALL).call()
    ops.run(call, backend)
    assert {name: len(ran) for name, ran in calls.items()} == {name: int(name == backend) for name in BACKENDS}
    assert calls[backend][0] is call


@every_system
def test_auto_runs_what_choose_says(case, calls):
    call = draw(case, SMALL).call()
    choice = ops.choose(call)
    ops.run(call)
    assert [name for name, ran in calls.items() if ran] == [choice.backend]
    assert choice.backend in choice.reason


def through(function: Callable[..., Steps], inputs: Inputs, **options: Any) -> Steps:
    """The public function with these inputs, each by its name."""
    return function(**inputs.named(), **options)


RESETS: list[tuple[SystemCase, Reset]] = [(GRU, "after"), (GRU_RESET_BEFORE, "before"), (UPDATE_ONLY, None)]


@pytest.mark.parametrize(("case", "reset"), RESETS, ids=str)
@every_backend
@both_ways
def test_gru_is_the_system_its_reset_names_on_the_backend_it_names(case, reset, backend, reverse, calls):
    inputs, mask, pin = draw(case, SMALL), MASKS["holes"](SMALL), Pins(update=0.6, steps=1)
    options: dict[str, Any] = {"mask": mask, "reverse": reverse}
    got = through(ops.gru, inputs, reset=reset, pins=[pin], gates=True, backend=backend, **options)
    assert [name for name, ran in calls.items() if ran] == [backend]
    expected = plain_loop(inputs.map(Tensor.double), pins=pinned_to(inputs.map(Tensor.double), pin), **options)
    assert_same(named_outputs(got, reverse=reverse), expected, dtype=FLOAT32)


@pytest.mark.parametrize("case", [RNN, RNN_RELU], ids=str)
@every_backend
@both_ways
def test_rnn_is_the_rnn_on_the_backend_it_names(case, backend, reverse, calls):
    inputs, mask, pin = draw(case, SMALL), MASKS["holes"](SMALL), Pins(update=0.6, steps=1)
    options: dict[str, Any] = {"mask": mask, "reverse": reverse}
    g = case.activation
    got = through(ops.rnn, inputs, activation=g, pins=[pin], gates=True, backend=backend, **options)
    assert [name for name, ran in calls.items() if ran] == [backend]
    expected = plain_loop(inputs.map(Tensor.double), pins=pinned_to(inputs.map(Tensor.double), pin), **options)
    assert_same(named_outputs(got, reverse=reverse), expected, dtype=FLOAT32)


@every_backend
def test_gru_and_rnn_work_without_biases_and_give_no_gates_unless_asked(backend):
    for case, function in ((GRU, ops.gru), (RNN, ops.rnn)):
        inputs = draw(case, SMALL, bias=False)
        steps = through(function, inputs, backend=backend)
        assert steps[1:] == (None, None, None)
        assert_same({"hidden": steps.hidden}, {"hidden": forward(inputs, backend)["hidden"]}, exact=True)


@every_system
def test_a_backend_that_does_not_exist_raises_and_nothing_runs(case, calls):
    inputs = draw(case, SMALL)
    with pytest.raises(BackendError, match=r"backend must be one of \"auto\", .*; got 'nonsense'"):
        ops.run(inputs.call(), "nonsense")
    with pytest.raises(BackendError, match="nonsense"):
        through(ops.gru, draw(GRU, SMALL), backend="nonsense")
    with pytest.raises(BackendError, match="nonsense"):
        through(ops.rnn, draw(RNN, SMALL), backend="nonsense")
    assert not any(calls.values())


def stand_in(name: str, refusal: str | None) -> ModuleType:
    """A backend that refuses with a sentence, or runs and says so by a state of nines."""
    module = ModuleType(name)
    module.unsupported = lambda call: refusal  # type: ignore[attr-defined]
    module.remark = lambda call: None  # type: ignore[attr-defined]
    module.run = lambda call: Steps(torch.full((*call.x.shape[:2], call.h_0.shape[1]), 9.0))  # type: ignore[attr-defined]
    return module


def test_a_named_backend_that_cannot_run_raises_with_its_reason_and_auto_goes_on_to_the_next(monkeypatch):
    slow = {"lame": stand_in("lame", "it is lame today"), "reference": reference}
    monkeypatch.setattr(backends, "BACKENDS", slow)
    call = draw(GRU, SMALL).call()
    with pytest.raises(BackendError, match='backend "lame" cannot run this layer: it is lame today'):
        ops.run(call, "lame")
    choice = ops.choose(call)
    assert choice.backend == "reference"
    assert "it is lame today" in choice.reason
    assert_same({"hidden": ops.run(call).hidden}, {"hidden": ops.run(call, "reference").hidden}, exact=True)


def test_auto_takes_the_first_backend_that_can_and_a_name_overrules_it(monkeypatch):
    monkeypatch.setattr(backends, "BACKENDS", {"swift": stand_in("swift", None), "reference": reference})
    call = draw(GRU, SMALL).call()
    assert (ops.run(call).hidden == 9).all()
    assert not (ops.run(call, "reference").hidden == 9).any()


def test_auto_raises_with_every_reason_where_no_backend_can(monkeypatch):
    lame = {"one": stand_in("one", "it rains"), "two": stand_in("two", "it snows")}
    monkeypatch.setattr(backends, "BACKENDS", lame)
    with pytest.raises(BackendError, match="not one: it rains; not two: it snows"):
        ops.run(draw(GRU, SMALL).call())
