"""Operations of the networks, written in ONNX by hand: what `torch.onnx` has no translation for."""

from __future__ import annotations

from onnxscript import FLOAT, INT64, script
from onnxscript import opset18 as op


@script(default_opset=op)
def searchsorted(sorted_sequence: FLOAT, values: FLOAT) -> INT64:
    """`torch.searchsorted` of vectors (N,) and (M,): how many of the sequence are smaller than each value, (M,)."""
    smaller = op.Less(op.Unsqueeze(sorted_sequence, [0]), op.Unsqueeze(values, [1]))
    return op.ReduceSum(op.Cast(smaller, to=7), [1], keepdims=0)


@script(default_opset=op)
def harmonic_extension(values: FLOAT, known: FLOAT, sweeps: int) -> FLOAT:
    """`blending.harmonic_extension` of (B, C, H, W) and (B, 1, H, W): by halves to one pixel, and back."""
    zero = op.Constant(value_float=0.0)
    half = op.Constant(value_float=0.5)
    one = op.Constant(value_int=1)
    share = op.Cast(op.Greater(known, half), to=1)
    solution = op.Where(op.Greater(known, half), values, zero)
    all_values = op.SequenceConstruct(solution)
    all_known = op.SequenceConstruct(share)
    is_larger = op.Greater(op.ReduceMax(op.Slice(op.Shape(solution), [2], [4]), keepdims=0), one)
    while is_larger:
        # An odd length is made even by pixels that are not known.
        odd = op.Mod(op.Slice(op.Shape(solution), [2], [4]), [2])
        pads = op.Concat([0, 0, 0, 0, 0, 0], odd, axis=0)
        is_known = op.Cast(op.Greater(share, zero), to=1)
        share = op.AveragePool(op.Pad(is_known, pads), kernel_shape=[2, 2], strides=[2, 2])
        mean = op.AveragePool(op.Pad(solution, pads), kernel_shape=[2, 2], strides=[2, 2])
        solution = op.Div(mean, op.Max(share, op.Constant(value_float=0.125)))
        all_values = op.SequenceInsert(all_values, solution)
        all_known = op.SequenceInsert(all_known, share)
        is_larger = op.Greater(op.ReduceMax(op.Slice(op.Shape(solution), [2], [4]), keepdims=0), one)
    levels = op.SequenceLength(all_values)
    for level in range(levels - 1):
        here = levels - 2 - level
        level_values = op.SequenceAt(all_values, here)
        level_known = op.Greater(op.SequenceAt(all_known, here), zero)
        start = op.Resize(
            solution, None, [1.0, 1.0, 2.0, 2.0], mode="linear", coordinate_transformation_mode="half_pixel"
        )
        start = op.Slice(start, [0, 0], op.Slice(op.Shape(level_values), [2], [4]), [2, 3])
        solution = op.Where(level_known, level_values, start)
        for _ in range(sweeps):
            padded = op.Pad(solution, [0, 0, 1, 1, 0, 0, 1, 1], mode="edge")
            rows = op.Slice(padded, [1], [-1], [2])
            columns = op.Slice(padded, [1], [-1], [3])
            beside = op.Slice(rows, [0], [-2], [3]) + op.Slice(rows, [2], [2147483647], [3])
            above = op.Slice(columns, [0], [-2], [2]) + op.Slice(columns, [2], [2147483647], [2])
            solution = op.Where(level_known, level_values, op.Div(beside + above, op.Constant(value_float=4.0)))
    return solution
