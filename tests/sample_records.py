"""A record of a film report without any training: networks whose gates are made up, and what follows from them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from tidegate.report import DemoRecord, FilmRecord, Span, SystemRecord

Floats = NDArray[np.float32]

CLIPS = Path(__file__).parents[1] / "src" / "tidegate" / "data" / "clips"

SPANS = (
    Span("opening", "shot 4", 0, 5),
    Span("advert", "advert", 5, 9),
    Span("rest", "shot 11", 9, 18),
    Span("rest", "shot 2", 18, 21),
    Span("rest", "shot 7", 21, 34),
    Span("rest", "shot 15", 34, 41),
    Span("rest", "shot 9", 41, 50),
)

TITLES = {
    "dense": "Dense layer",
    "rnn": "RNN",
    "update-only": "Update-only GRU",
    "gru": "GRU",
    "gru-default-init": "GRU, PyTorch's initialisation",
}


def sample_record(
    *, units: int = 64, training_steps: int = 600, frames: NDArray[np.uint8] | None = None, seed: int = 7
) -> DemoRecord:
    """Five systems on one film of 50 frames; the numbers are of the size that training gives, the frames are noise."""
    random = np.random.default_rng(seed)
    if frames is None:
        frames = random.integers(0, 256, (50, 72, 88, 3), dtype=np.uint8)
    return DemoRecord(
        chance=0.125,
        elimination=0.2,
        test_sequences=400,
        seed=seed,
        training_steps=training_steps,
        batch_size=32,
        hidden_size=units,
        chrono_steps=50,
        film=FilmRecord(frames, SPANS),
        systems=tuple(_system(name, units, training_steps, random) for name in TITLES),
        versions={"tidegate": "0.1.0", "torch": "2.13.0", "python": "3.11.2"},
    )


def clip_frames(height: int = 72, width: int = 88) -> NDArray[np.uint8]:
    """50 frames as the demo's films have them: runs of frames of the programme, and the advert."""
    starts = {
        "shot 4": 300,
        "advert": 20,
        "shot 11": 820,
        "shot 2": 120,
        "shot 7": 520,
        "shot 15": 1200,
        "shot 9": 1000,
    }
    pictures = {}
    for clip in ("programme", "advert"):
        with av.open(str(CLIPS / f"{clip}.mp4")) as container:
            pictures[clip] = [
                frame.reformat(width=width, height=height, format="rgb24").to_ndarray()
                for frame in container.decode(video=0)
            ]
    rows = []
    for span in SPANS:
        clip = "advert" if span.kind == "advert" else "programme"
        rows += [pictures[clip][starts[span.shot] + 2 * step] for step in range(span.stop - span.start)]
    return np.stack(rows)


def with_system(record: DemoRecord, name: str, **changes: Any) -> DemoRecord:
    """The record with one system changed."""
    systems = [replace(s, **changes) if s.system == name else s for s in record.systems]
    return replace(record, systems=tuple(systems))


def _system(name: str, units: int, training_steps: int, random: np.random.Generator) -> SystemRecord:
    update, reset = _gates(name, units, random)
    memory = _memory(update)
    reach = {"dense": 0.0, "rnn": 0.62, "update-only": 0.93, "gru": 0.97, "gru-default-init": 0.86}[name]
    accuracy = {"dense": 0.1225, "rnn": 0.1525, "update-only": 0.955, "gru": 0.985, "gru-default-init": 0.61}[name]
    by_kind = {kind: _held(memory, kind) for kind in ("opening", "advert", "rest")}
    norms = np.float32(reach) ** np.arange(50, -1, -1, dtype=np.float32)
    learned = 1 / (1 + np.exp(-(np.arange(training_steps) - training_steps * 0.45) / (training_steps * 0.07)))
    right = 0.125 + (accuracy - 0.125) * learned
    return SystemRecord(
        system=name,
        title=TITLES[name],
        parameters={"dense": 5_320, "rnn": 9_416, "update-only": 18_312, "gru": 27_208, "gru-default-init": 27_208}[
            name
        ],
        accuracy=accuracy,
        update_on_advert=float(update[5:9].mean()),
        update_on_opening=float(update[:5].mean()),
        untrained_update_on_advert={"dense": 1.0, "rnn": 1.0, "gru-default-init": 0.51}.get(name, 0.07),
        untrained_update_on_opening={"dense": 1.0, "rnn": 1.0, "gru-default-init": 0.5}.get(name, 0.06),
        memory_opening=by_kind["opening"],
        memory_advert=by_kind["advert"],
        memory_rest=by_kind["rest"],
        gradient=float(norms[5]),
        seconds=12.34 + units / 8,
        losses=(2.08 * (1 - right) / 0.875 * random.lognormal(0, 0.09, training_steps)).astype(np.float32),
        accuracies=(random.binomial(32, right) / 32).astype(np.float32),
        answer="shot 4" if accuracy > 0.5 else "shot 9",
        update=update,
        reset=reset,
        memory=memory,
        gradient_norms=norms,
    )


def _gates(name: str, units: int, random: np.random.Generator) -> tuple[Floats, Floats]:
    ones = np.ones((50, units), np.float32)
    if name in ("dense", "rnn"):
        return ones, ones * (name == "rnn")
    slow = np.exp(-random.uniform(0.5, np.log(50), units)) if name != "gru-default-init" else np.full(units, 0.3)
    keeps = random.random(units) < (0.5 if name != "gru-default-init" else 0.1)
    logits = np.log(slow / (1 - slow)) + random.normal(0, 0.4, (50, units))
    logits[:5] += 1.6
    logits[5:9] -= 2.5 if name == "gru" else 0.6
    logits[9:, keeps] -= 2.5
    update = 1 / (1 + np.exp(-logits))
    reset = 1 / (1 + np.exp(-random.normal(0.4, 1.2, (1, units)) - random.normal(0, 0.5, (50, units))))
    return update.astype(np.float32), (ones if name == "update-only" else reset.astype(np.float32))


def _memory(update: Floats) -> Floats:
    """The memory map of the last state, (T+1, H), as `Trace.memory` defines it."""
    keep = np.concatenate([np.cumprod((1 - update)[::-1], axis=0)[::-1], np.ones_like(update[:1])])
    return np.concatenate([keep[:1], update * keep[1:]]).astype(np.float32)


def _held(memory: Floats, kind: str) -> float:
    return float(sum(memory[s.start + 1 : s.stop + 1].mean(axis=1).sum() for s in SPANS if s.kind == kind))
