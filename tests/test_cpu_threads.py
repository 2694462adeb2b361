"""Threads: the same numbers to the bit in every run, from eight at once, after a fork; with any number of them the same
states to the bit, and the same sums over sequences to rounding."""

import os
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

import tidegate as tg
from tests.contract.cases import Size, draw, forward, with_gradients
from tests.contract.common import FLOAT32, GRU, GRU_RESET_BEFORE
from tests.contract.compare import assert_same
from tidegate.ops.cpu import compiled, team

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
SIZES = [Size(40, 1, 5, 130), Size(40, 3, 5, 100), Size(30, 17, 33, 64)]


pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def compute(size: Size, case=GRU, seed: int = 0) -> dict[str, torch.Tensor]:
    return with_gradients(lambda leaves: forward(leaves, "cpu"), draw(case, size, seed=seed), FLOAT32)


@pytest.fixture(params=["openmp", "own"])
def threads_of(request, monkeypatch):
    """Torch's threads, and those of the module, which take their place where torch's cannot be used."""
    if request.param == "own":
        monkeypatch.setattr(team, "_openmp", lambda: None)
    elif team._openmp() is None:
        pytest.skip("this torch has no OpenMP of the GNU kind")
    return request.param


def apart(found: dict[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """What belongs to one sequence, and the sums over all of them."""
    sums = {name: one for name, one in found.items() if name.startswith(("d_weight", "d_bias"))}
    return {name: one for name, one in found.items() if name not in sums}, sums


@pytest.mark.parametrize("case", [GRU, GRU_RESET_BEFORE], ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_number_of_threads_changes_no_more_than_the_order_of_sums(case, size, threads_of):
    torch.set_num_threads(1)
    one_each, sums = apart(compute(size, case))
    assert len(sums) == 4
    for threads in (2, 3, 5):
        torch.set_num_threads(threads)
        first = compute(size, case)
        assert_same(apart(first)[0], one_each, exact=True)
        assert_same(apart(first)[1], sums)
        for _ in range(3):
            assert_same(compute(size, case), first, exact=True)


@pytest.mark.parametrize(
    ("threads", "size"), [(2, Size(1, 1, 900, 900)), (2, Size(513, 1, 9, 128)), (3, Size(257, 2, 9, 160))]
)
def test_a_chunk_of_fewer_steps_than_threads_ends(threads, size):
    """The last chunk has one step, whose input's gradient is one thread's alone."""
    torch.set_num_threads(threads)
    together = compute(size)
    torch.set_num_threads(1)
    assert_same(together, compute(size))


@pytest.mark.parametrize(
    ("threads", "size", "expected"),
    [
        (1, Size(40, 17, 33, 64), 1),
        (3, Size(40, 17, 33, 64), 3),
        (3, Size(900, 1, 33, 96), 2),  # so many have units enough
        (8, Size(900, 3, 33, 64), 3),  # a sequence each
        (2, Size(2, 1, 3, 5), 1),  # not worth it
    ],
)
def test_as_many_of_torchs_threads_run_as_have_work(monkeypatch, threads, size, expected):
    seen = []
    monkeypatch.setattr("tidegate.ops.cpu.launch.run_together", lambda *arguments: seen.append(arguments[-1]))
    torch.set_num_threads(threads)
    forward(draw(GRU, size), "cpu")
    assert seen == [expected]


def test_eight_threads_calling_at_once_get_the_answers_they_get_alone(threads_of):
    torch.set_num_threads(2)
    sizes = [SIZES[i % 3] for i in range(8)]
    alone = [compute(size, seed=i) for i, size in enumerate(sizes)]
    together: list[list[dict[str, torch.Tensor]]] = [[] for _ in sizes]
    start = threading.Barrier(8, timeout=60)

    def call(which: int) -> None:
        torch.set_num_threads(2)  # it is each thread's own
        start.wait()
        for _ in range(5):
            together[which].append(compute(sizes[which], seed=which))

    threads = [threading.Thread(target=call, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive()
    for which, ran in enumerate(together):
        assert len(ran) == 5
        for one in ran:
            assert_same(one, alone[which], exact=True)


def in_a_fork(check: Callable[[], None]) -> int:
    """The exit code of a forked process that runs `check`."""
    child = os.fork()
    if child == 0:
        try:
            check()
            os._exit(0)
        except BaseException:  # noqa: BLE001 - the child must not go on with the tests
            os._exit(1)
    waited = threading.Timer(60, lambda: os.kill(child, 9))
    waited.start()
    _, status = os.waitpid(child, 0)
    waited.cancel()
    return os.waitstatus_to_exitcode(status)


@forks
def test_a_forked_process_computes_the_same():
    torch.set_num_threads(2)
    before = forward(draw(GRU, SIZES[2]), "cpu")  # torch's threads are running now

    def check() -> None:
        for _ in range(3):
            assert_same(forward(draw(GRU, SIZES[2]), "cpu"), before, exact=True)

    assert in_a_fork(check) == 0


def stream_of(layer: tg.GRU, x: torch.Tensor) -> np.ndarray:
    stream = tg.Stream(layer)
    return np.stack([stream(x_t) for x_t in x.numpy()])  # by NumPy: torch's own threads are none after a fork


@forks
def test_a_stream_of_a_wide_layer_is_right_in_a_forked_process():
    torch.set_num_threads(2)
    layer, x = tg.GRU(64, 512, backend="cpu"), torch.randn(300, 64)
    expected = stream_of(layer, x)
    assert in_a_fork(lambda: np.testing.assert_array_equal(stream_of(layer, x), expected)) == 0


def test_a_stream_of_a_wide_layer_is_right_on_either_kind_of_threads(threads_of):
    layer, x = tg.GRU(64, 512, backend="cpu"), torch.randn(300, 64)
    torch.set_num_threads(1)
    alone = stream_of(layer, x)
    torch.set_num_threads(2)
    assert np.array_equal(stream_of(layer, x), alone)


@forks
def test_a_fork_waits_until_no_kernel_is_being_made():
    held = threading.Event()

    def make() -> None:
        with compiled._lock:
            held.set()
            time.sleep(0.3)

    maker = threading.Thread(target=make)
    maker.start()
    held.wait(10)

    def check() -> None:
        assert compiled._lock.acquire(timeout=5)

    assert in_a_fork(check) == 0
    maker.join(10)
    assert compiled._lock.acquire(timeout=5)
    compiled._lock.release()


def test_workers_of_a_data_loader_compute_the_same():
    torch.set_num_threads(2)
    expected = forward(draw(GRU, SIZES[1]), "cpu")["hidden"]
    loader = torch.utils.data.DataLoader(Computed(), batch_size=None, num_workers=2, multiprocessing_context="fork")
    for got in loader:
        assert_same({"hidden": got}, {"hidden": expected}, exact=True)


class Computed(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> torch.Tensor:
        return forward(draw(GRU, SIZES[1]), "cpu")["hidden"]
