"""Layers and cells: subclasses of torch.nn's, with stacking, directions, masks and pins."""

from tidegate.nn import init
from tidegate.nn.cells import GRUCell, RNNCell
from tidegate.nn.compiling import allow_compiling
from tidegate.nn.dense import Dense
from tidegate.nn.dropouts import Dropouts
from tidegate.nn.layers import GRU, RNN
from tidegate.nn.run import explain

__all__ = ["GRU", "RNN", "Dense", "Dropouts", "GRUCell", "RNNCell", "explain", "init"]

allow_compiling()
