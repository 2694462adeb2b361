"""How torch and others lay weights out, read and written without losing a bit."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests.contract.compare import assert_same
from tidegate.conventions import (
    EQUINOX,
    FLAX,
    KERAS,
    NOTES,
    TORCH,
    TORCH_DENSE,
    TORCH_GRU,
    TORCH_GRU_LAYER_NORM,
    TORCH_RNN,
    TORCH_UPDATE_ONLY,
    Convention,
    PackedWeights,
    fit,
    pack,
    read,
    unfit,
    unpack,
    write,
)
from tidegate.equations import Affine, Weights
from tidegate.errors import InputValueError

CONVENTIONS = {
    "gru": TORCH_GRU,
    "gru-layer-norm": TORCH_GRU_LAYER_NORM,
    "update-only": TORCH_UPDATE_ONLY,
    "rnn": TORCH_RNN,
    "dense": TORCH_DENSE,
}
every_convention = pytest.mark.parametrize("convention", CONVENTIONS.values(), ids=CONVENTIONS)
I, H = 3, 4


def draw(
    convention: Convention,
    size: int = H,
    inputs: int = I,
    *,
    past: bool = True,
    bias_ih: bool = True,
    bias_hh: bool = True,
    gains: bool = False,
) -> PackedWeights:
    """Weights with zeros of both signs, infinities and the smallest numbers among them."""
    rows = len(convention.blocks) * size
    past = past and convention.holds("weight_hh", convention.blocks[0])  # a dense layer has none

    def weight(*shape: int) -> Tensor:
        special = torch.tensor([0.0, -0.0, 1e-45, -1e-45, torch.inf, -torch.inf])
        return torch.where(torch.rand(shape) < 0.3, special[torch.randint(0, len(special), shape)], torch.randn(shape))

    return PackedWeights(
        weight(rows, inputs),
        weight(rows, size) if past else None,
        weight(rows) if bias_ih else None,
        weight(rows) if bias_hh and past else None,
        weight(rows) if gains else None,
        weight(rows) if gains and past else None,
    )


@every_convention
@given(data=st.data())
def test_what_was_unpacked_packs_to_the_same_bits(convention, data):
    size, inputs = (data.draw(st.integers(1, 8), label=axis) for axis in "HI")
    flags = {name: data.draw(st.booleans(), label=name) for name in ("past", "bias_ih", "bias_hh", "gains")}
    flags["gains"] = flags["gains"] and convention is TORCH_GRU_LAYER_NORM
    packed = draw(convention, size, inputs, **flags)
    assert_same(pack(convention, unpack(convention, packed))._asdict(), packed._asdict(), exact=True)


def test_gains_are_not_lost_where_there_is_no_room_for_them():
    with pytest.raises(InputValueError, match=r"arrays must be weight_ih, .*; got gain_ih, gain_hh too"):
        unpack(TORCH_GRU, draw(TORCH_GRU, gains=True))


@every_convention
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_and_so_in_every_dtype(convention, dtype):
    packed = PackedWeights(*(None if part is None else part.to(dtype) for part in draw(convention)))  # type: ignore[arg-type]
    assert_same(pack(convention, unpack(convention, packed))._asdict(), packed._asdict(), exact=True)


@pytest.mark.parametrize("other", CONVENTIONS)
def test_what_was_packed_unpacks_to_the_same_bits(other):
    convention = CONVENTIONS[other]
    fields: dict[Any, tuple[int, ...]] = {"weight_ih": (H, I), "weight_hh": (H, H), "bias_ih": (H,), "bias_hh": (H,)}
    weights = Weights(
        **{
            block: Affine(
                **{name: torch.randn(shape) for name, shape in fields.items() if convention.holds(name, block)}
            )
            for block in convention.blocks
        }
    )
    again = unpack(convention, pack(convention, weights))
    for block in ("candidate", "update", "reset"):
        one, other_one = getattr(again, block), getattr(weights, block)
        assert (one is None) == (other_one is None) == (block not in convention.blocks)
        if one is not None:
            assert_same(one._asdict(), other_one._asdict(), exact=True)


def test_torchs_gru_is_reset_then_one_minus_update_then_candidate():
    packed = draw(TORCH_GRU_LAYER_NORM, gains=True)
    weights = unpack(TORCH_GRU_LAYER_NORM, packed)
    assert weights.reset is not None
    assert weights.update is not None
    for field in PackedWeights._fields:
        stored = getattr(packed, field)
        got = {block: getattr(getattr(weights, block), field) for block in ("reset", "update", "candidate")}
        sign = 1 if field.startswith("gain") else -1  # what is normalised turns its sign with the weights
        expected = {"reset": stored[:H], "update": sign * stored[H : 2 * H], "candidate": stored[2 * H :]}
        assert_same(got, expected, exact=True)


def test_the_update_only_gru_is_torchs_without_the_reset_rows():
    packed = draw(TORCH_GRU)
    less = PackedWeights(*(part[H:] for part in packed if part is not None))
    full, weights = unpack(TORCH_GRU, packed), unpack(TORCH_UPDATE_ONLY, less)
    assert weights.reset is None
    assert weights.update is not None
    assert full.update is not None
    assert_same(weights.update._asdict(), full.update._asdict(), exact=True)
    assert_same(weights.candidate._asdict(), full.candidate._asdict(), exact=True)


@pytest.mark.parametrize("convention", [TORCH_RNN, TORCH_DENSE], ids=["rnn", "dense"])
def test_a_system_without_gates_is_its_candidate_as_it_stands(convention):
    packed = draw(convention)
    weights = unpack(convention, packed)
    assert weights.update is None
    assert weights.reset is None
    assert_same(weights.candidate._asdict(), packed._asdict(), exact=True)


def test_rows_and_signs():
    assert [TORCH_GRU.rows(block, 5) for block in ("reset", "update", "candidate")] == [
        slice(0, 5),
        slice(5, 10),
        slice(10, 15),
    ]
    assert [TORCH_GRU.sign(block) for block in ("reset", "update", "candidate")] == [1, -1, 1]
    assert [TORCH_UPDATE_ONLY.rows(block, 5) for block in ("update", "candidate")] == [slice(0, 5), slice(5, 10)]
    assert [TORCH_UPDATE_ONLY.sign(block) for block in ("update", "candidate")] == [-1, 1]
    assert TORCH_RNN.rows("candidate", 5) == TORCH_DENSE.rows("candidate", 5) == slice(0, 5)
    assert TORCH_RNN.sign("candidate") == TORCH_DENSE.sign("candidate") == 1
    notes = Convention(blocks=("update", "reset", "candidate"), update_keeps=False)
    assert notes.rows("update", 5) == slice(0, 5)
    assert notes.sign("update") == 1


def test_the_sign_turns_z_into_one_minus_z():
    pre = torch.linspace(-6, 6, 25, dtype=torch.float64)
    sign = TORCH_GRU.sign("update")
    assert_same({"update": torch.sigmoid(sign * pre)}, {"update": 1 - torch.sigmoid(pre)})


@every_convention
def test_unpacking_is_differentiable_and_views_what_needs_no_sign(convention):
    drawn = (None if part is None else torch.randn_like(part).requires_grad_() for part in draw(convention))
    packed = PackedWeights(*drawn)  # type: ignore[arg-type]
    weights = unpack(convention, packed)
    assert weights.candidate.weight_ih.untyped_storage().data_ptr() == packed.weight_ih.untyped_storage().data_ptr()
    total = torch.stack([part.sum() for block in weights if block for part in block if part is not None]).sum()
    gradients = torch.autograd.grad(total, [part for part in packed if part is not None])
    for gradient in gradients:
        for block in convention.blocks:
            assert (gradient[convention.rows(block, H)] == convention.sign(block)).all()


@pytest.mark.parametrize("missing", ["update", "reset"])
def test_packing_without_a_block_is_refused_by_its_name(missing):
    without: dict[str, Any] = {missing: None}
    weights = unpack(TORCH_GRU, draw(TORCH_GRU))._replace(**without)
    with pytest.raises(ValueError, match=f"must hold every block of .*; missing: {missing}$"):
        pack(TORCH_GRU, weights)


def test_packing_without_two_blocks_names_both():
    with pytest.raises(ValueError, match=r"missing: reset, update$"):
        pack(TORCH_GRU, unpack(TORCH_RNN, draw(TORCH_RNN)))


@pytest.mark.parametrize("field", ["weight_hh", "bias_ih", "bias_hh"])
def test_packing_loses_no_weight_that_only_some_blocks_have(field):
    """A framework stores a bias for all blocks or for none: half of one cannot be packed, and is not dropped."""
    weights = unpack(TORCH_GRU, draw(TORCH_GRU))
    assert weights.reset is not None
    without: dict[str, Any] = {field: None}
    half = weights._replace(reset=weights.reset._replace(**without))
    with pytest.raises(ValueError, match=field):
        pack(TORCH_GRU, half)


# ----------------------------------------------------------------------------------------------------------------------
# Other frameworks

FRAMEWORKS = {
    f"{framework.name}, {system}": convention
    for framework in (TORCH, KERAS, FLAX, EQUINOX, NOTES)
    for system, convention in framework.systems.items()
}
every_layout = pytest.mark.parametrize("convention", FRAMEWORKS.values(), ids=FRAMEWORKS)


def arrays(convention: Convention, inputs: int = I, size: int = H, *, bias: bool = True) -> dict[str, Tensor]:
    """Drawn arrays of every name that the layout has."""
    kept = [stored for stored in convention.arrays if bias or not stored.fields[0].startswith("bias")]
    return {stored.name: torch.randn(stored.shape(inputs, size)) for stored in kept}


@every_layout
@given(data=st.data())
def test_what_was_read_is_written_to_the_same_bits(convention, data):
    inputs, size, bias = (data.draw(one) for one in (st.integers(1, 6), st.integers(1, 6), st.booleans()))
    stored = arrays(convention, inputs, size, bias=bias)
    assert_same(write(convention, read(convention, stored)), stored, exact=True)


@every_layout
@given(data=st.data())
def test_what_fits_a_layout_goes_through_torchs_and_comes_back_to_the_same_bits(convention, data):
    inputs, size, bias = (data.draw(one) for one in (st.integers(1, 6), st.integers(1, 6), st.booleans()))
    stored = arrays(convention, inputs, size, bias=bias or convention.needs_bias)
    torchs = Convention(convention.blocks, update_keeps=True, reset=convention.reset)
    packed = pack(torchs, fit(torchs, read(convention, stored)))
    assert (packed.bias_ih is None) == (packed.bias_hh is None)
    assert_same(write(convention, fit(convention, unpack(torchs, packed))), stored, exact=True)


@every_layout
def test_every_block_has_its_weights_and_a_bias(convention):
    for block in convention.blocks:
        for field in ("weight_ih", "weight_hh", "bias_ih"):
            assert convention.holds(field, block), (field, block)


def test_two_biases_become_one_where_they_are_only_added():
    weights = unpack(TORCH_GRU, draw(TORCH_GRU)._replace(bias_ih=torch.randn(3 * H), bias_hh=torch.randn(3 * H)))
    folded = fit(KERAS.systems["gru-reset-before"], weights)
    for block in ("update", "reset", "candidate"):
        own, one = getattr(weights, block), getattr(folded, block)
        assert one.bias_hh is None
        assert torch.equal(one.bias_ih, own.bias_ih + own.bias_hh)
    equinox = fit(EQUINOX.systems["gru"], weights)
    assert equinox.candidate == weights.candidate
    assert equinox.update is not None
    assert equinox.update.bias_hh is None


def test_adding_a_bias_of_zero_changes_no_bit():
    """-0.0 + 0.0 would be 0.0, and a sum may change which NaN it is."""
    special = torch.tensor([0.0, -0.0, torch.nan, -torch.inf])
    for zero in (0.0, -0.0):
        candidate = Affine(torch.randn(4, I), torch.randn(4, 4), special, torch.full((4,), zero))
        folded = fit(KERAS.systems["rnn"], Weights(candidate)).candidate
        assert folded.bias_ih is not None
        assert folded.bias_ih.view(torch.int32).tolist() == special.view(torch.int32).tolist()


@pytest.mark.parametrize("framework", [FLAX, NOTES], ids=lambda framework: framework.name)
def test_a_bias_inside_the_reset_gate_does_not_fold(framework):
    packed = draw(TORCH_GRU)._replace(bias_hh=torch.zeros(3 * H))
    assert packed.bias_hh is not None
    convention = framework.systems["gru"]
    assert unfit(convention, unpack(TORCH_GRU, packed)) is None
    packed.bias_hh[-1] = 1e-45
    weights = unpack(TORCH_GRU, packed)
    reason = unfit(convention, weights)
    assert reason is not None
    with pytest.raises(ValueError, match="inside the reset gate") as caught:
        fit(convention, weights)
    assert str(caught.value) == reason


def test_what_has_no_room_is_not_dropped():
    weights = unpack(TORCH_GRU, draw(TORCH_GRU))
    with pytest.raises(ValueError, match="must not hold bias_hh of the reset, which this layout has no room for"):
        write(FLAX.systems["gru"], weights)


def test_half_of_an_array_of_two_is_refused():
    weights = unpack(TORCH_GRU, draw(TORCH_GRU, bias_hh=False))
    with pytest.raises(ValueError, match="bias must hold bias_ih and bias_hh; got bias_ih alone"):
        write(KERAS.systems["gru"], weights)


def test_the_shapes_of_what_frameworks_store():
    shapes = {
        (framework.name, stored.name): stored.shape(3, 4)
        for framework in (KERAS, FLAX, EQUINOX, NOTES)
        for stored in framework.systems["gru"].arrays
    }
    assert shapes["Keras", "kernel"] == (3, 12)
    assert shapes["Keras", "recurrent_kernel"] == (4, 12)
    assert shapes["Keras", "bias"] == (2, 12)
    assert KERAS.systems["gru-reset-before"].arrays[2].shape(3, 4) == (12,)
    assert shapes["Flax NNX", "dense_i.kernel"] == (3, 12)
    assert shapes["Equinox", "weight_ih"] == (12, 3)
    assert shapes["Equinox", "bias_n"] == (4,)
    assert shapes["the notes", "Wxu"] == (4, 3)
