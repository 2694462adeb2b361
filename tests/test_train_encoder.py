"""What a recurrent layer is given: normalised, with missing values filled and flagged, and categories embedded."""

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tests.refusals import assert_refused
from tests.train_helpers import sequences_of
from tidegate.data.sequences import Feature
from tidegate.errors import InputValueError
from tidegate.train.encoder import Encoder, statistics

CITY = Feature("city", "category", ("Bonn", "Cairo", "Lima"))
NUMBERS = st.one_of(st.floats(-1e6, 1e6, width=32), st.just(np.nan))


def fitted(sequences, numbers=None) -> Encoder:
    found = statistics(sequences, range(len(sequences)) if numbers is None else numbers)
    encoder = Encoder(sequences.features, list(map(bool, found.missing)))
    encoder.fit(found)
    return encoder


def encoded(encoder, values) -> np.ndarray:
    with torch.no_grad():
        out: np.ndarray = encoder(torch.as_tensor(values)[:, None])[:, 0].numpy()
    return out


def table_of(encoder) -> torch.Tensor:
    (table,) = encoder.embeddings
    weight: torch.Tensor = table.weight.detach()
    return weight


# ---------------------------------------------------------------------------------------------------------------------
# statistics


@given(
    pieces=st.lists(arrays(np.float64, st.tuples(st.integers(1, 7), st.just(3)), elements=NUMBERS), min_size=1),
    data=st.data(),
    offset=st.sampled_from([0.0, 1.0, -1e9, 1e12]),
)
def test_statistics_are_numpys_of_the_training_part(pieces, data, offset):
    sequences = sequences_of([piece + offset for piece in pieces])
    train = data.draw(st.lists(st.sampled_from(range(len(pieces))), min_size=1, unique=True))
    found = statistics(sequences, train)
    joined = np.concatenate([pieces[number] + offset for number in train])
    for place, column in enumerate(joined.T):
        there = column[~np.isnan(column)]
        assert found.count[place] == len(there)
        assert found.missing[place] == (len(there) < len(column))
        if not len(there):
            continue
        shifted = there - there[0]  # exact enough to compare with at an offset of 1e12
        assert found.mean[place] == pytest.approx(there[0] + shifted.mean(), rel=1e-15, abs=1e-9)
        if np.ptp(there) == 0:
            assert found.spread[place] == 0
        else:
            assert found.spread[place] == pytest.approx(shifted.std(), rel=1e-9, abs=1e-15 * abs(offset))


@example(steps=70_000)  # more than is looked at together
@given(steps=st.integers(1, 50))
def test_an_offset_of_a_trillion_costs_no_digits(steps):
    values = np.random.default_rng(steps).normal(size=(steps, 1))
    column = values + 1e12
    found = statistics(sequences_of([column, column[: steps // 2 + 1]]), [0, 1])
    both = np.concatenate([column, column[: steps // 2 + 1]]) - 1e12
    assert found.mean[0] - 1e12 == pytest.approx(both.mean(), abs=2e-4)
    if steps > 1:
        assert found.spread[0] == pytest.approx(both.std(), abs=1e-4)  # the mean itself has steps of 1e-4


def test_a_small_unit_is_no_constant():
    values = np.random.default_rng(0).normal(size=(50, 1)) * 1e-15
    found = statistics(sequences_of([values]), [0])
    assert found.spread[0] == pytest.approx(values.std())


@pytest.mark.parametrize("constant", [0.1, 1e12 + 0.3, -7.0, 1e-300])
def test_a_constant_is_one_however_its_sum_rounds(constant):
    found = statistics(sequences_of([np.full((999, 1), constant), np.full((7, 1), constant)]), [0, 1])
    assert found.spread[0] == 0
    assert found.mean[0] == constant


def test_statistics_of_a_memory_map_read_a_part_at_a_time(tmp_path, monkeypatch):
    values = np.random.default_rng(0).normal(size=(1000, 2)).astype(np.float32)
    np.save(tmp_path / "values.npy", values)
    mapped = np.load(tmp_path / "values.npy", mmap_mode="r")
    sequences = sequences_of([values[:600], values[600:]])
    object.__setattr__(sequences, "values", mapped)
    monkeypatch.setattr("tidegate.train.encoder._ROWS", 64)
    read = []
    whole = np.asarray

    def watched(part, *args):
        read.append(len(part))
        return whole(part, *args)

    monkeypatch.setattr("tidegate.train.encoder.np.asarray", watched)
    found = statistics(sequences, [0, 1])
    monkeypatch.undo()
    assert max(read) == 64
    assert sum(read) == 1000
    np.testing.assert_allclose(found.mean, values.mean(0, dtype=float), rtol=1e-9)
    np.testing.assert_allclose(found.spread, values.std(0, dtype=float), rtol=1e-9)


def test_statistics_see_the_training_part_alone():
    sequences = sequences_of([[[1.0], [3.0]], [[np.nan], [1e9]]])
    found = statistics(sequences, [0])
    assert (found.mean[0], found.spread[0], found.missing[0]) == (2, 1, False)


# ---------------------------------------------------------------------------------------------------------------------
# the encoder


@pytest.mark.parametrize("width", [1, 2, 50])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int32, np.uint8])
def test_inputs_have_mean_0_and_a_length_of_4(width, dtype):
    values = np.random.default_rng(0).normal(size=(4000, width)) * 20 + 100
    sequences = sequences_of([values.clip(0, 255).astype(dtype)])
    out = encoded(fitted(sequences), sequences.values)
    assert out.shape == (4000, width)
    assert np.abs(out.mean(0)).max() < 1e-4
    assert np.sqrt((out.astype(float) ** 2).sum(-1).mean()) == pytest.approx(4, rel=1e-4)


def test_constants_take_no_share_of_the_length_and_are_not_looked_at():
    values = np.random.default_rng(0).normal(size=(500, 5))
    values[:, 2:] = 7
    encoder = fitted(sequences_of([values]))
    out = encoded(encoder, values)
    assert np.sqrt((out.astype(float) ** 2).sum(-1).mean()) == pytest.approx(4, rel=1e-4)
    values[:, 2:] = 1e9  # no weight of theirs was ever trained
    assert np.array_equal(encoded(encoder, values), out)


def test_a_missing_number_is_the_mean_and_flagged():
    values = np.array([[1.0, 10.0, np.nan], [3.0, np.nan, 1.0], [2.0, 30.0, 0.0]])
    features = [Feature("a"), Feature("b"), Feature("c", "boolean")]
    encoder = fitted(sequences_of([values], features=features))
    out = encoded(encoder, values)
    assert encoder.width == out.shape[1] == 5
    assert out[1, 1] == 0
    assert out[0, 2] == 0
    assert np.array_equal(out[:, 3:], [[0, 1], [1, 0], [0, 0]])
    never = encoded(encoder, np.array([[np.nan, 20.0, 0.5]]))  # never missing in training: the mean, and no flag
    assert never[0, 0] == 0
    assert np.isfinite(never).all()


def test_everything_missing_gives_finite_inputs():
    encoder = fitted(sequences_of([[[1.0, 0.0], [np.nan, 2.0]]], features=[Feature("a"), CITY]))
    out = encoded(encoder, np.full((3, 2), np.nan))
    assert np.isfinite(out).all()
    assert (out == out[0]).all()


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, np.int16])
def test_categories_are_embedded_by_their_codes(dtype):
    encoder = fitted(sequences_of([np.array([[0], [1], [2]], dtype)], features=[CITY]))
    table = table_of(encoder).numpy()
    assert np.array_equal(encoded(encoder, np.array([[2], [0], [1]], dtype)), table[[2, 0, 1]])
    assert np.array_equal(encoded(encoder, np.array([[-1], [3], [99]], dtype)), table[[4, 4, 4]])
    assert len(table) == 5


def test_a_missing_category_has_a_row_of_its_own():
    encoder = fitted(sequences_of([[[0.0], [1.0]]], features=[CITY]))
    with torch.no_grad():
        table_of(encoder).copy_(torch.arange(5.0)[:, None].expand(5, 3))
    assert np.array_equal(encoded(encoder, [[np.nan], [-1.0], [1.0]])[:, 0], [3, 4, 1])


def test_what_training_never_met_adds_nothing_at_first():
    """Rows that no step of training touches must not push the state about by what was drawn for them."""
    encoder = fitted(sequences_of([[[0.0], [1.0]]], features=[CITY]))
    assert not encoded(encoder, [[np.nan], [-1.0]]).any()


def test_bytes_as_codes_do_not_wrap():
    feature = Feature("byte", "category", tuple(map(str, range(256))))
    values = np.arange(256, dtype=np.uint8)[:, None]
    encoder = fitted(sequences_of([values], features=[feature]))
    assert np.array_equal(encoded(encoder, values), table_of(encoder).numpy()[:256])


def test_time_stamps_keep_their_digits():
    """Milliseconds at ten digits before the point: float32 would hold steps of two minutes."""
    steps = 1.7e9 + np.arange(1000)[:, None] * 1e-3
    out = encoded(fitted(sequences_of([steps])), steps)
    line = (np.arange(1000) - 499.5) / np.arange(1000).std() * 4
    np.testing.assert_allclose(out[:, 0], line, rtol=1e-3, atol=1e-3)


def test_the_encoder_takes_any_batch_and_dtype():
    sequences = sequences_of([np.random.default_rng(0).normal(size=(12, 2))])
    encoder = fitted(sequences)
    values = torch.from_numpy(sequences.values).reshape(4, 3, 2)
    assert encoder(values).dtype == torch.float32
    assert encoder(values, torch.float64).dtype == torch.float64
    assert torch.equal(encoder(values, torch.float64)[:, 1], encoder(values[:, 1:2], torch.float64)[:, 0])


def test_flags_for_another_number_of_features_are_refused():
    assert_refused(lambda: Encoder([CITY], []), InputValueError, "flagged must say of 1 features whether they are")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("large", [1e300, 1.5e308])
def test_numbers_too_large_to_be_normalised_are_refused(large):
    sequences = sequences_of([[[1.0, large], [2.0, -large]], [[3.0, large], [4.0, 0.0]]])
    words = f"feature {sequences.features[1].name!r} must hold numbers whose squares are finite; it does not"
    assert_refused(lambda: statistics(sequences, [0, 1]), InputValueError, words)
