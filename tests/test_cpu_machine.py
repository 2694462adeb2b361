"""Any processor: fewer lanes give the same numbers, and what the kernels cannot run on is said in one sentence."""

from importlib.metadata import requires

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tidegate as tg
from tests.contract.cases import SYSTEMS, Size, draw, forward, plain_loop, with_gradients
from tests.contract.common import FLOAT32, FLOAT64, GRU, MASKS
from tests.contract.compare import assert_same
from tidegate.errors import BackendError, InputValueError
from tidegate.ops.cpu import machine
from tidegate.ops.cpu.compiled import _features
from tidegate.ops.cpu.layout import LAYOUTS
from tidegate.ops.cpu.machine import LANES_VARIABLE

WIDEST = machine.machine().lanes
FEWER = [lanes for lanes in (8, 4) if lanes < WIDEST]


def assert_right(case, size: Size, dtype: torch.dtype, **options) -> None:
    inputs = draw(case, size)
    got = with_gradients(lambda leaves: forward(leaves, "cpu", **options), inputs, dtype)
    assert_same(got, with_gradients(lambda leaves: plain_loop(leaves, **options), inputs, FLOAT64), dtype=dtype)


@pytest.mark.skipif(not FEWER, reason="this processor has no wider vectors to do without")
@pytest.mark.parametrize("lanes", FEWER)
@pytest.mark.parametrize("size", [Size(9, 3, 5, 7), Size(5, 17, 3, 100), Size(3, 1, 33, 65)], ids=str)
def test_fewer_lanes_give_the_same_numbers(monkeypatch, lanes, size):
    monkeypatch.setenv(LANES_VARIABLE, str(lanes))
    assert machine.machine().lanes == lanes
    assert_right(GRU, size, FLOAT32, mask=MASKS["holes"](size))


@pytest.mark.slow
@pytest.mark.skipif(not FEWER, reason="this processor has no wider vectors to do without")
@pytest.mark.parametrize("lanes", FEWER)
@pytest.mark.parametrize("dtype", [FLOAT32, FLOAT64], ids=["float32", "float64"])
@pytest.mark.parametrize("case", [case for case in SYSTEMS if case.system in LAYOUTS], ids=str)
def test_fewer_lanes_give_the_same_numbers_in_every_system(monkeypatch, lanes, dtype, case):
    monkeypatch.setenv(LANES_VARIABLE, str(lanes))
    for size in (Size(9, 3, 5, 7), Size(5, 17, 3, 100)):
        assert_right(case, size, dtype)
        assert_right(case, size, dtype, reverse=True, mask=MASKS["holes"](size))


def test_code_for_a_lesser_processor_uses_none_of_the_better_ones_features():
    for kind in machine._possible():
        on = [name for name in _features(kind).split(",") if name.startswith("+")]
        assert not [name for name in on if name[1:].startswith(kind.without or ("never",))]


@settings(max_examples=60)
@given(
    batch=st.integers(1, 33),
    steps=st.integers(1, 6),
    inputs=st.sampled_from([1, 2, 7, 16, 17, 33]),
    units=st.sampled_from([1, 2, 7, 8, 15, 16, 17, 31, 48, 49, 100]),
    reverse=st.booleans(),
    threads=st.integers(1, 3),
)
def test_any_size_is_right(batch, steps, inputs, units, reverse, threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert_right(GRU, Size(steps, batch, inputs, units), FLOAT32, reverse=reverse)
    finally:
        torch.set_num_threads(before)


def test_lanes_that_the_processor_has_not_are_one_sentence(monkeypatch):
    monkeypatch.setenv(LANES_VARIABLE, "5")
    with pytest.raises(InputValueError, match=rf"{LANES_VARIABLE} must be one of .* on this processor; got '5'"):
        tg.GRU(2, 3, backend="cpu")(torch.zeros(1, 1, 2))


def refused(x, **options):
    """What explain() says of a layer, and that the backend by its name raises with the same reason."""
    layer = tg.GRU(2, 3, dtype=x.dtype, device=x.device, **options)
    told = tg.explain(layer, x)
    assert told.startswith("layer 0: reference (not cpu: its kernels ")
    named = tg.GRU(2, 3, dtype=x.dtype, device=x.device, backend="cpu", **options)
    with pytest.raises(BackendError) as raised:
        named(x)
    reason = str(raised.value).partition('backend "cpu" cannot run this layer: ')[2]
    assert f"(not cpu: {reason};" in told
    assert "\n" not in reason
    return reason


def test_a_missing_numba_is_one_sentence(monkeypatch):
    monkeypatch.setattr(machine, "_installed", lambda package: package != "numba")
    assert "numba is not installed (pip install numba)" in refused(torch.zeros(1, 1, 2))


@pytest.mark.parametrize("found", [(0, 61), (0, 69), (1, 0)])
def test_a_numba_that_the_kernels_are_not_written_for_is_one_sentence(monkeypatch, found):
    monkeypatch.setattr(machine, "_numba", lambda: found)
    told = f"Numba 0.62 and later, before 0.69, and {found[0]}.{found[1]} is installed"
    assert told in refused(torch.zeros(1, 1, 2))


def test_the_package_asks_for_the_numba_that_the_kernels_are_written_for():
    (asked,) = [need for need in requires("tidegate") or () if need.startswith("numba")]
    (low, high) = machine._NUMBAS
    assert asked == f"numba<{high[0]}.{high[1]},>={low[0]}.{low[1]}"


def test_a_processor_without_vectors_is_one_sentence(monkeypatch):
    monkeypatch.setattr(machine, "_possible", lambda: ())
    assert "AVX2 and FMA, AVX-512 or NEON" in refused(torch.zeros(1, 1, 2))


def test_other_dtypes_devices_and_functions_are_one_sentence():
    assert "float32 and float64, and the input is torch.float16" in refused(torch.zeros(1, 1, 2, dtype=torch.float16))
    assert "the input is on meta" in refused(torch.zeros(1, 1, 2, device="meta"))
    assert "this one is a function" in refused(torch.zeros(1, 1, 2), activation=torch.tanh)
