"""Arrays, in files and in memory: read back to the bit, mapped where they can be, and what is refused."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.data_writers import damaged, read, same, survives
from tests.refusals import assert_refused
from tidegate.data import Columns, Feature
from tidegate.errors import FileError, InputTypeError, InputValueError

NAN = np.nan
SHAPES = st.tuples(*[st.integers(1, 5)] * 3) | st.tuples(*[st.integers(1, 5)] * 2)
DTYPES = st.sampled_from([np.float64, np.float32, np.float16, np.int64, np.uint8, np.bool_, ">f8", ">i4"])
FINITE = {"allow_infinity": False, "allow_nan": True}


def arrays():
    return st.tuples(DTYPES, SHAPES).flatmap(
        lambda drawn: hnp.arrays(*drawn, elements=FINITE if np.dtype(drawn[0]).kind == "f" else None)
    )


@given(array=arrays(), fortran=st.booleans())
def test_a_npy_file_reads_back_to_the_bit(tmp_path_factory, array, fortran):
    assume(not np.isnan(array.reshape(-1, *array.shape[2:]).astype(float)).all(axis=0).any())
    path = tmp_path_factory.mktemp("wide") / "x.npy"
    np.save(path, np.asfortranarray(array) if fortran else array)
    sequences = read(path)
    same(sequences, array if array.ndim == 3 else array[:, :, None])
    assert sequences.values.dtype == array.dtype.newbyteorder("=") or sequences.values.dtype == array.dtype
    assert sequences.features[0] == Feature("x0", "boolean" if array.dtype == bool else "number")
    assert sequences.ids == [str(number) for number in range(len(array))]
    assert sequences.label is sequences.times is None


@given(array=arrays(), data=st.data())
def test_a_npz_file_with_lengths_and_labels(tmp_path_factory, array, data):
    count, steps = array.shape[:2]
    lengths = np.array(data.draw(st.lists(st.integers(1, steps), min_size=count, max_size=count)))
    y = data.draw(hnp.arrays(np.float64, (count,) if data.draw(st.booleans()) else (count, steps), elements=FINITE))
    kept = np.concatenate([one[:length] for one, length in zip(array, lengths, strict=True)])
    assume(not np.isnan(kept.astype(float)).all(axis=0).any())
    path = tmp_path_factory.mktemp("wide") / "x.npz"
    np.savez(path, x=array, y=y + 0.5, lengths=lengths, other=np.arange(3))
    sequences = read(path)
    three = array if array.ndim == 3 else array[:, :, None]
    same(sequences, [one[:length] for one, length in zip(three, lengths, strict=True)])
    assert sequences.label.per_step == (y.ndim == 2)
    expected = y if y.ndim == 1 else np.concatenate([one[:length] for one, length in zip(y, lengths, strict=True)])
    if sequences.label.categories is None:
        np.testing.assert_array_equal(sequences.label.values, expected + 0.5)


def test_one_npy_file_is_mapped_and_not_read(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((4, 3, 2), np.float32))
    assert isinstance(read(tmp_path / "x.npy").values.base, np.memmap)


def test_trailing_nan_is_missing_and_no_padding(tmp_path):
    np.save(tmp_path / "x.npy", np.array([[1, NAN, NAN], [1, 2, 3]]))
    assert read(tmp_path / "x.npy").lengths.tolist() == [3, 3]


def test_padding_may_be_infinite(tmp_path):
    np.savez(tmp_path / "x.npz", x=np.array([[1, np.inf], [1, 2]]), lengths=[1, 2])
    assert read(tmp_path / "x.npz").lengths.tolist() == [1, 2]


def test_labels_are_classes_if_they_look_like_them(tmp_path):
    for y, categories in [
        (np.array([2, 1, 1]), ("1", "2")),
        (np.array([True, False, True]), ("false", "true")),
        (np.array([0.5, 1, 1]), None),
        (np.array([7, 8, 8]), None),
    ]:
        np.savez(tmp_path / "x.npz", x=np.zeros((3, 2)), y=y)
        label = read(tmp_path / "x.npz").label
        assert label.categories == categories
        told = label.values if categories is None else [categories[int(code)] for code in label.values]
        assert [str(value).lower() for value in told] == [
            str(value).lower() for value in (y if categories else y * 1.0)
        ]
    made = read(tmp_path / "x.npz", columns=Columns(categorical=("y",))).label
    assert made.categories == ("7", "8")


def test_labels_and_times_under_other_names(tmp_path):
    np.savez(tmp_path / "x.npz", x=np.zeros((2, 3)), kind=[[0, 1, 1], [1, 0, 0]], t=[0.0, 1, 5])
    sequences = read(tmp_path / "x.npz", columns=Columns(label="kind", time="t"))
    assert sequences.label.name == "kind"
    assert sequences.label.per_step
    assert sequences.times.tolist() == [0, 1, 5, 0, 1, 5]


def test_several_files_are_one_set(tmp_path):
    first, second = np.zeros((2, 3, 2), np.float32), np.ones((1, 5, 2))
    np.save(tmp_path / "a.npy", first)
    np.save(tmp_path / "b.npy", second)
    sequences = read(tmp_path)
    same(sequences, [*first, *second])
    assert sequences.ids == ["a.npy:0", "a.npy:1", "b.npy:0"]
    np.save(tmp_path / "c.npy", np.zeros((1, 2, 3)))
    assert_refused(
        lambda: read(tmp_path), FileError, "must have the same features; '.*a.npy' has 2 and '.*c.npy' has 3"
    )


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"x": np.zeros(3)}, r"must be \(S, T\) or \(S, T, F\), and none of them 0; it is \(3,\)"),
        ({"x": np.zeros((0, 3))}, r"it is \(0, 3\)"),
        ({"z": np.zeros((2, 3))}, "'.*npz' must hold an array 'x'; it holds 'z'"),
        ({"x": np.zeros((2, 3)), "y": np.zeros(3)}, r"'y' of '.*' must be \(2,\)"),
        ({"x": np.zeros((2, 3)), "lengths": np.zeros(2, int)}, "'lengths' of '.*' must be from 1 to 3; .* 0 is 0"),
        ({"x": np.zeros((2, 3)), "lengths": np.ones(2)}, r"'lengths' of '.*' must be \(2,\) whole numbers"),
        (
            {"x": np.array([[1, 2], [3, np.inf]])},
            "x of '.*' must be finite; it is inf at sequence 1, step 1, feature 0",
        ),
        (
            {"x": np.zeros((2, 3)), "y": np.array([0, -np.inf])},
            "the label of '.*' must be finite; it is -inf at seq.* 1",
        ),
        ({"x": np.array([["a"]])}, "must hold real numbers"),
        ({"x": np.zeros((2, 3), complex)}, "must hold real numbers"),
    ],
)
def test_what_does_not_fit_is_one_sentence(tmp_path, content, sentence):
    np.savez(tmp_path / "x.npz", **content)
    assert_refused(lambda: read(tmp_path / "x.npz"), FileError, sentence)


def test_infinity_deep_in_a_mapped_file_is_found(tmp_path):
    array = np.zeros((3, 70_000, 2), np.float32)
    array[2, 69_999, 1] = -np.inf
    np.save(tmp_path / "x.npy", array)
    assert_refused(lambda: read(tmp_path / "x.npy"), FileError, "-inf at sequence 2, step 69999, feature 1")


def test_times_that_fall_are_one_sentence(tmp_path):
    np.savez(tmp_path / "x.npz", x=np.zeros((2, 2)), t=[[0, 1], [1, 0]])
    assert_refused(
        lambda: read(tmp_path / "x.npz", columns=Columns(time="t")), FileError, "never fall; those of sequence 1 do not"
    )


def test_a_npy_file_has_no_labels(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((2, 3)))
    assert_refused(
        lambda: read(tmp_path / "x.npy", columns=Columns(label="y")), InputValueError, "without labels or times"
    )


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_empty_truncated_and_other_files_are_one_sentence(tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    (np.save if suffix == ".npy" else lambda path, x: np.savez(path, x=x))(path, np.zeros((20, 30)))
    whole = path.read_bytes()
    for kept in (0, 1, 6, 50, 127, 128, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:kept])
        assert_refused(lambda: read(path), FileError, rf"x\{suffix}' (is empty|is truncated|must hold)")
    path.write_text("no numbers here")
    assert_refused(lambda: read(path), FileError, rf"x\{suffix}'")


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_damaged_files_are_read_or_refused(tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    x = np.arange(24, dtype=np.float32).reshape(2, 4, 3)
    if suffix == ".npy":
        np.save(path, x)
    else:
        np.savez(path, x=x, y=[0, 1], lengths=[3, 4])
    counts = survives(read, path.read_bytes(), tmp_path / f"damaged{suffix}", 0.7)
    assert counts["FileError"] > 20


@given(lengths=st.lists(st.integers(1, 7), min_size=1, max_size=6), width=st.integers(1, 3), flat=st.booleans())
def test_lists_in_memory_keep_their_lengths(lengths, width, flat):
    rng = np.random.default_rng(0)
    x = [rng.normal(size=length if flat else (length, width)) for length in lengths]
    y = [rng.normal(size=length) for length in lengths]
    sequences = read(x, y=y)
    same(sequences, [one[:, None] if flat else one for one in x])
    assert sequences.label.per_step
    np.testing.assert_array_equal(sequences.label.values, np.concatenate(y))


def test_lengths_from_1_to_100_000():
    sequences = read([np.zeros((1, 2)), np.ones((100_000, 2))], y=["b", "a"])
    assert sequences.lengths.tolist() == [1, 100_000]
    assert sequences.label.categories == ("a", "b")
    assert sequences.label.values.tolist() == [1, 0]


def test_arrays_in_memory_are_not_copied():
    x = np.zeros((4, 3, 2), np.float32)
    assert np.shares_memory(read(x).values, x)
    assert read(x, y=[1, 2, None, 1]).label.values.tolist()[:2] == [0, 1]


def test_tensors_are_arrays():
    import torch  # noqa: PLC0415

    same(read(torch.ones(2, 3, 1)), np.ones((2, 3, 1)))


@pytest.mark.parametrize(
    ("x", "y", "error", "sentence"),
    [
        ([], None, InputValueError, "at least one sequence; it is empty"),
        ([np.zeros((0, 2))], None, InputValueError, r"x\[0\] must be \(T,\) or \(T, F\), and none of them 0"),
        ([np.zeros((1, 2)), np.zeros((1, 3))], None, InputValueError, r"x\[0\] has 2 and x\[1\] has 3"),
        ([np.zeros(2), np.array([1, np.inf])], None, InputValueError, r"x of x\[1\] must be finite; it is inf"),
        (np.zeros((2, 2, 2, 2)), None, InputValueError, r"x must be \(S, T\) or \(S, T, F\)"),
        (np.array([["a"]]), None, InputTypeError, "x must hold real numbers; it holds <U1"),
        ([["a"]], None, InputTypeError, r"x\[0\] must hold real numbers"),
        (np.zeros((2, 3)), [0], InputValueError, "a label for each of the 2 sequences; it has 1"),
        (np.zeros((2, 3)), [[0, 1], [1, 2]], InputValueError, r"y\[0\] must be \(3,\), a label for each step"),
        (np.zeros((2, 3)), [0, np.inf], InputValueError, "the label 'y' must be finite; that of 1 is infinite"),
        (np.zeros((3, 3)), [0, "a", 1], InputValueError, "label 1: 'y' is a text, and before it is a number"),
        (np.zeros((3, 3)), 7, InputTypeError, "y must be a list or array of labels; got int"),
        (7, None, InputTypeError, "data must be a path, .* got int"),
    ],
)
def test_what_does_not_fit_in_memory_is_one_sentence(x, y, error, sentence):
    assert_refused(lambda: read(x, y=y), error, sentence)


def test_headers_that_look_like_those_of_python_2_give_no_warning(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, np.ones((2, 3)))
    path.write_bytes(path.read_bytes().replace(b"(2, 3)", b"(2L,3)"))
    same(read(path), np.ones((2, 3, 1)))
    path.write_bytes(path.read_bytes().replace(b"{'descr'", b"\n  'descr'"))
    assert_refused(lambda: read(path), FileError, "x.npy' is truncated or not a .npy")


def test_a_label_that_is_named_must_be_given():
    assert_refused(
        lambda: read(np.zeros((2, 2)), columns=Columns(label="kind")),
        InputValueError,
        r"labels \(y\) must be given",
    )
    assert read(np.zeros((2, 2)), y=["a", "b"], columns=Columns(label="kind")).label.name == "kind"


def test_damage_changes_something():
    rng = np.random.default_rng(0)
    assert sum(damaged(b"0123456789", rng) != b"0123456789" for _ in range(50)) > 40
