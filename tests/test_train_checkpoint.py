"""Checkpoints: to the bit, whole or not at all, and nothing left lying about."""

import errno
import json
import os
import stat
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.refusals import assert_refused
from tidegate.errors import FileError, FileMissingError
from tidegate.train.checkpoint import (
    Checkpoint,
    clear_unfinished,
    optimizer_state,
    read_checkpoint,
    restore_optimizer,
    unfinished,
    write_checkpoint,
    write_whole,
)

FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2]
WHOLE = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.bool]


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def bits(tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


@pytest.mark.parametrize("dtype", FLOATS + WHOLE, ids=str)
def test_what_is_read_is_what_was_written_to_the_bit(tmp_path, dtype):
    raw = torch.from_numpy(np.random.default_rng(0).integers(0, 2 if dtype == torch.bool else 256, 240, np.uint8))
    tensors = {
        "a": raw.view(dtype).reshape(2, 3, -1),  # NaN of every kind, infinities, subnormals
        "scalar": raw.view(dtype)[5],
        "none": torch.empty(0, 3, dtype=dtype),
        "across": raw.view(dtype).reshape(2, -1).T,
        "": torch.ones(2).to(dtype),
    }
    write_checkpoint(Checkpoint(tensors, {}), tmp_path / "one")
    found = read_checkpoint(tmp_path / "one")
    assert sorted(found.tensors) == sorted(tensors)
    for name, tensor in tensors.items():
        assert found.tensors[name].dtype == dtype
        assert found.tensors[name].shape == tensor.shape
        assert bits(found.tensors[name]) == bits(tensor)


def test_tensors_that_share_memory_are_written_apart(tmp_path):
    flat = torch.arange(6.0)
    write_checkpoint(Checkpoint({"all": flat, "part": flat[2:4], "again": flat}, {}), tmp_path / "one")
    found = read_checkpoint(tmp_path / "one").tensors
    assert found["all"].tolist() == found["again"].tolist() == [0, 1, 2, 3, 4, 5]
    assert found["part"].tolist() == [2, 3]


def test_the_state_comes_back_exactly(tmp_path):
    state = {"loss": 0.1 + 0.2, "never": None, "words": "größe\n\x00", "deep": {"list": [1, 2**62, True]}}
    write_checkpoint(Checkpoint({}, state), tmp_path / "one")
    assert dict(read_checkpoint(tmp_path / "one").state) == state


def test_what_json_cannot_hold_is_an_error_and_leaves_the_old_file(tmp_path):
    write_checkpoint(Checkpoint({}, {"epoch": 1}), tmp_path / "one")
    with pytest.raises(ValueError, match="JSON"):
        write_checkpoint(Checkpoint({}, {"loss": float("nan")}), tmp_path / "one")
    assert read_checkpoint(tmp_path / "one").state["epoch"] == 1
    assert names(tmp_path) == ["one"]


def test_a_truncated_file_is_refused_wherever_it_ends(tmp_path):
    write_checkpoint(Checkpoint({"a": torch.randn(20, 7), "b": torch.arange(3)}, {"epoch": 3}), tmp_path / "one")
    whole = (tmp_path / "one").read_bytes()
    for kept in [*range(0, len(whole), 7), *range(20), len(whole) - 1]:
        (tmp_path / "one").write_bytes(whole[:kept])
        assert_refused(lambda: read_checkpoint(tmp_path / "one"), FileError, "is truncated or not a safetensors file")
    (tmp_path / "one").write_bytes(whole + b"x")
    assert_refused(lambda: read_checkpoint(tmp_path / "one"), FileError, "is truncated or not a safetensors file")


def test_what_was_read_does_not_look_into_the_file(tmp_path):
    write_checkpoint(Checkpoint({"a": torch.ones(99_999)}, {}), tmp_path / "one")
    found = read_checkpoint(tmp_path / "one")
    (tmp_path / "one").write_bytes(b"")  # a tensor mapped into it would end the process here
    assert found.tensors["a"].sum() == 99_999


def test_any_flipped_bit_of_the_head_is_told_or_harmless(tmp_path):
    write_checkpoint(Checkpoint({"a": torch.randn(4)}, {"epoch": 3}), tmp_path / "one")
    whole = (tmp_path / "one").read_bytes()
    for place in range(len(whole) - 16):
        spoilt = bytearray(whole)
        spoilt[place] ^= 1 << place % 8
        (tmp_path / "one").write_bytes(spoilt)
        told = ""
        try:
            read_checkpoint(tmp_path / "one")
        except FileError as error:
            told = str(error)
        assert "\n" not in told


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    path = tmp_path / "one"
    for metadata in (None, {}, {"tidegate": "{"}, {"tidegate": "[]"}, {"tidegate": json.dumps({"format": "other"})}):
        path.write_bytes(safetensors.save({"a": torch.ones(1)}, metadata))
        assert_refused(lambda: read_checkpoint(path), FileError, "is not a checkpoint of the format")
    assert_refused(lambda: read_checkpoint(tmp_path / "two"), FileMissingError, "there is no file .*two")
    assert_refused(lambda: read_checkpoint(tmp_path), FileMissingError, "there is no file")


# ---------------------------------------------------------------------------------------------------------------------
# whole or not at all


CALLS = [(os, "open"), (os, "write"), (os, "fsync"), (os, "close"), (os, "replace"), (Path, "replace"), (Path, "open")]
CALLS += [(os, "rename"), (os, "fdopen"), (Path, "mkdir"), (Path, "chmod"), (Path, "unlink")]


@pytest.mark.parametrize(
    "stop", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device"), MemoryError()], ids=repr
)
@pytest.mark.parametrize("after", [False, True], ids=["instead", "after"])
@pytest.mark.parametrize(("owner", "name"), CALLS, ids=lambda value: getattr(value, "__name__", value))
def test_a_stop_at_any_call_leaves_the_old_file_or_the_new(tmp_path, monkeypatch, owner, name, after, stop):
    path = tmp_path / "one"
    write_whole(path, b"old")
    real, called = getattr(owner, name), []

    def stopping(*args, **options):
        called.append(name)
        if len(called) > 1:  # what is done to tidy up goes well
            return real(*args, **options)
        if after:
            done = real(*args, **options)
            if name in ("open", "fdopen"):
                done.close() if hasattr(done, "close") else os.close(done)
        raise stop

    monkeypatch.setattr(owner, name, stopping)
    caught: BaseException | None = None
    try:
        write_whole(path, b"new" * 10)
    except (FileError, KeyboardInterrupt, MemoryError) as error:
        caught = error
    if caught is None:
        assert not called, "a stop was swallowed"
        assert path.read_bytes() == b"new" * 10
    elif isinstance(stop, OSError):
        assert str(caught) == f"{str(path)!r} cannot be written: No space left on device"
    else:
        assert caught is stop
    monkeypatch.undo()
    assert path.read_bytes() in (b"old", b"new" * 10)
    assert names(tmp_path) == ["one"]


def test_the_calls_that_matter_are_made(tmp_path, monkeypatch):
    """The test above means something: content is on the disk before the move, and the move before it returns."""
    order = []

    def watch(owner, name):
        real = getattr(owner, name)

        def watched(*args):
            order.append(name)
            return real(*args)

        monkeypatch.setattr(owner, name, watched)

    watch(os, "fsync")
    watch(Path, "replace")
    write_whole(tmp_path / "one", b"new")
    assert order == ["fsync", "replace", "fsync"]


def test_a_full_disk_is_one_sentence_and_the_old_file_stays(tmp_path, monkeypatch):
    path = tmp_path / "one"
    write_checkpoint(Checkpoint({"a": torch.ones(3)}, {"epoch": 1}), path)

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert_refused(
        lambda: write_checkpoint(Checkpoint({}, {"epoch": 2}), path),
        FileError,
        "one' cannot be written: No space left on device",
    )
    assert read_checkpoint(path).state["epoch"] == 1
    assert names(tmp_path) == ["one"]


def test_a_really_full_disk(tmp_path):
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    (tmp_path / unfinished(Path("one")).name).symlink_to("/dev/full")
    assert_refused(lambda: write_whole(tmp_path / "one", b"x" * 9999), FileError, "No space left on device")
    assert names(tmp_path) == []


def test_folders_are_made_and_a_file_in_the_way_is_refused(tmp_path):
    write_whole(tmp_path / "new" / "deep" / "one", b"x")
    assert (tmp_path / "new" / "deep" / "one").read_bytes() == b"x"
    assert_refused(
        lambda: write_whole(tmp_path / "new" / "deep" / "one" / "two", b""), FileError, "cannot be written: "
    )
    assert_refused(lambda: write_whole(tmp_path / "new", b""), FileError, "new' cannot be written: Is a directory")
    assert names(tmp_path) == ["new"]


def test_others_may_read_what_the_umask_lets_them(tmp_path):
    before = os.umask(0o027)
    try:
        write_whole(tmp_path / "one", b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "one").stat().st_mode) == 0o640


def test_what_a_kill_left_behind_is_cleared(tmp_path):
    (tmp_path / "deep").mkdir()
    for path in (tmp_path / "config.yaml", tmp_path / "deep" / "last.safetensors"):
        unfinished(path).write_bytes(b"half")
        path.write_bytes(b"whole")
    (tmp_path / ".mine").write_bytes(b"")
    clear_unfinished(tmp_path)
    assert names(tmp_path) == [".mine", "config.yaml", "deep"]
    assert names(tmp_path / "deep") == ["last.safetensors"]
    clear_unfinished(tmp_path / "nowhere")


# ---------------------------------------------------------------------------------------------------------------------
# optimizers


def test_an_optimizer_goes_on_as_if_it_had_never_stopped(tmp_path):
    def network():
        torch.manual_seed(1)
        model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 1))
        return model, torch.optim.AdamW(model.parameters(), lr=0.1)

    def steps(model, optimizer, count):
        for at in range(count):
            optimizer.zero_grad()
            if at % 2:  # a parameter without a gradient has no state of its own
                model(torch.ones(2, 3)).square().mean().backward()
            else:
                model[1](torch.ones(2, 4)).square().mean().backward()
            optimizer.step()

    model, optimizer = network()
    steps(model, optimizer, 1)
    held = optimizer_state(optimizer, {id(parameter): name for name, parameter in model.named_parameters()})
    assert {name.partition("/")[0] for name in held} == {"1.weight", "1.bias"}
    write_checkpoint(Checkpoint({**model.state_dict(), **held}, {}), tmp_path / "one")
    found = read_checkpoint(tmp_path / "one").tensors

    again, other = network()
    again.load_state_dict({name: found[name] for name in model.state_dict()})
    restore_optimizer(other, dict(again.named_parameters()), {name: found[name] for name in held})
    steps(model, optimizer, 3)
    steps(again, other, 3)
    for one, two in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, two)
