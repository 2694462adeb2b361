"""What was done to the recurrent layers of a model, to be read by people: one line a layer."""

from dataclasses import dataclass
from typing import Any

__all__ = ["Changes", "Layer", "sizes_of"]


@dataclass(frozen=True)
class Layer:
    """One recurrent layer or cell of a model: where it is, what it is, and what was done with it."""

    #: Where it stands in the model, "" for the model itself; `others` are further names of the same object.
    name: str
    others: tuple[str, ...]
    #: The name of its class as the model was given: "GRU", "RNNCell", a subclass's own.
    kind: str
    #: Such as "64 to 128, 2 layers, both ways".
    sizes: str
    #: What runs it from now on or, for a layer that was left, why it was left.
    reason: str
    #: The backend that runs it; None for a layer that was left, or that is torch.nn's again.
    backend: str | None = None

    def __str__(self) -> str:
        names = ", also ".join(name or "the model itself" for name in (self.name, *self.others))
        sizes = f" {self.sizes}" if self.sizes else ""
        return f"{names}: {self.kind}{sizes}: {self.reason}"


@dataclass(frozen=True, repr=False)
class Changes:
    """The recurrent layers of a model: those that were changed, and those that were left, with the reason."""

    changed: tuple[Layer, ...]
    left: tuple[Layer, ...]

    def __str__(self) -> str:
        lines = [f"changed {len(self.changed)}, left {len(self.left)}"]
        lines += [f"  changed  {layer}" for layer in self.changed]
        lines += [f"  left     {layer}" for layer in self.left]
        return "\n".join(lines)

    __repr__ = __str__


def sizes_of(module: Any) -> str:
    """The sizes of a recurrent module in words, as far as it tells them."""
    sizes = [getattr(module, name, None) for name in ("input_size", "hidden_size")]
    if None in sizes:
        return ""
    words = [f"{sizes[0]} to {sizes[1]}"]
    if (layers := getattr(module, "num_layers", 1)) != 1:
        words.append(f"{layers} layers")
    if getattr(module, "bidirectional", False):
        words.append("both ways")
    return ", ".join(words)
