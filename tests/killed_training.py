"""Train into a folder, or go on there; run as a program that is killed."""

import sys

import torch

from tests.train_files import read
from tests.train_helpers import fitting_settings
from tidegate.train import run

if __name__ == "__main__":
    torch.set_num_threads(1)
    run.read = read  # type: ignore[attr-defined,assignment]
    out, resume = sys.argv[1], sys.argv[2] == "resume"
    settings = fitting_settings(
        data=("symbols.csv",), label="answer", epochs=120, patience=120, dropout=0.2, recurrent_dropout=0.2, chunk=5
    )
    print("begun", flush=True)  # noqa: T201
    run.train(settings, out, resume=resume)
