"""The sizes that are timed, and how many operations they ask for."""

from typing import NamedTuple

__all__ = ["MEMORY", "OWN", "STANDARD", "STREAM", "Shape", "read_shape"]


class Shape(NamedTuple):
    """One layer over a sequence: `batch` sequences of `steps` steps of `inputs` numbers, and `units` units."""

    batch: int
    steps: int
    inputs: int
    units: int

    def __str__(self) -> str:
        return f"({', '.join(map(str, self))})"

    @property
    def forward_operations(self) -> int:
        """Multiplications and additions of the products forwards; what happens inside a unit is not counted."""
        return 2 * 3 * self.units * (self.inputs + self.units) * self.steps * self.batch

    @property
    def training_operations(self) -> int:
        """The same forwards, for the gradients of the weights, and for the way back through the past."""
        back = 2 * 3 * self.units * self.units * self.steps * self.batch
        return 2 * self.forward_operations + back

    def shortened(self, steps: int) -> "Shape":
        """The same with no more than `steps` steps."""
        return self._replace(steps=min(steps, self.steps))


STANDARD = (
    Shape(1, 1000, 64, 128),
    Shape(8, 200, 64, 128),
    Shape(16, 1000, 64, 128),
    Shape(32, 100, 64, 64),
    Shape(32, 100, 128, 256),
    Shape(32, 100, 256, 256),
    Shape(64, 64, 512, 512),
    Shape(64, 200, 512, 512),
    Shape(256, 50, 64, 64),
)
#: Sizes that neither a vector nor a tile divides; they stay out of the means.
OWN = (Shape(3, 77, 13, 100), Shape(33, 41, 7, 130))
MEMORY = (Shape(16, 1000, 64, 128), Shape(32, 400, 128, 256), Shape(64, 200, 512, 512))
STREAM = tuple(Shape(1, 1, 64, units) for units in (128, 256, 512, 1024))


def read_shape(text: str) -> Shape:
    """`B,T,I,H` as a shape; raises `ValueError` for anything else."""
    parts = text.split(",")
    if len(parts) != 4 or not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise ValueError(f"a shape must be B,T,I,H, four whole numbers from 1 on; got {text!r}")
    return Shape(*map(int, parts))
