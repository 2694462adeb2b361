"""How a layer's weights lie, in words: read from the records of `conventions.py`."""

from tidegate.conventions import Block, Convention

__all__ = ["layout_of"]

_BLOCKS: dict[Block, str] = {"update": "update", "reset": "reset (relevance)", "candidate": "candidate"}


def layout_of(framework: str, convention: Convention, *, bias: bool) -> str:
    """The order of the gates, what is stored for the update gate, which way matrices lie, the biases: one line."""
    parts = [f"{framework}: {', '.join(_BLOCKS[block] for block in convention.blocks)}"]
    if "update" in convention.blocks:
        parts.append("z = 1 - update is stored" if convention.update_keeps else "the update gate itself is stored")
    parts.append("units are columns" if convention.arrays[0].transposed else "units are rows")
    parts.append(_biases(convention) if bias else "no biases")
    return "; ".join(parts)


def _biases(convention: Convention) -> str:
    second = [block for block in convention.blocks if convention.holds("bias_hh", block)]
    if len(second) == len(convention.blocks):
        inside = ", the candidate's second one inside the reset gate" if convention.reset == "after" else ""
        return f"two biases for each{inside}"
    if second:
        return f"one bias for each, a second one for the {', '.join(second)}"
    return "one bias for each"
