"""Batches: every sequence once an epoch, in an order that can be drawn again, whole or in chunks."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.refusals import assert_refused
from tests.train_helpers import first_symbol, in_parts, sequences_of, watched
from tidegate.errors import InputValueError
from tidegate.train.batches import Batches
from tidegate.train.encoder import statistics
from tidegate.train.model import ModelConfig, SequenceModel

LENGTHS = st.lists(st.integers(1, 23), min_size=1, max_size=40)


def numbered(lengths, *, per_step=False, times=None):
    """Step t of sequence s is (s, t), and so is its label: s * 100 + t, or s."""
    pieces = [np.stack([np.full(length, s), np.arange(length)], -1) for s, length in enumerate(lengths)]
    label = np.concatenate([s[:, 0] * 100 + s[:, 1] for s in pieces]) if per_step else np.arange(len(lengths))
    return sequences_of(pieces, label=label, per_step=per_step, times=times)


def groups(batches) -> list[list[int]]:
    return [batch.numbers.tolist() for batch in batches if batch.start == 0]


@given(LENGTHS, st.integers(1, 9), st.none() | st.integers(1, 9), st.none() | st.integers(0, 3), st.booleans())
def test_every_sequence_comes_once_and_whole(lengths, size, chunk, shuffle, sort):
    sequences = numbered(lengths, per_step=True)
    batches = Batches(sequences, range(len(lengths)), size, chunk=chunk, shuffle=shuffle, sort=sort)
    steps: dict[int, list[tuple[int, int, float]]] = {s: [] for s in range(len(lengths))}
    count, before = 0, None
    for batch in batches:
        count += 1
        assert batch.label is not None
        follows = before is not None and not before.last
        assert (batch.start > 0) == follows
        if before is not None and follows:
            assert np.array_equal(batch.numbers, before.numbers)
            assert batch.start == before.start + len(before.values)
        before = batch
        assert batch.values.shape[:2] == batch.label.shape == (len(batch.values), len(batch.numbers))
        assert len(batch.numbers) <= size
        assert len(batch.values) == int(batch.lengths.max()) or batch.start > 0
        assert chunk is None or len(batch.values) <= chunk
        for place, number in enumerate(batch.numbers.tolist()):
            here = int(batch.lengths[place])
            rows = zip(batch.values[:here, place].tolist(), batch.label[:here, place].tolist(), strict=True)
            steps[number] += [(*map(int, row), told) for row, told in rows]
            assert not batch.values[here:, place].any()
            assert batch.label[here:, place].isnan().all()
    assert before is not None
    assert before.last
    assert count == len(batches)
    for number, length in enumerate(lengths):
        assert steps[number] == [(number, step, number * 100 + step) for step in range(length)]


@given(LENGTHS, st.integers(1, 9), st.none() | st.integers(1, 9))
def test_the_label_of_a_sequence_comes_with_its_end(lengths, size, chunk):
    sequences = numbered(lengths)
    told: dict[int, tuple[int, float]] = {}
    for batch in Batches(sequences, range(len(lengths)), size, chunk=chunk):
        assert batch.label is not None
        for place, number in enumerate(batch.numbers.tolist()):
            if not batch.label[place].isnan():
                assert number not in told
                told[number] = (batch.start + int(batch.lengths[place]), float(batch.label[place]))
    assert told == {number: (length, number) for number, length in enumerate(lengths)}


@given(LENGTHS, st.integers(1, 9), st.integers(0, 2**63 - 1), st.integers(0, 50))
def test_the_order_follows_from_seed_and_epoch_alone(lengths, size, seed, epoch):
    def drawn():
        batches = Batches(numbered(lengths), range(len(lengths)), size, shuffle=seed)
        batches.epoch = epoch
        return batches

    batches = drawn()
    np.random.default_rng().random(3)
    torch.rand(3)
    assert groups(batches) == groups(batches) == groups(drawn())


def test_epochs_and_seeds_differ():
    def order(seed, epoch):
        batches = Batches(numbered([5] * 60), range(60), 4, shuffle=seed)
        batches.epoch = epoch
        return groups(batches)

    orders = [order(seed, epoch) for seed in range(3) for epoch in range(3)]
    assert all(one != other for at, one in enumerate(orders) for other in orders[:at])


@given(LENGTHS, st.integers(1, 9), st.none() | st.integers(1, 9))
def test_without_sorting_the_order_is_kept(lengths, size, chunk):
    batches = Batches(numbered(lengths), range(len(lengths)), size, chunk=chunk, sort=False)
    assert [number for group in groups(batches) for number in group] == list(range(len(lengths)))


def test_sorting_saves_padding():
    lengths = np.random.default_rng(0).integers(1, 200, 128)

    def padded(**options):
        return sum(batch.values.shape[0] * batch.values.shape[1] for batch in Batches(sequences, every, 8, **options))

    sequences, every = numbered(lengths), range(128)
    assert padded(shuffle=0) < 1.2 * lengths.sum() < padded(shuffle=0, sort=False)


@pytest.mark.parametrize("per_step", [False, True])
@pytest.mark.parametrize("variant", ["gru", "gru-layer-norm", "rnn", "dense"])
def test_chunk_by_chunk_with_its_state_is_the_whole(per_step, variant):
    sequences = first_symbol(20, 17)
    found = statistics(sequences, in_parts(sequences).train)
    flagged = tuple(map(bool, found.missing))
    model = SequenceModel(ModelConfig(sequences.features, flagged, 2, per_step, variant=variant, hidden_size=5)).eval()
    model.encoder.fit(found)
    with torch.no_grad():
        whole = {}
        for batch in Batches(sequences, range(20), 6):
            answers, _ = model(batch.values, batch.lengths)
            for place, number in enumerate(batch.numbers.tolist()):
                whole[number] = answers[: batch.lengths[place], place] if per_step else answers[place]
        pieces: dict[int, list[torch.Tensor]] = {number: [] for number in range(20)}
        carried = None
        for batch in Batches(sequences, range(20), 6, chunk=4):
            answers, carried = model(batch.values, batch.lengths, carried if batch.start else None)
            for place, number in enumerate(batch.numbers.tolist()):
                if batch.lengths[place]:
                    pieces[number].append(answers[: batch.lengths[place], place] if per_step else answers[place])
    for number in range(20):
        got = torch.cat(pieces[number]) if per_step else pieces[number][-1]
        torch.testing.assert_close(got, whole[number], rtol=1e-6, atol=1e-6)


def test_a_memory_map_is_read_piece_by_piece(tmp_path):
    sequences = numbered([1000, 900, 10])
    read: list[int] = []
    object.__setattr__(sequences, "values", watched(sequences.values, tmp_path / "values.npy", read))
    plain = numbered([1000, 900, 10])
    batches = Batches(sequences, range(3), 3, chunk=64)
    assert not read
    for mine, other in zip(batches, Batches(plain, range(3), 3, chunk=64), strict=True):
        assert torch.equal(mine.values, other.values)
        assert sum(read) == int(mine.lengths.sum())
        read.clear()


@pytest.mark.parametrize("dtype", ["?", "u1", "<u2", "<u4", "<u8", "<i8", ">i2", "<f2", ">f4", ">f8"])
def test_numbers_of_every_type_come_through(dtype):
    values = np.array([[0], [1], [1]]).astype(dtype)
    (batch,) = Batches(sequences_of([values]), [0], 1)
    assert batch.values[:, 0].tolist() == values.tolist()
    assert batch.values[..., [0]].double().sum() == 2  # torch indexes it and computes with it
    assert not batch.values.isnan().any()


def test_large_whole_numbers_are_not_cut():
    values = np.array([[65535, 4_000_000_000]], np.uint32)
    (batch,) = Batches(sequences_of([values]), [0], 1)
    assert batch.values.tolist() == [values.tolist()]


def test_a_sequence_without_steps_is_refused():
    sequences = numbered([3, 0, 2])
    assert_refused(lambda: Batches(sequences, range(3), 2), InputValueError, "sequence 's1' must have at least one st")
    assert len(Batches(sequences, [0, 2], 2)) == 1
