"""What the doctor found, as plain records: to be printed, or written as JSON."""

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

from tidegate.gates import Finding, GateHealth

__all__ = ["Diagnosis", "LayerDiagnosis"]


@dataclass(frozen=True, eq=False)
class LayerDiagnosis:
    """One recurrent layer or cell."""

    #: Where it stands, "" for the model itself; `others` are further names of the same layer.
    name: str
    others: tuple[str, ...]
    #: The name of its class or operator, and its sizes as far as they are known: "64 to 128, 2 layers, both ways".
    kind: str
    sizes: str
    #: What it computes, or None where that is not known.
    variant: str | None
    #: How its weights lie: the order of the gates, what is stored for the update gate, how many biases there are.
    layout: str | None
    #: What runs it, and why nothing faster does.
    backend: str
    notes: tuple[str, ...] = ()
    #: What its weights alone tell.
    findings: tuple[Finding, ...] = ()
    #: For each stacked layer and direction; empty without data.
    health: tuple[GateHealth, ...] = ()
    #: Why the gates were not looked at although there were data.
    unseen: str | None = None

    def __str__(self) -> str:
        names = ", also ".join(name or "the model itself" for name in (self.name, *self.others))
        lines = [f"{names}: {self.kind}{f' {self.sizes}' if self.sizes else ''}"]
        lines += [f"  variant: {self.variant}"] if self.variant else []
        lines += [f"  weights: {self.layout}"] if self.layout else []
        lines += [f"  runs on: {self.backend}"]
        lines += [f"  note: {note}" for note in self.notes]
        lines += [f"  ! {finding}" for finding in self.findings]
        for one in self.health:
            lines += [f"  {place_of(one)}: {measured(one)}", *(f"    ! {finding}" for finding in one.findings)]
        lines += [f"  gates not looked at: {self.unseen}"] if self.unseen else []
        return "\n".join(lines)


@dataclass(frozen=True, repr=False, eq=False)
class Diagnosis:
    """The recurrent layers of a model or file."""

    #: What was looked at, in words.
    source: str
    layers: tuple[LayerDiagnosis, ...]
    #: What concerns the whole.
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        count = len(self.layers)
        lines = [f"{self.source}: {count} recurrent {'layer' if count == 1 else 'layers'}"]
        return "\n".join([*lines, *map(str, self.layers), *(f"note: {note}" for note in self.notes)])

    __repr__ = __str__

    def record(self) -> dict[str, Any]:
        """All of it as what JSON can hold; numbers that are not finite are None."""
        layers = []
        for layer in self.layers:
            record = asdict(replace(layer, health=()))
            record["health"] = [_health_record(one) for one in layer.health]
            layers.append(record)
        return {"source": self.source, "layers": layers, "notes": list(self.notes)}


def place_of(health: GateHealth) -> str:
    """Which of the stacked layers, and which way."""
    return f"layer {health.depth}{', backward' if health.reverse else ''}"


def measured(health: GateHealth) -> str:
    """The numbers in one line."""
    parts = [f"T={health.steps}, B={health.sequences}"]
    for name, use in (("update", health.update), ("reset", health.reset)):
        if use is not None:
            parts.append(
                f"{name} gate {use.mean:.2f} on average, of {health.units} units {use.always_open} always open, "
                f"{use.never_open} never, {use.saturated} saturated"
            )
    if health.update is not None:
        parts.append(f"half-life {median_half_life(health):.3g} steps (median)")
    parts.append(f"gradient {health.gradient_per_step:.3g} per step back")
    return "; ".join(parts)


def median_half_life(health: GateHealth) -> float:
    """Over the units, in steps."""
    return float(health.half_life.median())


def _health_record(health: GateHealth) -> dict[str, Any]:
    return {
        "depth": health.depth,
        "reverse": health.reverse,
        "system": health.system,
        "steps": health.steps,
        "sequences": health.sequences,
        "units": health.units,
        "update": None if health.update is None else _finite(asdict(health.update)),
        "reset": None if health.reset is None else _finite(asdict(health.reset)),
        "candidate_saturated": health.candidate_saturated,
        "half_life": [_number(value) for value in health.half_life.tolist()],
        "gradient_per_step": _number(health.gradient_per_step),
        "findings": [asdict(finding) for finding in health.findings],
    }


def _finite(record: dict[str, Any]) -> dict[str, Any]:
    return {name: _number(value) for name, value in record.items()}


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
