"""How torch lays weights out, read and written without losing a bit."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests.contract.compare import assert_same
from tidegate.conventions import (
    TORCH_DENSE,
    TORCH_GRU,
    TORCH_RNN,
    TORCH_UPDATE_ONLY,
    Convention,
    PackedWeights,
    pack,
    unpack,
)
from tidegate.equations import Affine, Weights

CONVENTIONS = {"gru": TORCH_GRU, "update-only": TORCH_UPDATE_ONLY, "rnn": TORCH_RNN, "dense": TORCH_DENSE}
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
    packed = draw(convention, size, inputs, **flags)
    assert_same(pack(convention, unpack(convention, packed))._asdict(), packed._asdict(), exact=True)


@every_convention
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_and_so_in_every_dtype(convention, dtype):
    packed = PackedWeights(*(None if part is None else part.to(dtype) for part in draw(convention)))  # type: ignore[arg-type]
    assert_same(pack(convention, unpack(convention, packed))._asdict(), packed._asdict(), exact=True)


@pytest.mark.parametrize("other", CONVENTIONS)
def test_what_was_packed_unpacks_to_the_same_bits(other):
    convention = CONVENTIONS[other]
    weights = Weights(
        **{
            block: Affine(torch.randn(H, I), torch.randn(H, H), torch.randn(H), torch.randn(H))
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
    packed = draw(TORCH_GRU, gains=True)
    weights = unpack(TORCH_GRU, packed)
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
    keras = Convention(blocks=("update", "reset", "candidate"), update_keeps=False)
    assert keras.rows("update", 5) == slice(0, 5)
    assert keras.sign("update") == 1


def test_the_sign_turns_z_into_one_minus_z():
    pre = torch.linspace(-6, 6, 25, dtype=torch.float64)
    sign = TORCH_GRU.sign("update")
    assert_same({"update": torch.sigmoid(sign * pre)}, {"update": 1 - torch.sigmoid(pre)})


@every_convention
def test_unpacking_is_differentiable_and_views_what_needs_no_sign(convention):
    packed = PackedWeights(*(torch.randn_like(part).requires_grad_() for part in draw(convention) if part is not None))
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
