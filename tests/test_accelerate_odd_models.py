"""accelerate on layers that hold more than torch.nn gave them: nothing of a user's is covered, lost or registered."""

import copy
import subprocess
import sys
from typing import Any

import pytest
import torch
import torch.nn.utils.prune
from torch import Tensor, nn

import tidegate as tg
from tests.refusals import assert_refused

T, B, I, H = 5, 2, 3, 4
x = torch.randn(T, B, I, generator=torch.Generator().manual_seed(0))


class OwnReset(nn.GRU):
    """A method by the name of one of Tidegate's attributes."""

    def reset(self) -> str:
        return "mine"


class Tagged(nn.GRU):
    """A class that asks something of every subclass."""

    def __init_subclass__(cls, *, tag: str, **options: Any) -> None:
        super().__init_subclass__(**options)


class Registered(nn.GRU):
    """A class that keeps a list of its subclasses."""

    known: list[type] = []  # noqa: RUF012

    def __init_subclass__(cls, **options: Any) -> None:
        Registered.known.append(cls)
        super().__init_subclass__(**options)


def with_attribute() -> nn.Module:
    layer = nn.GRU(I, H)
    layer.backend = "mine"
    return layer


def with_module() -> nn.Module:
    layer = nn.GRUCell(I, H)
    layer.activation = nn.ReLU()
    return layer


def with_parameter() -> nn.Module:
    layer = nn.RNN(I, H)
    layer.h_0 = nn.Parameter(torch.ones(1, 1, H))
    return layer


def with_buffer() -> nn.Module:
    layer = nn.GRU(I, H)
    layer.register_buffer("h_0", torch.ones(1, H))
    return layer


def with_own_part() -> nn.Module:
    layer = nn.GRU(I, H)
    layer.check_forward_args = lambda *arguments: None  # type: ignore[method-assign]
    return layer


LEFT = {
    "method": (
        lambda: OwnReset(I, H),
        "its own 'reset' would be covered, for Tidegate's layers have something else of that name",
    ),
    "attribute": (with_attribute, "its own 'backend' would be covered"),
    "module": (with_module, "its own 'activation' would be covered"),
    "parameter": (with_parameter, "its own 'h_0' would be covered"),
    "buffer": (with_buffer, "its own 'h_0' would be covered"),
    "own part": (with_own_part, "its check_forward_args has been replaced, so that what it computes is not known"),
    "asks subclasses": (lambda: Tagged(I, H), "Tagged has an __init_subclass__ of its own"),
    "lists subclasses": (lambda: Registered(I, H), "Registered has an __init_subclass__ of its own"),
    "complex": (lambda: nn.RNN(I, H, dtype=torch.complex64), "its weights are torch.complex64"),
}


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("make", LEFT)
def test_what_would_be_covered_or_lost_is_left_as_it_is(make, backend):
    layer, sentence = LEFT[make][0](), LEFT[make][1]
    kind, names, state = type(layer), set(vars(layer)), {**layer.state_dict()}
    given = torch.zeros(T, B, I, dtype=torch.complex64) if make == "complex" else x
    given = given[0] if isinstance(layer, nn.RNNCellBase) else given
    expected = layer(given)
    model = nn.ModuleList([nn.GRU(I, H), layer])
    changes = tg.accelerate(model, backend=backend)
    assert [one.name for one in changes.changed] == ["0"]
    (left,) = changes.left
    assert left.reason.startswith(sentence)
    assert type(layer) is kind
    assert set(vars(layer)) == names
    assert layer.state_dict().keys() == state.keys()
    assert all(torch.equal(a, b) for a, b in zip(layer(given), expected, strict=True))
    assert [one.name for one in tg.restore(model).changed] == ["0"]
    assert Registered.known == []


def test_what_only_other_layers_of_tidegates_have_is_the_users_own():
    """A gain is a layer-normalised layer's, a learned initial state no cell's: here they are not looked at."""
    layer, cell = nn.GRU(I, H), nn.GRUCell(I, H)
    layer.gain_ih_l0 = nn.Parameter(torch.full((3 * H,), 2.0))
    cell.h_0 = nn.Parameter(torch.ones(1, H))
    model = nn.ModuleList([layer, cell])
    expected = layer(x)[0], cell(x[0])
    for backend in ("auto", "reference"):
        assert len(tg.accelerate(model, backend=backend).changed) == 2
        for found, one in zip((layer(x)[0], cell(x[0])), expected, strict=True):
            torch.testing.assert_close(found, one, atol=1e-6, rtol=0)
        tg.restore(model)


def test_a_torch_layer_with_an_h_0_of_its_own_begins_with_zeros_as_torch_runs_it():
    layer, cell = nn.GRU(I, H), nn.RNNCell(I, H)
    layer.h_0, cell.h_0 = nn.Parameter(torch.ones(1, H)), nn.Parameter(torch.ones(1, H))
    torch.testing.assert_close(tg.trace(layer, x).output, layer(x)[0], atol=1e-6, rtol=0)
    torch.testing.assert_close(tg.trace(cell, x[:1]).output[0], cell(x[0]), atol=1e-6, rtol=0)


def test_a_layer_that_was_restored_or_copied_has_nothing_of_its_own():
    layer = nn.GRU(I, H)
    shallow = copy.copy(layer)
    for change in (tg.accelerate, tg.restore, tg.accelerate):
        assert [one.name for one in change(layer).changed] == [""]
    assert [one.name for one in tg.accelerate(shallow).changed] == [""]


def test_what_is_added_to_a_layer_later_stays_when_it_is_restored():
    layer = nn.GRU(I, H)
    tg.accelerate(layer)
    layer.mine = 3
    tg.restore(layer)
    assert layer.mine == 3


COMPILED = """
import torch, tidegate as tg
model, x = torch.nn.Sequential(torch.nn.GRU(3, 4)), torch.randn(5, 2, 3)
compiled = torch.compile(model, backend="eager")
expected = compiled(x)[0]
for change in (tg.accelerate, tg.restore):
    assert [one.name for one in change(compiled).changed] == ["_orig_mod.0"]
    torch.testing.assert_close(compiled(x)[0], expected, atol=1e-6, rtol=0)
"""


def test_a_compiled_model_is_reached_and_computes_on():
    """In a process of its own, without the types that are checked while tests run."""
    subprocess.run([sys.executable, "-c", COMPILED], check=True)


def test_a_layer_from_which_an_attribute_was_deleted_is_restored_whole():
    model = nn.ModuleList([nn.GRU(I, H), nn.GRU(I, H)])
    tg.accelerate(model)
    del model[0].recompute
    assert len(tg.restore(model).changed) == 2
    assert [type(layer) for layer in model] == [nn.GRU, nn.GRU]


def test_layers_in_a_wrapper_are_reached():
    model = nn.DataParallel(nn.Sequential(nn.GRU(I, H)))
    expected = model(x)
    assert [one.name for one in tg.accelerate(model).changed] == ["module.0"]
    torch.testing.assert_close(model(x), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_a_layer_that_changes_its_dtype_afterwards_still_runs(dtype):
    layer = nn.GRU(I, H)
    tg.accelerate(layer)
    layer.to(dtype)
    assert layer(x.to(dtype))[0].dtype == dtype
    tg.restore(layer)


def test_a_pruned_layer_stays_pruned():
    layer = nn.GRU(I, H)
    torch.nn.utils.prune.l1_unstructured(layer, "weight_hh_l0", 0.5)
    expected = layer(x)[0]
    tg.accelerate(layer)
    torch.testing.assert_close(layer(x)[0], expected, atol=1e-6, rtol=0)
    torch.nn.utils.prune.remove(layer, "weight_hh_l0")
    tg.restore(layer)
    torch.testing.assert_close(layer(x)[0], expected, atol=1e-6, rtol=0)


# ---------------------------------------------------------------------------------------------------------------------
# Looking into a circular model


class Circular(nn.Module):
    """Each part knows the whole, as parts of some models do."""

    def __init__(self) -> None:
        super().__init__()
        self.part = nn.Module()
        self.part.whole = self
        self.part.layer = nn.GRU(I, H)
        self.same = self.part

    def forward(self, x: Tensor) -> Any:
        return self.part.layer(x)  # type: ignore[operator]


def test_a_circular_model_is_traced_and_left_as_it_was():
    model = Circular()
    expected = model(x)[0]
    for name in (None, "part.layer", "same.layer"):
        torch.testing.assert_close(tg.trace(model, x, layer=name).output, expected, atol=1e-6, rtol=0)
    assert_refused(lambda: tg.trace(model, x, layer="part.whole.part.layer"), ValueError, "^layer must be one of")
    flow = tg.gradient_flow(model, x)  # in evaluation mode meanwhile
    assert flow is not None
    effect = tg.counterfactual(model, x, steps=slice(1, 2))
    assert effect is not None
    assert all(module.training for module in model.modules())
