"""Layers exported with a time axis of any length, for a process without the run-time check of annotations."""

import subprocess
import sys
import tempfile
from typing import Any

import torch
from torch import Tensor, nn

import tidegate as tg

TIME, BATCH = torch.export.Dim("time"), torch.export.Dim("batch")


def exported(name: str, layer: nn.Module, axes: dict[int, Any], **given: Tensor) -> None:
    """Export, run other lengths, and tell which operator the program calls."""
    like = next(layer.parameters())
    shapes: Any = {"input": axes, **{key: {0: TIME} for key in given}}
    with torch.no_grad():
        program = torch.export.export(
            layer, (torch.randn(6, 3, 3).to(like),), given, dynamic_shapes=shapes, strict=False
        )
        for steps in (1, 2, 11):
            x = torch.randn(steps, 5 if 1 in axes else 3, 3).to(like)
            other = {key: torch.rand(steps, 3) < 0.7 for key in given}
            torch.testing.assert_close(program.module()(x, **other), layer(x, **other))
    called = {str(node.target).removesuffix(".default") for node in program.graph.nodes if node.op == "call_function"}
    print(f"{name}:", *sorted(called & {"tidegate.recurrence", "scan"}))


def loaded_elsewhere(layer: nn.Module, x: Tensor) -> None:
    """A saved program is loaded and run where nothing but the operators was imported."""
    with tempfile.TemporaryDirectory() as folder:
        program, given = f"{folder}/program.pt2", f"{folder}/given.pt"
        torch.export.save(torch.export.export(layer, (x,), strict=False), program)
        torch.save((x, layer(x)), given)
        code = (
            f"import tidegate.ops, torch; x, told = torch.load({given!r}); "
            f"torch.testing.assert_close(torch.export.load({program!r}).module()(x), told)"
        )
        subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


def main() -> None:
    torch.manual_seed(0)
    time = {0: TIME}
    exported("kernels", tg.GRU(3, 4, num_layers=2, bidirectional=True), time)
    exported("bfloat16", tg.GRU(3, 4, dtype=torch.bfloat16), time)
    exported("function", tg.GRU(3, 4, reset="before", activation=torch.sin), time)
    both_ways = tg.RNN(3, 4, bidirectional=True, backend="reference")
    exported("reference, both ways, mask", both_ways, time, mask=torch.ones(6, 3, dtype=torch.bool))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        exported("autocast", tg.GRU(3, 4), time)
    exported("any batch", tg.GRU(3, 4), {0: TIME, 1: BATCH})

    layer, x = tg.GRU(3, 4), torch.randn(6, 2, 3)
    loaded_elsewhere(layer, x)
    print("loaded by another process")
    torch.testing.assert_close(torch.compile(layer, fullgraph=True)(x), layer(x))
    print("compiled by the default backend")


if __name__ == "__main__":
    main()
