"""The contract of the operators: layouts, threads, repeats and saved states change nothing."""

import threading
from collections.abc import Callable

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from tests.contract.cases import (
    SMALL,
    SYSTEMS,
    WIDE,
    Inputs,
    Size,
    draw,
    forward,
    values,
    with_gradients,
)
from tests.contract.common import (
    DENSE,
    FLOAT32,
    MASKS,
    Outputs,
    both_dtypes,
    both_sizes,
    every_backend,
    every_system,
)
from tests.contract.compare import assert_same
from tidegate import ops
from tidegate.equations import Pinned


def transposed(tensor: Tensor) -> Tensor:
    return tensor.transpose(0, -1).contiguous().transpose(0, -1)


def strided(tensor: Tensor) -> Tensor:
    return torch.stack([tensor, torch.full_like(tensor, torch.nan)], -1)[..., 0]


def offset(tensor: Tensor) -> Tensor:
    return torch.cat([tensor.new_full((1,), torch.nan), tensor.flatten()])[1:].view(tensor.shape)


@pytest.mark.parametrize("layout", [transposed, strided, offset])
@both_sizes
@every_system
@every_backend
def test_the_layout_in_memory_changes_nothing(case, size, backend, layout):
    inputs, mask = draw(case, size), MASKS["holes"](size)
    pin = torch.rand(size.T, size.B, size.H)
    got = with_gradients(
        lambda leaves: forward(
            leaves.map(layout), backend, mask=layout(mask.float()) > 0, pins=Pinned(layout(pin), None)
        ),
        inputs,
        FLOAT32,
    )
    expected = with_gradients(
        lambda leaves: forward(leaves, backend, mask=mask, pins=Pinned(pin, None)), inputs, FLOAT32
    )
    assert_same(got, expected)


@every_system
@every_backend
def test_expanded_tensors_are_what_they_repeat(case, backend):
    def expanded(inputs: Inputs, repeat: Callable[[Tensor, Size], Tensor]) -> Outputs:
        one = inputs.but(x=inputs.x[:1, :1], h_0=inputs.h_0[:1])
        return forward(one.but(x=repeat(one.x, SMALL), h_0=repeat(one.h_0, SMALL)), backend)

    def expand(tensor: Tensor, size: Size) -> Tensor:
        return tensor.expand(*([size.T] if tensor.ndim == 3 else []), size.B, -1)

    inputs = draw(case, SMALL)
    got = with_gradients(lambda leaves: expanded(leaves, expand), inputs, FLOAT32)
    copied = with_gradients(lambda leaves: expanded(leaves, lambda *given: expand(*given).clone()), inputs, FLOAT32)
    assert_same(got, copied)


@every_system
@every_backend
def test_a_call_changes_none_of_its_inputs_and_repeats_to_the_bit(case, backend):
    inputs, mask = draw(case, SMALL), MASKS["holes"](SMALL)
    pins = Pinned(torch.rand(SMALL.T, SMALL.B, SMALL.H), None)
    before = inputs.map(torch.clone).named() | {"mask": mask.float(), "pin": pins.update}

    def run_once() -> Outputs:
        return with_gradients(lambda leaves: forward(leaves, backend, mask=mask, pins=pins), inputs, FLOAT32)

    first = run_once()
    assert_same(run_once(), first, exact=True)
    for _ in range(2):  # without gradients, on these very tensors
        assert_same(forward(inputs, backend, mask=mask, pins=pins), values(first), exact=True)
    assert_same(inputs.named() | {"mask": mask.float(), "pin": pins.update}, before, exact=True)


@every_system
@every_backend
def test_writing_into_a_result_leaves_the_input_alone(case, backend):
    inputs = draw(case, SMALL)
    before = inputs.map(torch.clone).named()
    ran = ops.run(inputs.call(mask=MASKS["nothing"](SMALL), gates=True), backend)
    for value in ran:
        assert value is not None
        value.fill_(9)
    assert_same(inputs.named(), before, exact=True)


@every_system
@every_backend
def test_inference_gives_the_values_of_training(case, backend):
    inputs = draw(case, WIDE)
    expected = with_gradients(lambda leaves: forward(leaves, backend), inputs, FLOAT32)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            got = forward(inputs, backend)
        assert not any(value.requires_grad for value in got.values())
        assert_same(got, values(expected), exact=True)


# A dense layer's first state has no influence, so that alone it need not have a gradient at all.
LEAVES = [(case, name) for case in SYSTEMS for name in draw(case, SMALL).named() if (case, name) != (DENSE, "h_0")]


@pytest.mark.parametrize(("case", "name"), LEAVES, ids=str)
@every_backend
def test_a_gradient_that_alone_is_asked_for_is_the_same(case, backend, name):
    inputs = draw(case, SMALL)

    def with_one_leaf(leaves: Inputs) -> Outputs:
        return forward(inputs.but(**{name: leaves.named()[name]}), backend)

    alone = with_gradients(with_one_leaf, inputs, FLOAT32)
    expected = with_gradients(lambda leaves: forward(leaves, backend), inputs, FLOAT32)
    assert_same({name: alone[f"d_{name}"]}, {name: expected[f"d_{name}"]})


@every_system
@every_backend
@both_dtypes
def test_a_state_that_was_saved_and_loaded_carries_on_to_the_bit(case, backend, dtype):
    inputs = draw(case, SMALL).map(lambda tensor: tensor.to(dtype))
    first = forward(inputs.but(x=inputs.x[:4]), backend)["h_n"]
    loaded = load(save({"h_n": first.contiguous(), **{name: t.contiguous() for name, t in inputs.named().items()}}))
    restored = inputs.but(**{name: loaded[name] for name in inputs.named() if name != "h_0"})

    def carry_on(inputs: Inputs, h_n: Tensor) -> Outputs:
        # in memory of their own: a library's products may round by where in a cache line their numbers begin
        return forward(inputs.but(x=inputs.x[4:], h_0=h_n).map(Tensor.clone), backend)

    got = carry_on(restored, loaded["h_n"])
    assert_same(got, carry_on(inputs, first), exact=True)
    whole = forward(inputs, backend)
    assert_same({"h_n": got["h_n"]}, {"h_n": whole["h_n"]})


@every_system
@every_backend
def test_two_threads_calling_at_once_get_the_answers_they_get_alone(case, backend):
    rounds = 4
    work = [draw(case, Size(12, 3, 5, 16), seed=seed) for seed in range(2)]

    def compute(inputs: Inputs) -> Outputs:
        return with_gradients(lambda leaves: forward(leaves, backend), inputs, FLOAT32)

    alone = [compute(inputs) for inputs in work]
    together: list[list[Outputs]] = [[], []]
    start = threading.Barrier(2, timeout=60)

    def call(which: int) -> None:
        for _ in range(rounds):
            start.wait()
            together[which].append(compute(work[which]))

    threads = [threading.Thread(target=call, args=(which,)) for which in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    for which in range(2):
        assert len(together[which]) == rounds
        for got in together[which]:
            assert_same(got, alone[which])
