"""A model card: what a run's model is for, what it learned from, how well it does and what it is not known to do."""

from collections.abc import Iterator, Mapping
from typing import Any

from tidegate.nn.spec import NAMES
from tidegate.train.forecast import Forecast
from tidegate.train.run import Run

__all__ = ["epochs_in_words", "model_card"]

_TASKS = {
    "classify": "tells the class of a whole sequence",
    "label-steps": "tells the class of every step of a sequence",
    "regress": "predicts a number for a whole sequence",
    "regress-steps": "predicts a number for every step of a sequence",
    "forecast": "forecasts the next values of one of its inputs",
}
#: Fewer sequences than this make a score that chance moves by several points.
_FEW = 100


def model_card(run: Run, name: str) -> str:
    """The card of a run as Markdown, made of the run's facts alone; `name` is its title."""
    return "\n".join([*_head(run, name), *_learned(run), *_scores(run), *_limits(run), *_use(name), ""])


def _head(run: Run, name: str) -> Iterator[str]:
    config, task = run.model.config, run.task
    system = NAMES[config.variant]
    ways = ", read both ways" if config.bidirectional else ""
    layers = "one layer" if config.num_layers == 1 else f"{config.num_layers} layers"
    yield f"# {name}"
    yield ""
    yield f"A recurrent network that {_TASKS[task.name]}: `{task.label}`."
    yield ""
    size = f"{layers} of {config.hidden_size} units{ways}; {run.facts['parameters']:,} parameters"
    yield f"- **Network**: {system}, {size}."
    yield f"- **Inputs a step**: {', '.join(f'`{one.name}` ({one.kind})' for one in config.features)}."
    if isinstance(task, Forecast):
        quantiles = ", ".join(f"{one:g}" for one in task.quantiles)
        yield f"- **Answers**: the next {task.horizon:,} values of `{task.label}`, the quantiles {quantiles} of each."
    elif task.categories is not None:
        yield f"- **Answers**: a probability for each of {', '.join(f'`{one}`' for one in task.categories)}."
    else:
        yield f"- **Answers**: a number; in training {task.mean:.4g} on average, with a spread of {task.spread:.4g}."
    versions: Mapping[str, Any] = run.facts["versions"]
    yield f"- **Made with**: {', '.join(f'{package} {version}' for package, version in versions.items())}."
    yield ""


def _learned(run: Run) -> Iterator[str]:
    data, settings = run.facts["data"], run.settings
    part, apart = "", "No sequence is in two parts."
    if isinstance(run.task, Forecast):
        part, apart = "_steps", "Each sequence is cut in time: what is told at the end comes last."
    shortest = "" if data["shortest"] == data["longest"] else f"{data['shortest']:,} to "
    yield "## What it learned from"
    yield ""
    yield (
        f"{_counted(data['sequences'], 'sequence')} of {shortest}{_counted(data['longest'], 'step')}, "
        f"{data['steps']:,} in all: {data[f'train{part}']:,} to learn from, {data[f'validation{part}']:,} to tell when "
        f"to stop, {data[f'test{part}']:,} that were asked about only at the end. {apart}"
    )
    yield ""
    if data["files"]:
        yield f"Files: {', '.join(f'`{file}`' for file in data['files'])}."
        yield ""
    yield (
        f"Loss {run.task.loss}, batches of {settings.batch_size}, learning rate {settings.learning_rate:g} "
        f"({settings.schedule}), seed {settings.seed}; {epochs_in_words(run)}, in "
        f"{_counted(round(run.facts['seconds']), 'second')}."
    )
    yield ""


def _scores(run: Run) -> Iterator[str]:
    names = list(run.facts["validation"])
    yield "## How well it does"
    yield ""
    yield f"| part | sequences | steps | {' | '.join(names)} |"
    yield f"| --- | --- | --- | {' | '.join('---' for _ in names)} |"
    for part in ("validation", "test"):
        scores = run.facts[part]
        if scores:
            told = [scores.get(name) for name in names]  # None for a number that JSON does not have
            numbers = " | ".join("" if one is None else f"{one:.4f}" for one in told)
            data = run.facts["data"]
            yield f"| {part} | {data[part]:,} | {data[f'{part}_steps']:,} | {numbers} |"
    yield ""
    if run.facts["again"]:
        yield "The validation part's scores are of a network that had not learned it; the test part's are of this one."
    else:
        yield "The validation part chose the epoch, so its scores flatter; the test part's do not."
    yield ""


def epochs_in_words(run: Run) -> str:
    """How many epochs there were, and which counted."""
    epochs = len(run.facts["history"])
    if run.facts["again"]:
        return f"{epochs} epochs, and as many more with the validation part"
    return f"best after {run.facts['best_epoch'] + 1} of {epochs} epochs"


def _limits(run: Run) -> Iterator[str]:
    data = run.facts["data"]
    in_time = isinstance(run.task, Forecast)
    yield "## What is not known"
    yield ""
    if not run.facts["test"]:
        yield f"- It was not asked about {'steps' if in_time else 'sequences'} that had no part in training."
    elif in_time:
        yield "- The test part is one stretch of time: another could give another score."
    elif data["test"] < _FEW:
        count = _counted(data["test"], "sequence")
        yield f"- The test part has {count}: another draw of it could give a score some points away."
    yield f"- Sequences longer than {_counted(data['longest'], 'step')}, the longest of these, were never seen."
    yield "- Values far outside those of the training part, and sequences from another source, were never seen."
    if any(run.model.config.flagged):
        names = [
            one.name for one, flag in zip(run.model.config.features, run.model.config.flagged, strict=True) if flag
        ]
        yield f"- Values were missing in training in {', '.join(f'`{name}`' for name in names)}; elsewhere none were."
    yield ""


def _use(name: str) -> Iterator[str]:
    yield "## How to use it"
    yield ""
    yield "```sh"
    yield f"tidegate predict {name} NEW_DATA --out answers.csv"
    yield "```"


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
