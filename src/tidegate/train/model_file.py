"""A model with its question in one file: safetensors, with the configuration as JSON in its header."""

from pathlib import Path

from tidegate.errors import FileError, InputValueError
from tidegate.train.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from tidegate.train.forecast import task_from
from tidegate.train.model import ModelConfig, SequenceModel
from tidegate.train.tasks import Task

__all__ = ["load_model", "save_model"]


def save_model(model: SequenceModel, task: Task, path: str | Path) -> None:
    """Write the model's weights and configuration, and what it is asked, as one safetensors file; whole or not at all.

    Raises `FileError` if the disk is full or the folder cannot be written.
    """
    state = {"config": model.config.to_dict(), "task": task.to_dict()}
    write_checkpoint(Checkpoint(model.state_dict(), state), Path(path))


def load_model(path: str | Path) -> tuple[SequenceModel, Task]:
    """The model that `save_model` wrote, ready to answer, and what it is asked; no code from the file is run.

    Raises:
        FileMissingError: there is no such file.
        FileError: it is damaged, the weights do not fit the configuration, or one is NaN or infinite.
    """
    found = read_checkpoint(Path(path))
    try:
        config, task = ModelConfig.from_dict(found.state["config"]), task_from(found.state["task"])
        _require_fit(config, task, len(found.tensors))
        model = SequenceModel(config)
        model.load_state_dict(found.tensors)
    except (InputValueError, KeyError, TypeError, RuntimeError) as error:
        told = " ".join(str(error).split())
        raise FileError(f"{str(path)!r} does not hold a model of this version of Tidegate: {told}") from error
    for name, tensor in found.tensors.items():
        if not tensor.isfinite().all():
            raise FileError(f"{str(path)!r} must hold finite numbers; {name} holds NaN or infinity")
    return model.eval(), task


def _require_fit(config: ModelConfig, task: Task, tensors: int) -> None:
    """Refuse a question that is not the model's, and more layers than weights before they are made."""
    if config.num_layers > tensors:
        raise InputValueError(f"num_layers must be at most the number of tensors, {tensors}; got {config.num_layers}")
    answered, asked = (f"{one.outputs} a {'step' if one.per_step else 'sequence'}" for one in (config, task))
    if answered != asked:
        raise InputValueError(f"it gives numbers, {answered}, but is asked for {asked}")
