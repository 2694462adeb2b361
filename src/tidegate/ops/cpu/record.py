"""The record that a kernel is called with: one integer for each field, an address, a count or a flag.

Addresses of tensors are of contiguous memory; 0 is a tensor that is not there. Sizes are in numbers, not bytes.
"""

__all__ = ["BEGAN", "DONE", "ENDED", "FIELDS", "NUMBERS", "PHASE", "SUMS", "ZEROS"]

FIELDS = (
    # sizes: steps, sequences, numbers in a step, units
    "STEPS", "BATCH", "INPUTS", "UNITS",
    # how the work is cut: processing steps in a chunk; slices of the batch, 0 where the units are shared out; into how
    # many parts these are; rows of a slice that there is room for; whether slices sum their gradients of weights apart
    "CHUNK", "SLICES", "PARTS", "CAPACITY", "APART",
    "REVERSE", "ACTIVATION",
    "COUNTERS", "BOARD",
    # what comes
    "X", "H_0", "WEIGHT_IH", "WEIGHT_HH", "BIAS_IH", "BIAS_HH", "MASK",
    # forced gates, and what the candidate is multiplied with: the address, how one number stands for all units (0 none,
    # 1 one each, 2 one for all), strides
    "PIN_UPDATE", "PIN_UPDATE_KIND", "PIN_UPDATE_STEP", "PIN_UPDATE_ROW",
    "PIN_RESET", "PIN_RESET_KIND", "PIN_RESET_STEP", "PIN_RESET_ROW",
    "FACTOR", "FACTOR_KIND", "FACTOR_STEP", "FACTOR_ROW",
    # the bits of the number that the update gate is multiplied with; 0 is none
    "WRITE",
    # what goes, (T, B, H) each
    "HIDDEN", "UPDATE", "RESET", "CANDIDATE", "PAST",
    # packed weights and biases
    "PANELS_IN", "PANELS_PAST", "PANELS_RELEVANT", "START_IN", "START_PAST", "START_RELEVANT",
    # scratch: a chunk's products with the input, tiles' sums, the relevant past with the update gate
    "PRODUCTS", "SUMS", "RELEVANT",
    # backward: what arrives
    "D_HIDDEN", "D_UPDATE", "D_RESET", "D_CANDIDATE",
    # backward: what goes
    "D_X", "D_WEIGHT_IH", "D_WEIGHT_HH", "D_BIAS_IH", "D_BIAS_HH", "CARRY",
    # backward: transposed panels, a chunk's gradients and operands, sums of gradients
    "BACK_IN", "BACK_PAST", "BACK_RELEVANT", "GRADIENTS", "OPERAND_IN", "OPERAND_PAST", "OPERAND_RELEVANT",
    "D_RELEVANT", "TOTAL_IN", "TOTAL_PAST", "TOTAL_RELEVANT", "TOTAL_BIAS", "RECOMPUTE",
    # one live step: the record of the layer above
    "NEXT",
)  # fmt: skip

#: The scratch memory at SUMS begins with so many vectors that stay zero, for sums that begin with nothing;
ZEROS = 4
#: behind them each part has so many for every row of a tile.
SUMS = 4

#: Where each field stands.
NUMBERS = {name: number for number, name in enumerate(FIELDS)}

#: Integers that each phase has at COUNTERS, two lines of the cache: tasks claimed, and
PHASE = 16
#: tasks done; on the second line the processor's clock when the first was claimed and when all were done (in cycles; 0
#: where programs may not read it).
DONE, BEGAN, ENDED = 1, 8, 9
