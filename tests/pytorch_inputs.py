"""PyTorch's own inputs for its recurrent modules, and what is checked on each of them with Tidegate's in their place.

`python -m tests.pytorch_inputs` runs every check on every input, and prints how many ran, passed and were skipped, and
why. The inputs are those of `torch.testing._internal.common_modules`, which takes seconds to import and freezes flags
of `torch.backends`: it is imported where they are asked for.
"""

import copy
import importlib
import pickle
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call, grad, jacrev, jvp, vmap
from torch.nn.utils.rnn import PackedSequence

import tidegate as tg

KINDS: dict[str, tuple[type[nn.Module], type[nn.Module]]] = {
    "GRU": (nn.GRU, tg.GRU),
    "RNN": (nn.RNN, tg.RNN),
    "GRUCell": (nn.GRUCell, tg.GRUCell),
    "RNNCell": (nn.RNNCell, tg.RNNCell),
}


class Skipped(Exception):
    """Why a check does not apply to an input."""


@dataclass(frozen=True)
class Case:
    """One of PyTorch's inputs, with torch.nn's module and Tidegate's of the same weights."""

    kind: str
    theirs: Any
    ours: Any
    arguments: tuple[Any, ...]
    made_with: Any
    reference: Callable[..., Any] | None

    @property
    def packed(self) -> bool:
        return isinstance(self.arguments[0], PackedSequence)

    @property
    def weights(self) -> dict[str, Tensor]:
        return {name: weight.detach() for name, weight in self.ours.named_parameters()}

    def leaves(self) -> tuple[tuple[Any, ...], list[Tensor]]:
        """The arguments anew, and the tensors among them that want a gradient."""
        arguments = [
            argument._replace(data=argument.data.detach().clone().requires_grad_())
            if isinstance(argument, PackedSequence)
            else argument.detach().clone().requires_grad_()
            for argument in self.arguments
        ]
        return tuple(arguments), [one.data if isinstance(one, PackedSequence) else one for one in arguments]

    def __str__(self) -> str:
        form = "packed" if self.packed else "given h_0" if len(self.arguments) > 1 else "no h_0"
        return f"{self.ours} ({form})"


@cache
def module_infos() -> dict[str, Any]:
    """PyTorch's records of the four modules."""
    module_db = importlib.import_module("torch.testing._internal.common_modules").module_db

    return {name: next(info for info in module_db if info.module_cls is theirs) for name, (theirs, _) in KINDS.items()}


def cases(kind: str, dtype: torch.dtype, *, training: bool = False, backend: str = "auto") -> Iterator[Case]:
    """Every input that PyTorch tests its module `kind` with, packed sequences among them."""
    info, (theirs_class, ours_class) = module_infos()[kind], KINDS[kind]
    options = {"device": "cpu", "dtype": dtype, "requires_grad": True, "training": training}
    torch.manual_seed(0)
    for given in info.module_inputs_func(info, with_packed_sequence=True, **options):
        made, forward = given.constructor_input, given.forward_input
        theirs = theirs_class(*made.args, dtype=dtype, **made.kwargs).train(training)
        ours = ours_class(*made.args, dtype=dtype, backend=backend, **made.kwargs).train(training)
        ours.load_state_dict(theirs.state_dict(), strict=True)
        assert not forward.kwargs
        yield Case(kind, theirs, ours, forward.args, made, given.reference_fn)


def refused(kind: str, dtype: torch.dtype = torch.float32) -> Iterator[tuple[str, Callable[[], object]]]:
    """Every input that PyTorch expects its module `kind` to refuse, as a call of Tidegate's."""
    info, (_, ours) = module_infos()[kind], KINDS[kind]
    for wrong in info.module_error_inputs_func(info, device="cpu", dtype=dtype, requires_grad=False, training=False):
        given = wrong.module_error_input
        made, forward = given.constructor_input, given.forward_input

        def call(made: Any = made, forward: Any = forward) -> object:
            module = ours(*made.args, **made.kwargs)
            return module(*forward.args, **forward.kwargs) if forward is not None else None

        yield wrong.error_regex, call


# ---------------------------------------------------------------------------------------------------------------------
# Results


def flat(result: Any) -> list[Tensor]:
    """The tensors of a result."""
    parts = result if isinstance(result, tuple) and not isinstance(result, PackedSequence) else (result,)
    return [part.data if isinstance(part, PackedSequence) else part for part in parts]


def loss_of(result: Any) -> Tensor:
    """A number in which every element of a result counts differently."""
    parts = [(part * torch.linspace(0.5, 1.5, part.numel()).to(part).view_as(part)).sum() for part in flat(result)]
    return torch.stack(parts).sum()


def gradients(module: nn.Module, arguments: tuple[Any, ...], leaves: list[Tensor], **options: Any) -> list[Tensor]:
    """The gradients of the arguments and the weights."""
    return list(torch.autograd.grad(loss_of(module(*arguments)), [*leaves, *module.parameters()], **options))


def same(found: Any, expected: Any, tolerance: float) -> None:
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance)


def rounding(case: Case) -> float:
    """How far results may differ."""
    return 1e-12 if next(case.ours.parameters()).dtype == torch.float64 else 1e-6


def slack(case: Case) -> float:
    """How far gradients may differ: PyTorch draws inputs up to 9, and its own are up to 2.4e-5 off those of float64."""
    return 1e-11 if next(case.ours.parameters()).dtype == torch.float64 else 5e-5


def layout(case: Case) -> float:
    """How far results for the same numbers elsewhere in memory may differ: torch's products ask where they lie."""
    return rounding(case) if case.ours.backend == "reference" else 0


# ---------------------------------------------------------------------------------------------------------------------
# Checks


def forward(case: Case) -> None:
    """The results of torch.nn's module, and of PyTorch's reference for an input without a batch."""
    found, expected = case.ours(*case.arguments), case.theirs(*case.arguments)
    same(flat(found), flat(expected), rounding(case))
    if not case.packed and case.reference is not None:
        same(flat(found), flat(case.reference(case.ours, *case.arguments)), rounding(case))


def backward(case: Case) -> None:
    """The gradients of torch.nn's module."""
    found, expected = (gradients(module, *case.leaves()) for module in (case.ours, case.theirs))
    same(found, expected, slack(case))


def double_backward(case: Case) -> None:
    """The gradients of the gradients of torch.nn's module."""

    def twice(module: nn.Module) -> list[Tensor]:
        arguments, leaves = case.leaves()
        first = gradients(module, arguments, leaves, create_graph=True)
        total = torch.stack([one.square().sum() for one in first]).sum()
        return list(torch.autograd.grad(total, [*leaves, *module.parameters()]))

    same(twice(case.ours), twice(case.theirs), 100 * rounding(case))


def _function(case: Case) -> tuple[Callable[..., Any], list[Tensor]]:
    """The module as a function of its arguments' tensors and its weights, and those."""
    names, given = list(case.weights), case.arguments

    def function(*tensors: Tensor) -> tuple[Tensor, ...]:
        arguments = [
            old._replace(data=new) if isinstance(old, PackedSequence) else new
            for old, new in zip(given, tensors, strict=False)
        ]
        weights = dict(zip(names, tensors[len(given) :], strict=True))
        return tuple(flat(functional_call(case.ours, weights, tuple(arguments))))

    leaves = case.leaves()[1] + [weight.clone().requires_grad_() for weight in case.weights.values()]
    return function, leaves


def numeric_gradients(case: Case) -> None:
    """`gradcheck`, as PyTorch's own tests call it."""
    assert gradcheck(*_function(case), fast_mode=True)


def numeric_second_gradients(case: Case) -> None:
    """`gradgradcheck`."""
    assert gradgradcheck(*_function(case), fast_mode=True)


def determinism(case: Case) -> None:
    """The same twice, to the bit."""
    arguments, leaves = case.leaves()
    first, second = (flat(case.ours(*arguments)) + gradients(case.ours, arguments, leaves) for _ in range(2))
    same(first, second, 0)


def non_contiguous(case: Case) -> None:
    """Inputs and weights that do not lie in one piece."""

    def apart(tensor: Tensor) -> Tensor:
        return torch.stack([tensor.detach(), torch.full_like(tensor, torch.nan)], -1)[..., 0].requires_grad_()

    function, leaves = _function(case)
    scattered = [apart(leaf) for leaf in leaves]
    assert all(not one.is_contiguous() or one.numel() == 1 for one in scattered)
    found, expected = function(*scattered), function(*leaves)
    same(found, expected, layout(case))
    same(torch.autograd.grad(loss_of(found), scattered), torch.autograd.grad(loss_of(expected), leaves), slack(case))


def _stacked(case: Case) -> tuple[Tensor, ...]:
    """Three samples of each argument."""
    if case.packed:
        raise Skipped("torch.func does not map over a PackedSequence")
    return tuple(torch.stack([argument.detach() * scale for scale in (1, 0.5, -1)]) for argument in case.arguments)


def vectorised(case: Case) -> None:
    """`vmap` over samples is each alone."""
    many = _stacked(case)
    found = vmap(lambda *one: tuple(flat(case.ours(*one))))(*many)
    alone = [flat(case.ours(*one)) for one in zip(*many, strict=True)]
    same(list(found), [torch.stack(parts) for parts in zip(*alone, strict=True)], rounding(case))


def per_sample_gradients(case: Case) -> None:
    """`vmap` of `grad` gives the weights' gradients of each sample."""
    many = _stacked(case)

    def loss(weights: dict[str, Tensor], *one: Tensor) -> Tensor:
        return loss_of(functional_call(case.ours, weights, one))

    found = vmap(grad(loss), (None, *[0] * len(many)))(case.weights, *many)
    for sample, one in enumerate(zip(*many, strict=True)):
        expected = torch.autograd.grad(loss_of(case.ours(*one)), list(case.ours.parameters()))
        same([found[name][sample] for name in case.weights], list(expected), slack(case))


def forward_derivatives(case: Case) -> None:
    """`jvp` is the Jacobian of `jacrev` times the direction."""
    if case.packed:
        raise Skipped("torch.func does not map over a PackedSequence")
    primals = tuple(argument.detach() for argument in case.arguments)
    directions = tuple(torch.randn_like(primal) for primal in primals)

    def function(*given: Tensor) -> Tensor:
        return torch.cat([part.flatten() for part in flat(case.ours(*given))])

    jacobians = jacrev(function, tuple(range(len(primals))))(*primals)
    products = [
        jacobian.flatten(1) @ direction.flatten() for jacobian, direction in zip(jacobians, directions, strict=True)
    ]
    same(jvp(function, primals, directions)[1], torch.stack(products).sum(0), slack(case))


def other_weights(case: Case) -> None:
    """`functional_call` with other weights is torch.nn's module with those weights, and leaves ours alone."""
    before = flat(case.ours(*case.arguments))
    weights = {name: weight * 0.7 for name, weight in case.weights.items()}
    found = functional_call(case.ours, weights, case.arguments)
    same(flat(found), flat(functional_call(case.theirs, weights, case.arguments)), rounding(case))
    same(flat(case.ours(*case.arguments)), before, 0)


def autocast(case: Case) -> None:
    """Under autocast to bfloat16, torch.nn's results and dtypes, as far as bfloat16 goes; gradients arrive."""
    arguments, leaves = case.leaves()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, expected = flat(case.ours(*arguments)), flat(case.theirs(*arguments))
    assert [one.dtype for one in found] == [one.dtype for one in expected]
    same(found, expected, 0.02)
    loss_of(tuple(found)).backward()
    assert all(leaf.grad is not None and leaf.grad.dtype == leaf.dtype for leaf in leaves)


def copies(case: Case) -> None:
    """A deep copy, a pickled one and one from a state dict give the same, and share nothing."""
    options = {"dtype": next(case.ours.parameters()).dtype, "backend": case.ours.backend}
    fresh = type(case.ours)(*case.made_with.args, **options, **case.made_with.kwargs)
    fresh.load_state_dict(case.ours.state_dict(), strict=True)
    for other in (copy.deepcopy(case.ours), pickle.loads(pickle.dumps(case.ours)), fresh.train(case.ours.training)):
        assert type(other) is type(case.ours)
        assert repr(other) == repr(case.ours)
        same(flat(other(*case.arguments)), flat(case.ours(*case.arguments)), layout(case))
        with torch.no_grad():
            next(other.parameters()).add_(1)
        assert not torch.equal(next(other.parameters()), next(case.ours.parameters()))


def on_meta(case: Case) -> None:
    """Made on the meta device: shapes alone; brought to memory and given weights, the same results."""
    made, dtype = case.made_with, next(case.ours.parameters()).dtype
    module = type(case.ours)(*made.args, device="meta", dtype=dtype, **made.kwargs)
    assert all(weight.is_meta for weight in module.parameters())
    expected = flat(case.ours(*case.arguments))
    if not case.packed:  # torch.nn's own needs lengths in memory too
        found = flat(module(*(argument.to("meta") for argument in case.arguments)))
        assert [(one.shape, one.dtype, one.is_meta) for one in found] == [(e.shape, e.dtype, True) for e in expected]
    module = module.to_empty(device="cpu")
    module.load_state_dict(case.ours.state_dict(), strict=True)
    same(flat(module.train(case.ours.training)(*case.arguments)), expected, 1e-6)


def accelerated(case: Case) -> None:
    """torch.nn's module, accelerated, gives its own results and gradients, and restored again."""
    module = copy.deepcopy(case.theirs)
    before = flat(module(*case.arguments)) + gradients(module, *case.leaves())
    assert len(tg.accelerate(module, backend=case.ours.backend).changed) == 1
    same(flat(module(*case.arguments)) + gradients(module, *case.leaves()), before, slack(case))
    assert len(tg.restore(module).changed) == 1
    same(flat(module(*case.arguments)) + gradients(module, *case.leaves()), before, rounding(case))


def compiled(case: Case) -> None:
    """`torch.compile` takes the module as one graph."""
    if case.packed:
        raise Skipped("torch.compile does not look into pad_packed_sequence")
    torch._dynamo.reset()
    run = torch.compile(case.ours, fullgraph=True, backend="aot_eager")
    arguments, leaves = case.leaves()
    found = flat(run(*arguments))
    same(found, flat(case.ours(*arguments)), rounding(case))
    expected = gradients(case.ours, arguments, leaves)
    same(torch.autograd.grad(loss_of(tuple(found)), [*leaves, *case.ours.parameters()]), tuple(expected), slack(case))


def exported(case: Case) -> None:
    """`torch.export` with a dynamic time axis; a program of another length gives what the module gives."""
    if case.packed:
        raise Skipped("torch.export takes no PackedSequence as an input")
    if case.kind.endswith("Cell"):
        raise Skipped("a cell has no time axis")
    arguments = tuple(argument.detach() for argument in case.arguments)
    shapes = ({0: torch.export.Dim("time")}, *[None] * (len(arguments) - 1))
    program = torch.export.export(case.ours, arguments, dynamic_shapes=shapes).module()
    for steps in (1, 2, 11):
        given = (torch.randn(steps, arguments[0].shape[-1]).to(arguments[0]), *arguments[1:])
        same(flat(program(*given)), flat(case.ours(*given)), rounding(case))


Check = Callable[[Case], None]
#: The checks, and the dtype that each is made in.
CHECKS: dict[Check, tuple[torch.dtype, ...]] = {
    forward: (torch.float32, torch.float64),
    backward: (torch.float32, torch.float64),
    double_backward: (torch.float64,),
    numeric_gradients: (torch.float64,),
    numeric_second_gradients: (torch.float64,),
    determinism: (torch.float32,),
    non_contiguous: (torch.float32, torch.float64),
    vectorised: (torch.float32,),
    per_sample_gradients: (torch.float32,),
    forward_derivatives: (torch.float64,),
    other_weights: (torch.float32,),
    autocast: (torch.float32,),
    copies: (torch.float32,),
    on_meta: (torch.float32,),
    accelerated: (torch.float32, torch.float64),
}
#: Those that take PyTorch's compiler, which does not follow the run-time check of annotations that the tests have.
COMPILING: dict[Check, tuple[torch.dtype, ...]] = {compiled: (torch.float32,), exported: (torch.float32,)}


#: Those that are run in training and in evaluation: without dropout, which no input has, little depends on it.
IN_BOTH_MODES = {forward, backward}
#: Those that take a second for each input.
SLOW = {numeric_gradients, numeric_second_gradients, compiled, exported}


def run(check: Check, kind: str, backend: str = "auto") -> Counter[str]:
    """How many inputs passed the check, and how many were skipped for which reason."""
    told: Counter[str] = Counter()
    for dtype, training in product((CHECKS | COMPILING)[check], (False, True) if check in IN_BOTH_MODES else (False,)):
        for case in cases(kind, dtype, training=training, backend=backend):
            try:
                check(case)
            except Skipped as reason:
                told[str(reason)] += 1
                continue
            except Exception as error:
                error.add_note(f"{check.__name__}: {case}, {dtype}, training={training}, backend={backend}")
                raise
            told["passed"] += 1
    return told


def main(names: list[str]) -> None:
    """Print a line for each check and backend; the first failure ends it."""
    for check in CHECKS | COMPILING:
        if names and check.__name__ not in names:
            continue
        # the compiler would unroll the reference's loop for minutes; exported_model.py has the cases that are its own
        for backend in ("auto",) if check in COMPILING else ("auto", "reference"):
            told: Counter[str] = Counter()
            for kind in KINDS:
                told += run(check, kind, backend)
            passed = told.pop("passed", 0)
            skipped = "".join(f"; {number} skipped: {reason}" for reason, number in told.items())
            print(f"{check.__name__} ({backend}): {passed + told.total()} inputs, {passed} passed{skipped}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
