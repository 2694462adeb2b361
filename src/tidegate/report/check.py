"""What a record must be before a page is made of it; the first thing that is not so is refused in one sentence."""

import numpy as np

from tidegate.errors import InputValueError
from tidegate.report.looks import LOOKS
from tidegate.report.records import DemoRecord, FilmRecord, SystemRecord

__all__ = ["check_record"]

KINDS = ("opening", "advert", "rest")

#: How far a unit's shares of memory may be from summing to 1: float32, added up over some hundred steps.
SHARES_TOLERANCE = 1e-3


def check_record(record: DemoRecord) -> None:
    """Raise `InputValueError` unless the record is whole: lengths that fit, finite numbers, each in its range."""
    _check_film(record.film)
    _check_share("chance", record.chance)
    _check_elimination(record)
    for name in ("test_sequences", "training_steps", "batch_size", "hidden_size"):
        if getattr(record, name) < 1:
            raise InputValueError(f"{name} must be at least 1; got {getattr(record, name)}")
    if not record.systems:
        raise InputValueError("systems must hold at least one system; got none")
    names = [system.system for system in record.systems]
    if len(set(names)) < len(names):
        raise InputValueError(f"systems must name every system once; got {', '.join(names)}")
    for system in record.systems:
        _check_system(system, len(record.film.frames), record)


def _check_elimination(record: DemoRecord) -> None:
    if not 0 < record.elimination < 1:
        raise InputValueError(f"elimination must lie between 0 and 1; got {record.elimination}")
    if record.elimination < record.chance - SHARES_TOLERANCE:
        raise InputValueError(
            f"elimination must not be less than chance, {record.chance}, since ruling shots out makes no guess worse; "
            f"got {record.elimination}"
        )


def _check_film(film: FilmRecord) -> None:
    shape = film.frames.shape
    if len(shape) != 4 or shape[-1] != 3 or 0 in shape or film.frames.dtype != np.uint8:
        raise InputValueError(f"film.frames must be (T, height, width, 3) of uint8; got {shape} of {film.frames.dtype}")
    if not film.spans:
        raise InputValueError("film.spans must cover the film; got none")
    reached = 0
    for index, span in enumerate(film.spans):
        if span.kind not in KINDS:
            raise InputValueError(f'film.spans[{index}].kind must be "opening", "advert" or "rest"; got {span.kind!r}')
        if span.start != reached or span.stop <= span.start:
            raise InputValueError(
                f"film.spans[{index}] must start at step {reached}, where the span before it stops, and hold at least "
                f"one step; got {span.start} to {span.stop}"
            )
        reached = span.stop
    if reached != shape[0]:
        raise InputValueError(f"film.spans must stop at the film's {shape[0]} frames; got {reached}")
    for kind in ("opening", "advert"):
        found = sum(span.kind == kind for span in film.spans)
        if found != 1:
            raise InputValueError(f"film.spans must hold one span of kind {kind!r}; got {found}")


def _check_system(system: SystemRecord, steps: int, record: DemoRecord) -> None:
    if system.system not in LOOKS:
        raise InputValueError(f"a system must be one of {', '.join(LOOKS)}; got {system.system!r}")
    units = record.hidden_size
    for name, shape in (
        ("update", (steps, units)),
        ("reset", (steps, units)),
        ("memory", (steps + 1, units)),
        ("gradient_norms", (steps + 1,)),
        ("losses", (record.training_steps,)),
        ("accuracies", (record.training_steps,)),
    ):
        values = getattr(system, name)
        if values.shape != shape:
            raise InputValueError(f"{name} of the system {system.system!r} must be {shape}; got {values.shape}")
        if not np.isfinite(values).all():
            raise InputValueError(f"{name} of the system {system.system!r} must be finite; got NaN or infinity")
        if name in ("update", "reset", "memory", "accuracies") and (values.min() < 0 or values.max() > 1 + 1e-6):
            raise InputValueError(
                f"{name} of the system {system.system!r} must lie in 0..1; got {values.min():.4g}..{values.max():.4g}"
            )
    _check_sums(system)
    _check_means(system)
    for name in ("gradient", "seconds"):
        if not 0 <= getattr(system, name) < np.inf:
            raise InputValueError(
                f"{name} of the system {system.system!r} must be finite and not negative; got {getattr(system, name)}"
            )
    if system.gradient_norms.min() < 0:
        raise InputValueError(
            f"gradient_norms of the system {system.system!r} must not be negative; got {system.gradient_norms.min()}"
        )


def _check_means(system: SystemRecord) -> None:
    """The numbers of the table are shares, and a gate that the system lacks is what the definition says."""
    gates = ("update_on_advert", "update_on_opening", "untrained_update_on_advert", "untrained_update_on_opening")
    for name in ("accuracy", *gates, "memory_opening", "memory_advert", "memory_rest"):
        _check_share(f"{name} of the system {system.system!r}", getattr(system, name))
    fixed = LOOKS[system.system].update
    for name in gates:
        if fixed is not None and abs(getattr(system, name) - fixed) > SHARES_TOLERANCE:
            raise InputValueError(
                f"{name} of the system {system.system!r} must be {fixed:g}, by definition; got {getattr(system, name)}"
            )


def _check_sums(system: SystemRecord) -> None:
    """A state is a weighted average of what was written, so every unit's shares of memory sum to 1."""
    sums = system.memory.sum(axis=0, dtype=np.float64)
    worst = sums[np.abs(sums - 1).argmax()]
    if abs(worst - 1) > SHARES_TOLERANCE:
        raise InputValueError(
            f"memory of the system {system.system!r} must sum to 1 over the steps for every unit; got {worst:.4g}"
        )


def _check_share(name: str, value: float) -> None:
    if not 0 <= value <= 1 + SHARES_TOLERANCE:
        raise InputValueError(f"{name} must lie in 0..1; got {value}")
