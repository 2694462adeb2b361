"""A layer goes to the real framework and comes from it, and both compute the same."""

import numpy as np
import pytest
import torch

from tests.contract.compare import TOLERANCES

from .peers import CASES, PEERS, Case, drawn_layer, largest_difference, leaves, randomised

every_case = pytest.mark.parametrize("case", CASES, ids=str)
LIMIT = 2 * sum(TOLERANCES[torch.float32])


@every_case
def test_a_layer_of_ours_computes_the_same_in_the_framework(case: Case):
    peer, layer = PEERS[case.framework], drawn_layer(case)
    real = peer.load(case, peer.make(case), peer.convert(layer))
    assert largest_difference(case, real, layer) < LIMIT


@every_case
def test_a_layer_of_theirs_computes_the_same_here_and_goes_back_to_the_bit(case: Case):
    peer = PEERS[case.framework]
    real = peer.load(case, peer.make(case), randomised(peer.convert(drawn_layer(case))))
    layer = peer.back(case, real)
    assert largest_difference(case, real, layer) < LIMIT
    again, stored = leaves(peer.convert(layer)), peer.arrays(real)
    assert len(again) == len(stored)
    for one, other in zip(again, stored, strict=True):
        assert one.dtype == other.dtype
        assert np.array_equal(one, other)
    if case.framework != "Equinox":  # whose cells do not tell
        assert layer.bidirectional == case.bidirectional
    assert layer.activation == case.activation


@pytest.mark.parametrize("framework", PEERS)
def test_other_weights_are_told_apart(framework):
    """The comparison can fail: two blocks swapped are another layer."""
    case = next(case for case in CASES if case.framework == framework and case.layers == 1 and not case.bidirectional)
    peer, layer = PEERS[framework], drawn_layer(case)
    real = peer.load(case, peer.make(case), peer.convert(layer))
    with torch.no_grad():
        layer.weight_hh_l0[:6], layer.weight_hh_l0[6:12] = (
            layer.weight_hh_l0[6:12].clone(),
            layer.weight_hh_l0[:6].clone(),
        )
    assert largest_difference(case, real, layer) > 100 * LIMIT
