"""Arrays in `.npy` and `.npz` files: what NumPy wrote comes back, and anything else is refused without running it."""

import io
import os
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.refusals import assert_refused
from tidegate.data.arrays import read_array, read_arrays
from tidegate.errors import FileError, FileMissingError


class Runs:
    """A pickle that makes a folder when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.path),))


def no(path: Path, sentence: str) -> None:
    """The file is refused."""
    assert_refused(lambda: read_array(path), FileError, sentence)


@given(
    array=hnp.arrays(
        st.one_of(hnp.floating_dtypes(endianness="?"), hnp.integer_dtypes(endianness="?"), hnp.boolean_dtypes()),
        hnp.array_shapes(min_dims=0, max_dims=4, min_side=0),
    ),
    packed=st.sampled_from(["npy", "npz", "compressed"]),
)
def test_arrays_come_back_to_the_bit(array, packed, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "a.npx"
    with path.open("wb") as file:
        if packed == "npy":
            np.save(file, array)
        else:
            (np.savez if packed == "npz" else np.savez_compressed)(file, x=array)
    found = read_array(path)
    assert found.dtype == array.dtype
    assert found.shape == array.shape
    assert found.tobytes() == array.tobytes()


def test_a_file_of_several_arrays_gives_them_by_name_and_is_no_one_array(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.arange(3), y=np.ones(2))
    assert {name: one.tolist() for name, one in read_arrays(tmp_path / "a.npz").items()} == {
        "x": [0, 1, 2],
        "y": [1, 1],
    }
    no(tmp_path / "a.npz", "a.npz' must hold one array; it holds x, y")
    np.savez(tmp_path / "none.npz")
    assert read_arrays(tmp_path / "none.npz") == {}
    no(tmp_path / "none.npz", "must hold one array; it holds none")
    np.save(tmp_path / "a.npy", np.ones(2))
    assert list(read_arrays(tmp_path / "a.npy")) == [""]


@pytest.mark.parametrize("packed", [False, True])
def test_objects_are_refused_and_do_not_run(packed, tmp_path):
    path, proof = tmp_path / "a.npy", tmp_path / "it ran"
    objects = np.empty(1, dtype=object)
    objects[0] = Runs(proof)
    with path.open("wb") as file:
        np.savez(file, x=objects) if packed else np.save(file, objects)
    no(path, "must hold numbers; it holds Python objects")
    assert not proof.exists()
    if not packed:
        np.load(path, allow_pickle=True)
        assert proof.exists()  # it would have


@pytest.mark.parametrize(
    ("array", "told"),
    [
        (np.ones(3, dtype=complex), "complex128"),
        (np.array(["a", "b"]), "<U1"),
        (np.array([b"a"]), "S1"),
        (np.zeros(2, dtype="datetime64[s]"), r"datetime64\[s\]"),
        (np.zeros(2, dtype=[("x", float), ("y", int)]), "'x'"),
        (np.zeros(2, dtype="V4"), "V4"),
    ],
)
def test_what_are_no_real_numbers_is_refused(array, told, tmp_path):
    np.save(tmp_path / "a.npy", array)
    no(tmp_path / "a.npy", rf"a\.npy' must hold real numbers; it holds .*{told}")
    np.savez(tmp_path / "a.npz", fine=np.ones(2), wrong=array)
    no(tmp_path / "a.npz", rf"'wrong' of '.*a\.npz' must hold real numbers; it holds .*{told}")


def whole(kind: str) -> bytes:
    """A whole file, to be damaged."""
    file = io.BytesIO()
    array = np.arange(100.0)
    np.save(file, array) if kind == "npy" else np.savez_compressed(file, x=array)
    return file.getvalue()


WHOLE = {kind: whole(kind) for kind in ("npy", "npz")}


@pytest.mark.parametrize("kind", WHOLE)
def test_a_truncated_file_is_refused_wherever_it_ends(kind, tmp_path):
    path = tmp_path / f"a.{kind}"
    for end in range(0, len(WHOLE[kind]), 7):
        path.write_bytes(WHOLE[kind][:end])
        no(path, "is truncated or not a .npy or .npz file|it holds Python objects, or is no file of numpy")


@settings(max_examples=300)
@given(
    kind=st.sampled_from(list(WHOLE)),
    places=st.lists(st.tuples(st.integers(0, 2**20), st.integers(0, 255)), min_size=1, max_size=6),
)
@pytest.mark.filterwarnings("ignore")
def test_a_file_with_wrong_bytes_is_read_or_refused(kind, places, tmp_path_factory):
    path, held = tmp_path_factory.getbasetemp() / "damaged", bytearray(WHOLE[kind])
    for place, value in places:
        held[place % len(held)] = value
    path.write_bytes(held)
    with suppress(FileError):
        read_arrays(path)


@pytest.mark.parametrize("held", [b"", b"text", b"1,2,3\n", b"\x93NUMPY", b"PK\x05\x06", b"\x80\x04N."])
def test_files_of_other_kinds_are_refused(held, tmp_path):
    (tmp_path / "a.npy").write_bytes(held)
    no(tmp_path / "a.npy", r"a\.npy' (is truncated or not a|must hold numbers; it holds Python objects, or is no file)")


def test_an_archive_of_something_else_and_paths_that_are_no_files_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("readme.txt", "hello")
    no(tmp_path / "a.npz", "'readme.txt' of .* must be an array; it is something else")
    no(tmp_path, "must be a file")
    with pytest.raises(FileMissingError, match="there is no file"):
        read_array(tmp_path / "none.npy")
    no(tmp_path / ("x" * 300), "cannot be read|there is no file")


def test_a_header_that_claims_more_than_there_is_memory_for_is_refused(tmp_path):
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000000,), }"
    header += b" " * (117 - len(header)) + b"\n"
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + b"\0" * 80)
    no(tmp_path / "a.npy", "is truncated or not")
