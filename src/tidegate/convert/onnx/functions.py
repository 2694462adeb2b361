"""The update-only GRU as a function inside an ONNX file, for ONNX has no node of it.

A GRU node with a reset gate driven to 1 would do, but for the runtimes: ONNX Runtime's sigmoid of 20 is 1.0000002, and
nothing says that it must be 1. The function takes and gives what a GRU node does, for one direction, its `W`, `R` and
`B` without the reset rows, and runs the equation in a Scan. A runtime reads the function from the file.
"""

from typing import Any

from tidegate.extras import require

__all__ = ["ACTIVATION_NODES", "DOMAIN", "name_of", "read_name", "update_only"]

DOMAIN = "tidegate"

#: The operator of ONNX that is each activation with a name.
ACTIVATION_NODES = {"tanh": "Tanh", "relu": "Relu", "sigmoid": "Sigmoid", "identity": "Identity"}

_TEXT = """
<domain: "{domain}", opset_import: ["" : {opset}]>
{name} (x, w, r, b, lengths, h_0) => (y, y_h) {{
  axis_0 = Constant <value_ints = [0]> ()
  axis_1 = Constant <value_ints = [1]> ()
  two_rows = Constant <value_ints = [2, -1]> ()
  first = Constant <value_int = 0> ()
  one_step = Constant <value_int = 1> ()
  w_way = Squeeze (w, axis_0)
  r_way = Squeeze (r, axis_0)
  h_way = Squeeze (h_0, axis_0)
  w_columns = Transpose <perm = [1, 0]> (w_way)
  r_columns = Transpose <perm = [1, 0]> (r_way)
  both_biases = Reshape (b, two_rows)
  bias = ReduceSum <keepdims = 0> (both_biases, axis_0)
  of_x = MatMul (x, w_columns)
  from_x = Add (of_x, bias)
  count = Shape <start = 0, end = 1> (x)
  after_last = Squeeze (count)
  steps = Range (first, after_last, one_step)
  ends = Cast <to = 7> (lengths)
  ends_of_rows = Unsqueeze (ends, axis_1)
  h_last, hidden = Scan <
    num_scan_inputs = 2, scan_input_directions = [{way}, {way}], scan_output_directions = [{way}],
    body = step ({kind}[B, H] h, {kind}[B, G] p, int64 t) => ({kind}[B, H] h_next, {kind}[B, H] shown) {{
      from_past = MatMul (h, r_columns)
      sums = Add (p, from_past)
      of_keep, of_candidate = Split <axis = -1, num_outputs = 2> (sums)
      keep = Sigmoid (of_keep)
      candidate = {activation} (of_candidate)
      one_float = Constant <value_float = 1.0> ()
      one = CastLike (one_float, keep)
      nought = Sub (one, one)
      update = Sub (one, keep)
      written = Mul (update, candidate)
      kept = Mul (keep, h)
      mixed = Add (written, kept)
      inside = Less (t, ends_of_rows)
      h_next = Where (inside, mixed, h)
      shown = Where (inside, mixed, nought)
    }}
  > (h_way, from_x, steps)
  y = Unsqueeze (hidden, axis_1)
  y_h = Unsqueeze (h_last, axis_0)
}}
"""


def name_of(activation: str, reverse: bool) -> str:
    """The function's name: an operator of the domain `tidegate`."""
    return f"UpdateOnlyGRU{activation.capitalize()}{'Reverse' if reverse else ''}"


def read_name(name: str) -> tuple[str, bool] | None:
    """The activation and the direction that a function's name says, or None for another name."""
    for activation in ACTIVATION_NODES:
        for reverse in (False, True):
            if name == name_of(activation, reverse):
                return activation, reverse
    return None


def update_only(activation: str, reverse: bool, *, kind: str, opset: int) -> Any:
    """The function as a FunctionProto; `kind` is ONNX's word for the dtype, "float" or "double", say."""
    text = _TEXT.format(
        domain=DOMAIN,
        opset=opset,
        name=name_of(activation, reverse),
        way=int(reverse),
        kind=kind,
        activation=ACTIVATION_NODES[activation],
    )
    return require("onnx.parser", "onnx").parse_function(text)
