"""The training loop: PyTorch Lightning's, quiet, on the CPU, and with an interrupt that stays an interrupt."""

import logging
import signal
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import Tensor

from tidegate.extras import require
from tidegate.train.models import SequenceClassifier
from tidegate.train.module import ClassifierTraining, Progress, ProgressCallback

require("lightning", "train")

import lightning.pytorch as lightning  # noqa: E402

__all__ = ["fit_quietly", "quiet", "train_classifier"]


def train_classifier(
    model: SequenceClassifier,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    learning_rate: float,
    clip_norm: float = 1.0,
    progress: Progress | None = None,
) -> ClassifierTraining:
    """Train `model` in place, one step for each batch: x (T, B, I) and label (B,); returns its record of losses.

    Raises `KeyboardInterrupt` if interrupted, with the model as the last whole step left it.
    """
    training = ClassifierTraining(model.train(), learning_rate)
    with quiet():
        trainer = lightning.Trainer(
            accelerator="cpu",
            devices=1,
            max_epochs=1,
            gradient_clip_val=clip_norm,
            callbacks=[] if progress is None else [ProgressCallback(progress)],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        fit_quietly(trainer, training, (batch for batch in batches))  # a list would pass for several loaders at once
    model.eval()
    return training


def fit_quietly(
    trainer: lightning.Trainer,
    module: lightning.LightningModule,
    batches: Iterable[object],
    validation: Iterable[object] | None = None,
) -> None:
    """Lightning's fit, with an interrupt that stays a `KeyboardInterrupt`."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit(module, batches, validation)
    except SystemExit:
        if not trainer.interrupted:
            raise
        # Lightning answers Ctrl-C with sys.exit and goes on ignoring it; whoever called us must hear of it instead
        signal.signal(signal.SIGINT, handler)
        raise KeyboardInterrupt from None


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Lightning's remarks about hardware, its tips and its own deprecations off the terminal."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\.")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
