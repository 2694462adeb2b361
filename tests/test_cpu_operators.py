"""The kernels as operators of PyTorch: compiled, differentiated twice, with less memory, in any layout, as exact."""

import os
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.func import functional_call, jvp, vmap
from torch.utils.checkpoint import checkpoint

import tidegate as tg
from tests.contract.cases import SYSTEMS, Inputs, Size, draw, forward, named_outputs, with_gradients
from tests.contract.common import FLOAT32, GRU, MASKS, pinned_to
from tests.contract.compare import assert_same
from tidegate import ops
from tidegate.equations import KEPT, Dropped
from tidegate.errors import BackendError, InputValueError
from tidegate.ops import Pins
from tidegate.ops.cpu.layout import LAYOUTS as KERNELS
from tidegate.ops.cpu.operators import recurrence
from tidegate.ops.cpu.profile import profile

WITH_KERNELS = [case for case in SYSTEMS if case.system in KERNELS]
ROOT = Path(__file__).parents[1]
SIZE = Size(9, 5, 3, 20)


@pytest.mark.slow
def test_torch_compile_takes_a_model_as_one_graph_and_export_keeps_the_operator():
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    program = [sys.executable, "-m", "tests.compiled_model"]
    done = subprocess.run(program, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "one graph:", "one graph: mask", "one graph: lengths", "one graph: pins", "one graph: reset_at",
        "one graph: dropouts", "one graph: zoneout in evaluation", "lengths must lie in 0..T = 0..6",
        "gradients of a function", "exported",
    ]  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("keep", [False, True])
def test_pytorchs_own_check_of_an_operator_passes(keep):
    inputs = draw(GRU, Size(4, 3, 2, 5)).map(lambda tensor: tensor.clone().requires_grad_())
    arguments = ("gru", *inputs.named().values(), 0, None, None, None, torch.ones(4, 3, 5), 0.7, False, True, keep)
    torch.library.opcheck(
        recurrence,
        arguments,
        test_utils=["test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_static"],
    )


@pytest.mark.parametrize("dropping", [False, True], ids=["whole", "dropping"])
@pytest.mark.parametrize("case", WITH_KERNELS, ids=str)
def test_second_derivatives_are_the_reference_backends(case, dropping):
    inputs = draw(case, Size(3, 2, 2, 3)).map(Tensor.double)
    dropped = Dropped(candidate=torch.rand(3, 2, 3).double(), write=0.7) if dropping else KEPT

    def hessian_vector(backend: str) -> dict[str, Tensor]:
        leaves = inputs.map(lambda tensor: tensor.clone().requires_grad_())
        named = leaves.named()
        first = torch.autograd.grad(
            forward(leaves, backend, dropped=dropped)["hidden"].square().sum(), list(named.values()), create_graph=True
        )
        second = torch.autograd.grad(torch.stack([one.square().sum() for one in first]).sum(), list(named.values()))
        return dict(zip(named, second, strict=True))

    assert_same(hessian_vector("cpu"), hessian_vector("reference"))


def test_explain_says_where_second_derivatives_come_from():
    assert "gradients of gradients come from reference" in tg.explain(tg.GRU(2, 3), torch.zeros(1, 1, 2))


@pytest.mark.parametrize("case", WITH_KERNELS, ids=str)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("gates", [False, True])
@pytest.mark.parametrize("dropping", [False, True], ids=["whole", "dropping"])
def test_gates_computed_anew_give_the_same_gradients_to_the_bit(case, reverse, gates, dropping):
    size = Size(150, 7, 5, 20)  # more than one chunk on the way back
    dropped = Dropped(candidate=(torch.rand(size.T, size.B, size.H) < 0.7) / 0.7, write=0.7) if dropping else KEPT
    options = {"mask": MASKS["holes"](size), "reverse": reverse, "gates": gates, "dropped": dropped}
    inputs = draw(case, size)
    pins = pinned_to(inputs, Pins(update=0.3, steps=slice(3, 20)), Pins(update=1.0, steps=40))

    def run(recompute: bool) -> dict[str, Tensor]:
        return with_gradients(
            lambda leaves: forward(leaves, "cpu", recompute=recompute, pins=pins, **options), inputs, FLOAT32
        )

    assert_same(run(True), run(False), exact=True)


def test_recompute_keeps_the_states_alone():
    kept: list[int] = []

    def size_of(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    x = torch.randn(50, 4, 3)
    for recompute in (False, True):
        layer = tg.GRU(3, 32, recompute=recompute, backend="cpu")
        kept.clear()
        with torch.autograd.graph.saved_tensors_hooks(size_of, lambda tensor: tensor):
            layer(x)
        assert kept.count(50 * 4 * 32) == (1 if recompute else 5)
    assert "recompute=True" in repr(layer)


def test_reference_says_that_it_takes_no_notice_of_recompute():
    told = tg.explain(tg.GRU(2, 3, recompute=True, backend="reference"), torch.zeros(1, 1, 2))
    assert "keeps all that autograd keeps" in told


def test_what_the_kernels_cannot_be_transformed_by_runs_on_reference_and_says_so():
    layer, x, h = tg.GRU(3, 4), torch.randn(5, 2, 3), torch.zeros(1, 2, 4)
    told: list[str] = []

    def run(x: Tensor) -> Tensor:
        told.append(tg.explain(layer, x))
        result: Tensor = layer(x, h)[0]
        return result

    many = torch.randn(3, 5, 2, 3)
    assert_same({"y": vmap(run)(many)}, {"y": torch.stack([layer(x, h)[0] for x in many])})
    assert "cannot be transformed by torch.func" in told[-1]
    slope = jvp(run, (x,), (torch.ones_like(x),))[1]
    assert slope.shape == (5, 2, 4)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, torch.ones_like(x))
        forwards = torch.autograd.forward_ad.unpack_dual(run(dual)).tangent
    assert "do not differentiate forwards" in told[-1]
    assert_same({"slope": forwards}, {"slope": slope})
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert run(x).shape == (5, 2, 4)
    assert "autocast is on" in told[-1]
    weights = {name: weight * 2 for name, weight in layer.named_parameters()}
    assert not torch.equal(functional_call(layer, weights, (x,))[0], run(x))
    assert told[-1].startswith("layer 0: cpu")


LAYOUTS = {
    "transposed": lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
    "every second": lambda x: torch.stack([x, x], -1)[..., 0],
    "read-only": lambda x: torch.from_numpy(np.frombuffer(x.numpy().tobytes(), np.float32).reshape(x.shape)),
    "a view into more": lambda x: torch.cat([x, x], 2)[:, :, : x.shape[2]],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout_of_the_input_and_of_what_arrives(layout):
    layer, x = tg.GRU(3, 20, backend="cpu"), torch.randn(*SIZE[:3])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of memory that it may not write
        other = LAYOUTS[layout](x)
    assert_same({"y": layer(other)[0]}, {"y": layer(x)[0]}, exact=True)
    arrives = LAYOUTS[layout](torch.randn(9, 5, 20))
    found = torch.autograd.grad(layer(other)[0], list(layer.parameters()), arrives)
    expected = torch.autograd.grad(layer(x)[0], list(layer.parameters()), arrives.clone().contiguous())
    assert_same(dict(enumerate(found)), dict(enumerate(expected)), exact=True)  # type: ignore[arg-type]


def test_numbers_do_not_depend_on_the_batch_they_came_in():
    inputs = draw(GRU, Size(20, 17, 5, 100))
    together = forward(inputs, "cpu")["hidden"]
    for b in (0, 7, 16):
        alone = Inputs(GRU, inputs.x[:, b : b + 1], inputs.h_0[b : b + 1], inputs.weights)
        assert_same({"row": forward(alone, "cpu")["hidden"]}, {"row": together[:, b : b + 1]}, exact=True)


@pytest.mark.parametrize(
    ("size", "told"),
    [
        ((60, 9, 3, 20), {"pack", "steps", "steps back", "unpack"}),
        (
            (60, 1, 3, 128),
            {"pack", "inputs", "steps", "steps back", "input's gradient", "weights' gradients", "unpack"},
        ),
    ],
    ids=["a slice of the batch each", "units shared out"],
)
def test_a_profile_tells_the_phases_of_every_kernel(size, told):
    T, B, I, H = size
    layer, x, threads = tg.GRU(I, H, backend="cpu"), torch.randn(T, B, I), torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with profile() as phases:
            layer(x)[0].sum().backward()
    finally:
        torch.set_num_threads(threads)
    names = [phase.name for phase in phases]
    assert names[0] == "pack"
    assert set(names) == told
    assert all(phase.end >= phase.begin for phase in phases)
    with profile() as later:
        pass
    assert later == []


def test_profiles_within_each_other_hear_the_same():
    layer, x = tg.GRU(3, 20, backend="cpu"), torch.randn(*SIZE[:3])
    with profile() as outer:
        with profile() as inner:
            pass
        assert inner == []
        layer(x)
    assert [phase.name for phase in outer] == ["pack", "steps"]


def test_gradients_of_many_at_once_are_those_of_each():
    layer, x = tg.GRU(3, 7, 2), torch.randn(4, 2, 3, requires_grad=True)
    y, arrive = layer(x)[0], torch.randn(5, 4, 2, 7)
    every = torch.autograd.grad(y, (x, *layer.parameters()), arrive, is_grads_batched=True, retain_graph=True)
    for number, one in enumerate(arrive):
        alone = torch.autograd.grad(y, (x, *layer.parameters()), one, retain_graph=True)
        got, expected = (
            {str(i): tensor for i, tensor in enumerate(found)} for found in ((e[number] for e in every), alone)
        )
        assert_same(got, expected)


def test_the_operator_takes_any_layout_and_refuses_wrong_shapes():
    inputs = draw(GRU, Size(4, 3, 2, 5))
    _, *others = inputs.named().values()
    flags = (0, None, None, None, None, 1.0, False, False, False)
    turned = inputs.x.transpose(0, 1).contiguous().transpose(0, 1)
    assert not turned.is_contiguous()
    right = recurrence("gru", inputs.x, *others, *flags)[0]
    assert_same({"hidden": recurrence("gru", turned, *others, *flags)[0]}, {"hidden": right}, exact=True)
    h_0, *weights = others
    with pytest.raises(InputValueError, match=r"h_0 must be \(3, 5\); got \(2, 5\)"):
        recurrence("gru", inputs.x, h_0[:2], *weights, *flags)
    with pytest.raises(InputValueError, match=r"weight_hh must be \(15, 5\); got \(15, 4\)"):
        recurrence("gru", inputs.x, h_0, weights[0], weights[1][:, :4], *weights[2:], *flags)
    with pytest.raises(InputValueError, match=r"mask must be \(4, 3\); got \(3, 4\)"):
        recurrence("gru", inputs.x, *others, 0, torch.ones(3, 4, dtype=torch.bool), *flags[2:])
    with pytest.raises(InputValueError, match=r"pin_update must fit \(4, 3, 5\); got \(1, 2, 5\)"):
        recurrence("gru", inputs.x, *others, 0, None, torch.ones(1, 2, 5), *flags[3:])
    with pytest.raises(InputValueError, match=r"factor must fit \(4, 3, 5\); got \(4, 3, 2\)"):
        recurrence("gru", inputs.x, *others, *flags[:4], torch.ones(4, 3, 2), *flags[5:])


def test_what_was_not_asked_for_has_no_gradient():
    inputs = draw(GRU, Size(4, 3, 2, 5)).map(lambda tensor: tensor.clone().requires_grad_())
    hidden, *others = recurrence("gru", *inputs.named().values(), 0, None, None, None, None, 1.0, False, False, True)
    assert hidden.requires_grad
    assert not any(other.requires_grad for other in others)


def test_a_system_without_kernels_runs_on_reference(monkeypatch):
    monkeypatch.setitem(ops.SYSTEMS, "mine", ops.SYSTEMS["gru"])
    inputs = draw(GRU, SIZE)
    call = replace(inputs.call(), system="mine")
    assert ops.choose(call).backend == "reference"
    assert 'not cpu: its kernels do not have the system "mine"' in ops.choose(call).reason
    assert_same({"hidden": ops.run(call).hidden}, {"hidden": ops.run(inputs.call(), "reference").hidden}, exact=True)
    with pytest.raises(
        BackendError, match='backend "cpu" cannot run this layer: its kernels do not have the system "mine"'
    ):
        ops.run(call, "cpu")


def error(got: dict[str, Tensor], exact: dict[str, Tensor]) -> dict[str, float]:
    return {name: float((got[name].double() - exact[name]).norm() / exact[name].norm()) for name in exact}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gru", "rnn_tanh"])
@pytest.mark.parametrize(("T", "B", "I", "H"), [(5000, 2, 8, 32), (1000, 5, 13, 100), (300, 17, 33, 128)])
def test_as_exact_as_torchs_own(T, B, I, H, kind):
    """Against float64, at most twice the error that torch.nn's layer makes on the same float32 numbers."""
    case = next(one for one in SYSTEMS if (one.system, one.activation) == (kind.removesuffix("_tanh"), "tanh"))
    inputs = draw(case, Size(T, B, I, H))

    def torchs(leaves: Inputs) -> dict[str, Tensor]:
        weights = [weight for weight in leaves.weights if weight is not None]
        run = getattr(torch._VF, kind)
        y, h_n = run(leaves.x, leaves.h_0.unsqueeze(0), weights, True, 1, 0.0, True, False, False)
        return {"hidden": y, "h_n": h_n[0]}

    def ours(leaves: Inputs) -> dict[str, Tensor]:
        return named_outputs(ops.run(leaves.call(), "cpu"))

    exact = with_gradients(torchs, inputs, torch.float64)
    own, peers = (error(with_gradients(run, inputs, FLOAT32), exact) for run in (ours, torchs))
    for name in exact:
        assert own[name] <= 2 * peers[name] + 1e-9, f"{name}: {own[name]:.2e}, torch {peers[name]:.2e}"


@pytest.mark.parametrize("use_reentrant", [False, True])
@pytest.mark.parametrize("options", [{}, {"recompute": True}, {"bidirectional": True, "num_layers": 2}], ids=str)
def test_activation_checkpointing_gives_the_same_gradients(options, use_reentrant):
    layer = tg.GRU(3, 4, **options)
    found = []
    for run in (lambda x: layer(x)[0], lambda x: checkpoint(lambda x: layer(x)[0], x, use_reentrant=use_reentrant)):
        layer.zero_grad()
        x = torch.ones(5, 2, 3, requires_grad=True)
        run(x).sum().backward()
        found.append([x.grad, *(parameter.grad for parameter in layer.parameters())])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))
