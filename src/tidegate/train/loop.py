"""The training loop: PyTorch Lightning's, quiet, on the CPU, and with an interrupt that stays an interrupt."""

import logging
import signal
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from tidegate.extras import require

require("torchmetrics", "train")  # first, for Lightning needs it too
require("lightning", "train")

import lightning.pytorch as lightning  # noqa: E402

__all__ = ["fit_quietly", "quiet", "quiet_trainer"]


def quiet_trainer(*, logger: Any = False, **options: Any) -> lightning.Trainer:
    """Lightning's trainer on the CPU, to be used where it is `quiet`; to disk it writes what `logger` writes alone."""
    return lightning.Trainer(
        accelerator="cpu",
        logger=logger,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


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
