"""How a system's blocks of rows stand beside each other in panels, and which products a step takes."""

from dataclasses import dataclass

from tidegate.conventions import Block
from tidegate.ops.call import SYSTEMS

__all__ = ["LAYOUTS", "Layout", "side_by_side"]


@dataclass(frozen=True)
class Layout:
    """One system, as its kernels see it.

    A row of gradients holds, for each vector of units, what arrives at the past's part of the candidate, at the
    reset and the update gate where the system has them, and at the candidate's input part, in this order: the product
    with the past and the product with the input are then one run of neighbours each.
    """

    system: str
    #: The blocks of the product with the input.
    inputs: tuple[Block, ...]
    #: The blocks of the product with the past.
    past: tuple[Block, ...]
    #: The blocks of a second product, with `Gr*a(t-1)`.
    relevant: tuple[Block, ...] = ()

    @property
    def width(self) -> int:
        """How many vectors a row of gradients has for each vector of units."""
        return len(self.inputs) + 1

    @property
    def past_at(self) -> int:
        """Where in such a row the gradients of `past` begin."""
        return 0 if "candidate" in self.past else 1

    @property
    def inputs_at(self) -> int:
        """Where those of `inputs` begin."""
        return 1

    @property
    def relevant_at(self) -> int:
        """Where those of `relevant` begin."""
        return self.width - 1

    def products(self, inputs: int, units: int) -> tuple[tuple[str, tuple[Block, ...], int], ...]:
        """The products of a step: the end of their fields' names, their blocks, and how many numbers are multiplied."""
        return ("IN", self.inputs, inputs), ("PAST", self.past, units), ("RELEVANT", self.relevant, units)

    def blocks(self, names: tuple[Block, ...]) -> tuple[int, ...]:
        """Where the blocks stand in the framework's weights."""
        return tuple(SYSTEMS[self.system].convention.blocks.index(name) for name in names)

    def signs(self, names: tuple[Block, ...]) -> tuple[float, ...]:
        """What the framework's weights of these blocks are multiplied by."""
        return tuple(float(SYSTEMS[self.system].convention.sign(name)) for name in names)


LAYOUTS = {
    layout.system: layout
    for layout in (
        Layout("dense", inputs=("candidate",), past=()),
        Layout("rnn", inputs=("candidate",), past=("candidate",)),
        Layout("update-only", inputs=("update", "candidate"), past=("candidate", "update")),
        Layout("gru", inputs=("reset", "update", "candidate"), past=("candidate", "reset", "update")),
        Layout(
            "gru-reset-before",
            inputs=("reset", "update", "candidate"),
            past=("reset", "update"),
            relevant=("candidate",),
        ),
    )
}


def side_by_side(lanes: int, rows: int) -> int:
    """How many columns lie side by side where a product runs over rows: whole vectors, and the rows of a tile."""
    return max(lanes, rows)
