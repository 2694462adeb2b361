"""`tidegate doctor`: what the doctor found, on the terminal or as JSON."""

import json
from collections.abc import Iterator
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from tidegate.data.arrays import read_array
from tidegate.diagnosis import Diagnosis, LayerDiagnosis, doctor
from tidegate.diagnosis.records import measured, median_half_life, place_of
from tidegate.gates import GateHealth, GateUse

__all__ = ["run"]

#: On narrower terminals the numbers stand in sentences.
_TABLE_WIDTH = 80


def run(
    console: Console, source: str, *, data: Path | None, layer: str | None, batch_first: bool, as_json: bool
) -> None:
    """Look at `source` and print what was found."""
    array = None if data is None else read_array(data)
    found = doctor(source, array, layer=layer, batch_first=batch_first)
    if as_json:
        console.print_json(json.dumps(found.record(), ensure_ascii=False, allow_nan=False))
        return
    console.print(Group(*_parts(found, console.width)))


def _parts(found: Diagnosis, width: int) -> Iterator[RenderableType]:
    count = len(found.layers)
    yield Text(f"{found.source}: {count} recurrent {'layer' if count == 1 else 'layers'}", style="bold")
    for layer in found.layers:
        yield Text("")
        yield from _layer(layer, width)
    if found.notes:
        yield Text("")
    for note in found.notes:
        yield Text(f"note: {note}")


def _layer(layer: LayerDiagnosis, width: int) -> Iterator[RenderableType]:
    names = ", also ".join(name or "the model itself" for name in (layer.name, *layer.others))
    yield Text.assemble((names, "bold cyan"), f"  {layer.kind} {layer.sizes}".rstrip())
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column()
    told = [("variant", layer.variant), ("weights", layer.layout), ("runs on", layer.backend)]
    told += [("note", note) for note in layer.notes]
    told += [("gates", f"not looked at: {layer.unseen}")] if layer.unseen else []
    for name, words in told:
        if words:
            facts.add_row(name, Text(words))
    yield Padding(facts, (0, 0, 0, 2))
    findings = [("", finding) for finding in layer.findings]
    if layer.health:
        if width < _TABLE_WIDTH:
            yield from (Padding(f"{place_of(one)}: {measured(one)}", (0, 0, 0, 2)) for one in layer.health)
        else:
            yield Padding(_measured(layer.health), (0, 0, 0, 2))
        several = len(layer.health) > 1
        findings += [(place_of(one) if several else "", finding) for one in layer.health for finding in one.findings]
        if not findings:
            yield Text("  nothing is wrong with its gates on these data", style="green")
    by_kind: dict[tuple[str, str], list[str]] = {}
    for place, finding in findings:
        by_kind.setdefault((finding.kind, finding.advice), []).append(
            f"{place}: {finding.sentence}" if place else finding.sentence
        )
    for (kind, advice), sentences in by_kind.items():
        yield Padding(Text(kind, style="bold yellow"), (0, 0, 0, 2))
        yield from (Padding(Text(sentence), (0, 0, 0, 4)) for sentence in sentences)
        yield Padding(Text.assemble(("advice ", "dim"), advice), (0, 0, 0, 4))


def _measured(healths: tuple[GateHealth, ...]) -> Table:
    first = healths[0]
    table = Table(
        box=SIMPLE_HEAD,
        pad_edge=False,
        title=f"{first.sequences} sequences of up to {first.steps} steps, {first.units} units",
        title_justify="left",
        title_style="dim",
        caption="gates: mean; units always open / never / saturated. Half-life: steps, median. Gradient: per step.",
        caption_justify="left",
    )
    table.add_column("", no_wrap=True)
    for name in ("update gate", "reset gate", "half-life", "gradient"):
        table.add_column(name, justify="right")
    for one in healths:
        half_life = "" if one.update is None else f"{median_half_life(one):.3g}"
        table.add_row(place_of(one), _use(one.update), _use(one.reset), half_life, f"{one.gradient_per_step:.3g}")
    return table


def _use(use: GateUse | None) -> str:
    if use is None:
        return "none"
    return f"{use.mean:.2f}; {use.always_open} / {use.never_open} / {use.saturated}"
