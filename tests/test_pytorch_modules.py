"""PyTorch's own inputs for its GRU, RNN and cells, run on Tidegate's: everything that torch.nn's modules can, ours can.

What is checked is told in `tests/pytorch_inputs.py`, one function for each check.
"""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch

import tidegate as tg
from tests import pytorch_inputs
from tests.pytorch_inputs import CHECKS, IN_BOTH_MODES, KINDS, SLOW, cases, module_infos, refused, run
from tests.refusals import assert_refused

pytest.importorskip("expecttest", reason="PyTorch's test inputs are read with expecttest, which is not installed")

ROOT = Path(__file__).parents[1]
#: How many inputs PyTorch 2.13 has for each module; another version may have more, but not none.
INPUTS = {"GRU": 32, "RNN": 64, "GRUCell": 2, "RNNCell": 3}
PACKED = "torch.func does not map over a PackedSequence"
SKIPS = {"vectorised": PACKED, "per_sample_gradients": PACKED, "forward_derivatives": PACKED}


def counted(check, kind: str) -> Counter[str]:
    """What a check says of all inputs, if none is skipped unsaid."""
    modes = len(CHECKS[check]) * (2 if check in IN_BOTH_MODES else 1)
    skipped = INPUTS[kind] // 2 if check.__name__ in SKIPS and not kind.endswith("Cell") else 0
    return Counter(passed=(INPUTS[kind] - skipped) * modes) + Counter({SKIPS.get(check.__name__, ""): skipped * modes})


@pytest.mark.parametrize("kind", KINDS)
def test_there_are_as_many_inputs_as_we_say(kind):
    assert len(list(cases(kind, torch.float32))) == INPUTS[kind]
    assert module_infos()[kind].module_cls is KINDS[kind][0]


@pytest.mark.parametrize(
    "check",
    [pytest.param(one, marks=[pytest.mark.slow] * (one in SLOW)) for one in CHECKS],
    ids=lambda one: one.__name__,
)
@pytest.mark.parametrize("kind", KINDS)
def test_pytorchs_inputs_pass(check, kind):
    assert run(check, kind) == counted(check, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_pytorchs_inputs_run_on_the_kernels_and_transformed_ones_on_reference(kind):
    """Which backend it was that passed above."""
    case = next(cases(kind, torch.float32))
    arguments = case.arguments if not kind.endswith("Cell") else (case.arguments[0].unsqueeze(0).unsqueeze(0),)
    assert tg.explain(case.ours, *arguments).startswith("layer 0: cpu (")


@pytest.mark.parametrize("kind", KINDS)
def test_what_pytorch_expects_to_be_refused_is_refused(kind, as_users_run_it):
    wrong = list(refused(kind))
    assert len(wrong) == (6 if kind.endswith("Cell") else 14)
    for _, call in wrong:
        assert_refused(call, Exception, ".")


def test_a_check_fails_on_a_module_that_is_wrong():
    """The comparisons above compare: with one weight off by a thousandth, those of results and gradients fail."""
    for check in (pytorch_inputs.forward, pytorch_inputs.backward, pytorch_inputs.autocast):
        case = next(cases("GRUCell", torch.float32))
        with torch.no_grad():
            case.ours.weight_hh.mul_(-1 if check is pytorch_inputs.autocast else 1.001)
        with pytest.raises(AssertionError):
            check(case)


def test_a_cell_and_a_layer_are_made_on_the_device_and_in_the_dtype_asked_for():
    for kind, (_, ours) in KINDS.items():
        for dtype in (torch.float64, torch.bfloat16):
            module = ours(3, 4, device="meta", dtype=dtype)
            assert {(weight.dtype, weight.is_meta) for weight in module.parameters()} == {(dtype, True)}, kind


def test_refusals_are_sentences_on_devices_without_autocast_too():
    layer = tg.GRU(3, 4, device="meta")
    assert_refused(
        lambda: layer(torch.zeros(2, 1, 3, device="meta", dtype=torch.float64)), TypeError, "^input must have"
    )


# ---------------------------------------------------------------------------------------------------------------------
# PyTorch's compiler: in a process without the run-time check of annotations, which no compiler follows


def in_another_process(*names: str, module: str = "tests.pytorch_inputs") -> list[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    program = [sys.executable, "-W", "ignore", "-m", module, *names]
    done = subprocess.run(program, env=environment, capture_output=True, text=True, timeout=580, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.slow
def test_every_input_compiles_as_one_graph():
    told = "53 passed; 48 skipped: torch.compile does not look into pad_packed_sequence"
    assert in_another_process("compiled") == [f"compiled (auto): 101 inputs, {told}"]


@pytest.mark.slow
def test_every_layer_is_exported_with_a_dynamic_time_axis():
    told = "48 passed; 48 skipped: torch.export takes no PackedSequence as an input; 5 skipped: a cell has no time axis"
    assert in_another_process("exported") == [f"exported (auto): 101 inputs, {told}"]


@pytest.mark.slow
def test_a_time_axis_of_any_length_is_exported_and_compiled():
    lines = in_another_process(module="tests.exported_model")
    assert lines == [
        "kernels: tidegate.recurrence",
        "bfloat16: scan",
        "function: scan",
        "reference, both ways, mask: scan",
        "autocast: scan",
        "any batch: tidegate.recurrence",
        "loaded by another process",
        "compiled by the default backend",
    ]
