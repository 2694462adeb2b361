"""How much the memory of a fresh process rises during one training step: `python -m benchmarks.peak torch 2,5,3,4 2`.

Prints one line of JSON: the bytes before, the bytes at the peak, and, where "check" follows, the largest error.
"""

import json
import resource
import signal
import sys
from pathlib import Path

from benchmarks.shapes import Shape, read_shape

__all__ = ["NAMES", "main"]

#: The competitors.
NAMES = ("torch", "tidegate", "tidegate, recompute")


def _peak() -> int:
    """The most memory that was resident since the last `_forget`, or since the process began, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():
        for row in status.read_text().splitlines():
            if row.startswith("VmHWM:"):
                return 1024 * int(row.split()[1])
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most


def _forget() -> None:
    """Let the peak be what is resident now, where Linux can (`man 5 proc_pid_clear_refs`).

    Else it may still be that of loading the libraries, and hide a rise below it.
    """
    refs = Path("/proc/self/clear_refs")
    if refs.exists():
        refs.write_text("5")


def main(name: str, shape: Shape, threads: int, *, check: bool) -> None:
    """Take one step and print the bytes."""
    import torch  # noqa: PLC0415 - the cores were shared out in the parent

    import tidegate as tg  # noqa: PLC0415
    from benchmarks.problem import Problem  # noqa: PLC0415
    from benchmarks.rounds import agreement  # noqa: PLC0415
    from benchmarks.torch_layers import training  # noqa: PLC0415

    torch.set_num_threads(threads)
    problem = Problem(shape)
    sizes = shape[2:]
    own = name != "torch"
    layer = tg.GRU(*sizes, recompute=name != "tidegate", backend="cpu") if own else torch.nn.GRU(*sizes)
    training(name, layer, Problem(shape.shortened(2))).call()
    step = training(name, layer, problem)
    for parameter in layer.parameters():
        parameter.grad = None
    _forget()
    before = _peak()
    step.call()
    told: dict[str, float] = {"before": before, "peak": _peak()}
    if check:
        told["error"] = agreement(step, problem.training)
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # whoever started it tells of an interrupt
    main(sys.argv[1], read_shape(sys.argv[2]), int(sys.argv[3]), check=sys.argv[4:] == ["check"])
