"""An actor that answers slowly and says what it is at, so that it can be killed half-way."""

import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tidegate.train import ray_scoring

__all__ = ["LOG", "SlowAnswerer"]

#: Where the actors write; the processes of a cluster get it from the environment that the cluster was started in.
LOG = "TIDEGATE_TEST_LOG"


class SlowAnswerer(ray_scoring._Answerer):
    """Notes its process and the piece, waits until another is at work too, and then takes a second more."""

    def __call__(self, batch: Mapping[str, np.ndarray]) -> Iterator[Any]:
        path = Path(os.environ[LOG])
        with path.open("a") as log:
            log.write(f"{os.getpid()} {batch['item'][0]}\n")
        deadline = time.monotonic() + 100
        while len({line.split()[0] for line in path.read_text().splitlines()}) < 2 and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(1)
        yield from super().__call__(batch)
