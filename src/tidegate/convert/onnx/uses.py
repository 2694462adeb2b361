"""How a model uses its recurrent layers, seen by running a double of it once."""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.rnn import PackedSequence
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from tidegate.convert.find import is_any_recurrent, reason_to_leave
from tidegate.convert.onnx.given import Given
from tidegate.convert.onnx.standins import check_writable
from tidegate.errors import InputTypeError, InputValueError
from tidegate.nn.spec import is_cell, is_recurrent, opaque

__all__ = ["Use", "check_model", "check_states", "try_out"]

#: Hooks that compute a weight: in evaluation mode always the same.
_COMPUTING = (BasePruningMethod, SpectralNorm, WeightNorm)


@dataclass(eq=False)
class Use:
    """How the model used one recurrent layer."""

    module: nn.Module
    times: int = 0
    #: The layer began with its own initial state.
    own_state: bool = False
    batch: int = 1
    batched: bool = True
    inputs: list[str] = field(default_factory=list)


def try_out(model: nn.Module, given: Given) -> tuple[nn.Module, dict[str, Use], list[str]]:
    """A double of the model that shares its tensors, run once; the uses of its layers; its outputs' names."""
    double = copy.deepcopy(model, {id(tensor): tensor for tensor in _held(model)}).eval()
    uses = {name: Use(part) for name, part in double.named_modules() if is_recurrent(part)}
    watching = []
    for name, use in uses.items():
        if (reason := opaque(use.module)) is not None:
            raise InputTypeError(f"module {name!r} cannot be written to ONNX: {reason}")
        check_writable(name, use.module)
        watching.append(use.module.register_forward_pre_hook(_watch(name, use), with_kwargs=True))
    with torch.no_grad():
        result = double(*given.positional, **given.named)
    for hook in watching:
        hook.remove()
    _keep_weights(double)
    return double, uses, _names_of(double, result)


def _keep_weights(double: nn.Module) -> None:
    """Let weights that hooks compute anew in every run be those of the last, which a trace takes for constants."""
    for part in double.modules():
        hooks = part._forward_pre_hooks
        for key in [key for key, hook in hooks.items() if isinstance(hook, _COMPUTING)]:
            del hooks[key]


def _held(model: nn.Module) -> Iterator[Tensor]:
    """Every tensor of the model: parameters, buffers, and weights that are computed and kept beside them."""
    for part in model.modules():
        for held in (*part._parameters.values(), *part._buffers.values(), *vars(part).values()):
            yield from (one for one in (held if isinstance(held, list) else [held]) if isinstance(one, Tensor))


def check_model(model: nn.Module) -> None:
    """Refuse what cannot be run or traced: a circle of modules, code that is fixed, weights without numbers."""
    if (name := _circle(model)) is not None:
        raise InputTypeError(
            f"model must not hold itself, which torch.export cannot trace; its module {name!r} is one that holds it"
        )
    for name, part in model.named_modules():
        if is_any_recurrent(part) and not isinstance(part, nn.LSTM | nn.LSTMCell) and not is_recurrent(part):
            raise InputTypeError(f"module {name!r} cannot be written to ONNX: {reason_to_leave(part)}")
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.is_meta:
            raise InputValueError(f"model must have its weights; {name!r} is on the meta device, without numbers")


def _circle(module: nn.Module, name: str = "", above: tuple[nn.Module, ...] = ()) -> str | None:
    """The name of a module that holds itself, or None."""
    if any(module is one for one in above):
        return name
    for key, child in module._modules.items():
        if child is not None:
            found = _circle(child, f"{name}.{key}" if name else key, (*above, module))
            if found is not None:
                return found
    return None


def check_states(double: nn.Module, uses: dict[str, Use]) -> None:
    """Refuse a model whose states cannot all come in and go out."""
    for name, part in double.named_modules():
        if isinstance(part, nn.LSTM | nn.LSTMCell):
            raise InputValueError(f"states must be False: nothing carries the state of module {name!r}, an LSTM")
    for name, use in uses.items():
        if use.times > 1 and use.own_state:
            raise InputValueError(
                f"states must be False: module {name!r} runs {use.times} times, with a state each time"
            )


def _watch(name: str, use: Use) -> Any:
    """A hook that notes how a layer is called, and refuses what its node could not do."""

    def see(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        known = dict(zip(("input", "hx"), args, strict=False)) | kwargs
        x = known.get("input")
        if x is None:
            return  # which is an error of the layer's own
        if isinstance(x, PackedSequence):
            raise InputTypeError(f"module {name!r} is given a PackedSequence, for which ONNX takes lengths")
        for key in ("mask", "pins", "reset_at"):
            if known.get(key) is not None:
                raise InputValueError(f"module {name!r} is given {key}, which no node of ONNX takes; lengths it does")
        if known.get("lengths") is not None and not isinstance(known["lengths"], Tensor):
            raise InputTypeError(f"module {name!r} must be given lengths as a tensor, or they could not vary")
        use.times += 1
        use.own_state = use.own_state or known.get("hx") is None
        use.batched = x.ndim == (2 if is_cell(module) else 3)
        if use.batched:
            use.batch = x.shape[0 if is_cell(module) or getattr(module, "batch_first", False) else 1]

    return see


def _names_of(model: nn.Module, result: Any) -> list[str]:
    """A name for each tensor that the model returned."""
    leaves = torch.utils._pytree.tree_leaves(result)
    if not all(isinstance(leaf, Tensor) for leaf in leaves):
        raise InputTypeError("model must return tensors, alone or in tuples, lists and dicts, for ONNX to have them")
    if isinstance(result, Mapping) and len(leaves) == len(result):
        return [str(name) for name in result]
    if is_recurrent(model):
        return ["output", "h_n"][: len(leaves)]
    return ["output"] if len(leaves) == 1 else [f"output_{number}" for number in range(len(leaves))]
