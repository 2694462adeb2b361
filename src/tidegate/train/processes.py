"""The processes that train one model together, as torchrun or SLURM's srun started them: Lightning's DDP, over gloo."""

import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar

import torch
from torch import Tensor

from tidegate.errors import BackendError, FileError, InputTypeError, InputValueError, MissingExtraError, ProcessError
from tidegate.extras import require
from tidegate.train.loop import quiet

require("lightning", "train")

from lightning.fabric import Fabric  # noqa: E402
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment  # noqa: E402
from lightning.fabric.plugins.environments.lightning import LightningEnvironment  # noqa: E402
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment  # noqa: E402
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment  # noqa: E402
from lightning.pytorch.strategies import DDPStrategy  # noqa: E402

__all__ = ["ALONE", "Processes", "processes_here"]

Value = TypeVar("Value")

#: What is told to the others as it is; whatever else is raised ends its process, and with it all of them.
_REFUSALS = (InputValueError, InputTypeError, BackendError, FileError, MissingExtraError, OSError)


class Processes:
    """One process among `size`, all of which do the same, each on its part of every batch.

    Every method but `trainer_options` must be called by all of them in the same order.
    """

    def __init__(self, environment: ClusterEnvironment | None = None, devices: int = 1, nodes: int = 1) -> None:
        self.rank, self.size = 0, 1
        self._environment, self._devices, self._nodes = environment, devices, nodes
        if environment is not None:
            plan: Any = {"devices": devices, "num_nodes": nodes, "strategy": "ddp", "plugins": [environment]}
            with quiet():
                self._fabric = Fabric(accelerator="cpu", **plan)
                self._fabric.launch()  # waits until all are there
            self.rank, self.size = self._fabric.global_rank, self._fabric.world_size

    @property
    def part(self) -> tuple[int, int]:
        """Which part of every batch this process takes, of how many."""
        return self.rank, self.size

    def trainer_options(self) -> dict[str, Any]:
        """What Lightning's trainer must be told, so that it trains with these processes."""
        if self._environment is None:
            return {"devices": 1, "plugins": [LightningEnvironment()]}  # whatever a cluster says around us
        return {
            "devices": self._devices,
            "num_nodes": self._nodes,
            "plugins": [self._environment],
            "use_distributed_sampler": False,  # batches are divided here
            "strategy": DDPStrategy(broadcast_buffers=False),  # they are the same everywhere and stay so
        }

    def total(self, number: Tensor) -> Tensor:
        """The sum over all processes."""
        if self.size == 1:
            return number
        with self.together():
            summed: Tensor = self._fabric.all_reduce(number.clone(), reduce_op="sum")  # type: ignore[assignment]
        return summed

    def told(self, value: Value, by: int = 0) -> Value:
        """What process `by` says, which is never code or data of somebody else."""
        if self.size == 1:
            return value
        with self.together():
            return self._fabric.broadcast(value, by)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Raise `ProcessError` where another process turns out to have ended."""
        try:
            yield
        except RuntimeError as error:
            if self.size == 1 or "/gloo/" not in str(error):  # what it raises has no type of its own
                raise
            raise ProcessError("another process of this run has ended; resume goes on after the last epoch") from error

    @contextmanager
    def agreed(self) -> Iterator[None]:
        """What one of them refuses, all refuse, in its words."""
        refusal: Exception | None = None
        try:
            yield
        except _REFUSALS as error:
            if self.size == 1:
                raise
            refusal = error
        if self.size == 1:
            return
        refused = self._everyones(torch.tensor([int(refusal is not None)]))
        if not refused.any():
            return
        by = int(refused.argmax())
        kind, words = self.told(None if refusal is None else (type(refusal), str(refusal)), by) or (RuntimeError, "")
        raise refusal if refusal is not None and by == self.rank else kind(words)

    def first(self, call: Callable[[], Value]) -> Value:
        """What `call` gives in the first process, or its refusal, for all."""
        with self.agreed():
            value = call() if self.rank == 0 else None
        return self.told(value)  # type: ignore[return-value]  # the first one's

    def threads(self) -> int | None:
        """How many of the cores are each process's own, as many for all of them; None for one that is alone."""
        if self._environment is None:
            return None
        mine = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
        place = torch.tensor([self._environment.node_rank(), zlib.crc32(repr(list(mine)).encode())])
        sharing = int((self._everyones(place) == place).all(-1).sum())
        return int(self._everyones(torch.tensor([max(1, len(mine) // sharing)])).min())

    def _everyones(self, numbers: Tensor) -> Tensor:
        """(size, N): the N numbers of each process."""
        with quiet(), self.together():
            gathered: Any = self._fabric.all_gather(numbers)
        return torch.as_tensor(gathered).reshape(self.size, -1)


#: The process that is not one of several.
ALONE = Processes()


@cache
def processes_here() -> Processes:
    """The processes that torchrun or srun started, this one among them; `ALONE` if neither did.

    Raises `InputValueError` if they are not as many on every host.
    """
    if TorchElasticEnvironment.detect():
        environment: ClusterEnvironment = TorchElasticEnvironment()
        size, here = environment.world_size(), int(os.environ["LOCAL_WORLD_SIZE"])
        if size % here:
            raise InputValueError(f"every host must start as many processes; got {here} here, and {size} in all")
        nodes = size // here
    elif "SLURM_STEP_ID" in os.environ and SLURMEnvironment.detect():  # a step of srun, not the script around it
        if int(os.environ["SLURM_NTASKS"]) == 1:
            return ALONE
        if "SLURM_NTASKS_PER_NODE" not in os.environ:
            raise InputValueError("srun must be told --ntasks-per-node, the processes of a host; got --ntasks alone")
        environment = SLURMEnvironment(auto_requeue=False)  # checkpoints are our own
        here, nodes = int(os.environ["SLURM_NTASKS_PER_NODE"]), int(os.environ.get("SLURM_NNODES", "1"))
        if here * nodes != environment.world_size():
            raise InputValueError(
                f"every host must start as many processes; got {environment.world_size()} on {nodes} hosts of {here}"
            )
    else:
        return ALONE
    return Processes(environment, here, nodes) if environment.world_size() > 1 else ALONE
