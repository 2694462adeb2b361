"""The class that a layer gets when it becomes Tidegate's, the class that it gets back, and what lies beside it.

Only the class of the object changes: everything that knows the object, its parameters or its hooks keeps them.
"""

from typing import Any, SupportsIndex

from torch import nn
from torch.nn.utils import parametrize

from tidegate.nn import GRU, RNN, GRUCell, RNNCell

__all__ = ["KINDS", "Added", "added_to", "plain_class", "tidegates_class", "torchs_class"]

#: Torch.nn's classes and Tidegate's.
KINDS: dict[type[nn.Module], type[nn.Module]] = {
    nn.GRU: GRU,
    nn.RNN: RNN,
    nn.GRUCell: GRUCell,
    nn.RNNCell: RNNCell,
}

#: What Tidegate's constructor sets and torch.nn's does not: in the module's own dict, and in those of its registers.
Added = dict[str, dict[str, Any]]

#: The classes that were made of users' own, so that two layers of one class stay of one class.
_MADE: dict[type[nn.Module], type[nn.Module]] = {}
_REGISTERS = ("_parameters", "_buffers", "_modules")


def plain_class(module: nn.Module) -> type[nn.Module]:
    """The class of `module` without what `torch.nn.utils.parametrize` put over it."""
    found: type[nn.Module] = parametrize.type_before_parametrizations(module)
    return found


def tidegates_class(module: nn.Module) -> type[nn.Module]:
    """The class that makes `module` Tidegate's: for a subclass of torch.nn's, one that is both."""
    cls = plain_class(module)
    return _parametrized_like(module, KINDS[cls] if cls in KINDS else _both(cls))


def torchs_class(module: nn.Module) -> type[nn.Module]:
    """The class that `module` had before it became Tidegate's."""
    cls = plain_class(module)
    back = {ours: theirs for theirs, ours in KINDS.items()}
    return _parametrized_like(module, back[cls] if cls in back else cls.__bases__[0])


def added_to(module: Any, backend: str) -> Added:
    """What Tidegate's constructor would have set for a layer like `module`; read from one that has no memory."""
    theirs = next(kind for kind in KINDS if isinstance(module, kind))
    options: dict[str, Any] = {"device": "meta"}
    if issubclass(theirs, nn.RNN):  # its forward goes by `mode`, whatever the attribute `nonlinearity` says by now
        options["nonlinearity"] = module.mode.removeprefix("RNN_").lower()
    elif issubclass(theirs, nn.RNNCell):
        options["nonlinearity"] = module.nonlinearity
    if issubclass(theirs, nn.RNNBase):
        options |= {"num_layers": module.num_layers, "bidirectional": module.bidirectional}
    before, after = theirs(1, 1, **options), KINDS[theirs](1, 1, backend=backend, **options)
    own = {key: value for key, value in vars(after).items() if key not in vars(before)}
    registered = {
        register: {key: value for key, value in vars(after)[register].items() if key not in vars(before)[register]}
        for register in _REGISTERS
    }
    return {"": own} | registered


def _parametrized_like(module: nn.Module, base: type[nn.Module]) -> type[nn.Module]:
    """`base`, or for a parametrized module its own class over that base: the properties that its weights are."""
    if not parametrize.is_parametrized(module):
        return base
    made_anew = ("__dict__", "__weakref__", "__doc__")
    own = {key: value for key, value in vars(type(module)).items() if key not in made_anew}
    return type(f"Parametrized{base.__name__}", (base,), own)


def _both(cls: type[nn.Module]) -> type[nn.Module]:
    """A subclass of `cls`, which is one of torch.nn's without a forward of its own, and of Tidegate's."""
    if cls not in _MADE:
        ours = next(ours for theirs, ours in KINDS.items() if issubclass(cls, theirs))
        own = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
        _MADE[cls] = type(cls.__name__, (cls, ours), own | {"__reduce_ex__": _reduce})
    return _MADE[cls]


def _reduce(module: nn.Module, protocol: SupportsIndex) -> Any:
    """What pickle keeps: `cls`, which it finds by its name, in place of the class that was made from it."""
    both = plain_class(module)
    kept: Any = super(both, module).__reduce_ex__(protocol)
    _, arguments, *state = kept
    return (_empty, (both.__bases__[0], *arguments[1:]), *state) if arguments[:1] == (both,) else kept


def _empty(cls: type[nn.Module], *arguments: Any) -> nn.Module:
    """An object of the class that is `cls` and Tidegate's, to be filled by pickle."""
    both = _both(cls)
    return both.__new__(both, *arguments)
