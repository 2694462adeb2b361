"""Every module of a model, with all its names."""

from collections.abc import Iterator

from torch import nn

__all__ = ["walk"]


def walk(model: nn.Module) -> Iterator[tuple[nn.Module, tuple[str, ...]]]:
    """Every module of `model`, itself first, once, with all its names; a circle of modules is entered once."""
    names: dict[int, tuple[nn.Module, list[str]]] = {}
    ahead = [("", model)]
    while ahead:
        name, module = ahead.pop()
        if id(module) in names:
            names[id(module)][1].append(name)
            continue
        names[id(module)] = (module, [name])
        # not named_children(), which leaves out the second name of a shared child
        children = [(key, child) for key, child in module._modules.items() if child is not None]
        ahead += [(f"{name}.{key}" if name else key, child) for key, child in reversed(children)]
    yield from ((module, tuple(found)) for module, found in names.values())
