"""tg.GRU, tg.RNN and the cells give what torch.nn's give: results, final states and every gradient, in every form."""
# mypy: allow-untyped-calls

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from tests.layer_helpers import CELLS, KINDS, assert_same, everything, twins

T, B, I, H = 5, 4, 3, 6
UNSORTED = [3, 5, 1, 4]
SORTED = [5, 4, 4, 2]
FORMS = ["time-major", "batch-first", "unbatched", "packed", "packed-sorted"]


def in_form(form, module, dtype=torch.float64, batch_first=False):
    """An input, an initial state and what packs the input, as `form` says."""
    x = torch.randn(T, B, I, dtype=dtype)
    h_0 = torch.randn(module.num_layers * (2 if module.bidirectional else 1), B, H, dtype=dtype)
    if form == "unbatched":
        return x[:, 0], h_0[:, 0], None
    if form == "packed":
        return x, h_0, lambda padded: pack_padded_sequence(padded, UNSORTED, enforce_sorted=False)
    if form == "packed-sorted":
        return x, h_0, lambda padded: pack_padded_sequence(padded, SORTED, enforce_sorted=True)
    return (x.transpose(0, 1) if form == "batch-first" else x), h_0, None


@pytest.mark.parametrize("given_hx", [True, False], ids=["h_0", "zeros"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no-bias"])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["one-way", "both-ways"])
@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_layer_gives_torchs_results_and_every_gradient_in_float64(kind, depth, bidirectional, bias, form, given_hx):
    options = {"bias": bias, "bidirectional": bidirectional, "batch_first": form == "batch-first"}
    theirs, ours = twins(KINDS, kind, I, H, depth, scale=0.4, dtype=torch.float64, **options)
    x, h_0, pack = in_form(form, theirs)
    hx = h_0 if given_hx else None
    assert_same(everything(ours, x, hx, pack), everything(theirs, x, hx, pack), 1e-12)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("bidirectional", [False, True], ids=["one-way", "both-ways"])
@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_layer_gives_torchs_results_to_1e_6_in_float32(kind, depth, bidirectional, form):
    theirs, ours = twins(KINDS, kind, I, H, depth, bidirectional=bidirectional, batch_first=form == "batch-first")
    x, h_0, pack = in_form(form, theirs, torch.float32)
    found, expected = everything(ours, x, h_0, pack), everything(theirs, x, h_0, pack)
    for name in ("output", "h_n"):
        torch.testing.assert_close(found[name], expected[name], atol=1e-6, rtol=0)
    assert_same(found, expected, 1e-5)


@pytest.mark.parametrize("hidden_size", [1, 100])
@pytest.mark.parametrize("kind", KINDS)
def test_layer_gives_torchs_results_at_other_widths_in_float32(kind, hidden_size):
    theirs, ours = twins(KINDS, kind, 17, hidden_size)
    x = torch.randn(30, 3, 17)
    for found, expected in zip(ours(x), theirs(x), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


@given(
    steps=st.integers(1, 9),
    batch=st.integers(1, 4),
    size=st.integers(1, 5),
    hidden=st.integers(1, 7),
    depth=st.integers(1, 2),
    bidirectional=st.booleans(),
    batch_first=st.booleans(),
    kind=st.sampled_from(list(KINDS)),
)
def test_layer_gives_torchs_results_for_any_shape(steps, batch, size, hidden, depth, bidirectional, batch_first, kind):
    options = {"bidirectional": bidirectional, "batch_first": batch_first, "dtype": torch.float64}
    theirs, ours = twins(KINDS, kind, size, hidden, depth, scale=0.4, **options)
    x = torch.randn(*((batch, steps) if batch_first else (steps, batch)), size, dtype=torch.float64)
    assert_same(everything(ours, x), everything(theirs, x), 1e-12)


@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=5),
    depth=st.integers(1, 2),
    bidirectional=st.booleans(),
    batch_first=st.booleans(),
    kind=st.sampled_from(list(KINDS)),
)
def test_packed_sequences_of_any_lengths_give_torchs_results(lengths, depth, bidirectional, batch_first, kind):
    theirs, ours = twins(KINDS, kind, I, H, depth, scale=0.4, bidirectional=bidirectional, dtype=torch.float64)
    x = torch.randn(len(lengths), max(lengths), I, dtype=torch.float64)
    x = x if batch_first else x.transpose(0, 1)
    h_0 = torch.randn(depth * (1 + bidirectional), len(lengths), H, dtype=torch.float64)

    def pack(padded):
        return pack_padded_sequence(padded, lengths, batch_first=batch_first, enforce_sorted=False)

    assert_same(everything(ours, x, h_0, pack), everything(theirs, x, h_0, pack), 1e-12)


@pytest.mark.parametrize(("lengths", "is_sorted"), [(SORTED, True), (SORTED, False), (UNSORTED, False)])
@pytest.mark.parametrize("kind", KINDS)
def test_a_packed_output_carries_the_inputs_sizes_and_order(kind, lengths, is_sorted):
    theirs, ours = twins(KINDS, kind, I, H, 2, bidirectional=True)
    packed = pack_padded_sequence(torch.randn(T, B, I), lengths, enforce_sorted=is_sorted)
    found, expected = ours(packed)[0], theirs(packed)[0]
    assert isinstance(found, PackedSequence)
    assert found.batch_sizes.equal(expected.batch_sizes)
    for name in ("sorted_indices", "unsorted_indices"):
        mine, torchs = getattr(found, name), getattr(expected, name)
        assert (mine is None) if torchs is None else mine.equal(torchs)


@pytest.mark.parametrize("bidirectional", [False, True], ids=["one-way", "both-ways"])
@pytest.mark.parametrize("p", [0.3, 1.0])
@pytest.mark.parametrize("kind", KINDS)
def test_dropout_between_layers_draws_torchs_numbers_in_training(kind, p, bidirectional):
    theirs, ours = twins(KINDS, kind, I, H, 3, dropout=p, bidirectional=bidirectional, dtype=torch.float64)
    x = torch.randn(T, B, I, dtype=torch.float64)
    results = []
    for module in (ours, theirs):
        torch.manual_seed(5)
        results.append(everything(module, x))
    assert_same(results[0], results[1], 1e-12)
    assert not torch.allclose(ours(x)[0], ours.eval()(x)[0]), "dropout did nothing"


@pytest.mark.parametrize("kind", KINDS)
def test_dropout_does_nothing_in_evaluation(kind):
    theirs, ours = twins(KINDS, kind, I, H, 3, dropout=0.5, dtype=torch.float64)
    x = torch.randn(T, B, I, dtype=torch.float64)
    ours.eval()
    assert ours(x)[0].equal(ours(x)[0])
    torch.testing.assert_close(ours(x), theirs.eval()(x), atol=1e-12, rtol=0)


@pytest.mark.parametrize("given_hx", [True, False], ids=["h_0", "zeros"])
@pytest.mark.parametrize("batched", [True, False], ids=["batched", "unbatched"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no-bias"])
@pytest.mark.parametrize("kind", CELLS)
def test_cell_gives_torchs_result_and_every_gradient(kind, bias, batched, given_hx):
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-6)):
        theirs, ours = twins(CELLS, kind, I, H, bias=bias, dtype=dtype)
        shape = (B,) if batched else ()
        x, h_prev = torch.randn(*shape, I, dtype=dtype), torch.randn(*shape, H, dtype=dtype)
        hx = h_prev if given_hx else None
        found, expected = everything(ours, x, hx), everything(theirs, x, hx)
        torch.testing.assert_close(found["output"], expected["output"], atol=tolerance, rtol=0)
        assert_same(found, expected, max(tolerance, 1e-12 if dtype == torch.float64 else 1e-5))


@pytest.mark.parametrize("kind", CELLS)
def test_cell_step_by_step_is_the_layer(kind):
    _, cell = twins(CELLS, kind, I, H, dtype=torch.float64)
    _, whole = twins(KINDS, kind, I, H, dtype=torch.float64)
    whole.load_state_dict({f"{name}_l0": weight for name, weight in cell.state_dict().items()}, strict=True)
    x = torch.randn(T, B, I, dtype=torch.float64)
    h, outputs = torch.zeros(B, H, dtype=torch.float64), []
    for x_t in x:
        h = cell(x_t, h)
        outputs.append(h)
    torch.testing.assert_close(whole(x)[0], torch.stack(outputs), atol=1e-14, rtol=0)
