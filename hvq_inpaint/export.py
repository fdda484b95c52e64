"""The networks as an ONNX graph, for programs without PyTorch.

The graph is `HVQInpainter.forward` on tensors. What `inpaint` does around it, from files to crops of large photographs,
is not in it.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from .errors import InvalidInputError
from .files import all_or_nothing, check_targets
from .masks import make_mask

if TYPE_CHECKING:
    import onnx

    from .inpainter import HVQInpainter

INPUTS = ("damaged", "known")
# Those of `InpaintOutput` that a program can show.
OUTPUTS = ("composite", "refined", "coarse", "credibility", "global_codes", "local_codes")

OPSET = 18

# How far a value of the graph may lie from the model's.
TOLERANCE = 1e-4

# Batch, height and width of the example that is traced, and of those that are checked: no two alike.
_TRACED = (2, 48, 72)
_CHECKED = ((1, 64, 64), (3, 40, 136), (2, 256, 184))
# Pictures that are tried at each size: a vector half-way between two codes may go either way by rounding.
_TRIES = 3


@dataclass(frozen=True)
class ExportReport:
    """What was written."""

    path: Path
    size: int  # of the file, in bytes
    largest_difference: float  # between a value of the graph and of the model, over the sizes that were checked


class _Graph(nn.Module):
    """`forward` of a model with a tuple as its result."""

    def __init__(self, model: HVQInpainter) -> None:
        super().__init__()
        self.model = model

    def forward(self, damaged: torch.Tensor, known: torch.Tensor) -> tuple[torch.Tensor, ...]:
        output = self.model(damaged, known)
        return tuple(getattr(output, name) for name in OUTPUTS)


def export_onnx(model: HVQInpainter, path: str | os.PathLike[str], overwrite: bool = False) -> ExportReport:
    """Write the networks of `model` as one ONNX file, once it was found to compute the same.

    Inputs of the graph are `damaged` (batch, 3, height, width) float32 in [0, 1] and `known` (batch, 1, height, width)
    float32, 1 = known, 0 = missing; any batch, height and width multiples of 8. Outputs are those of `InpaintOutput`
    named in `OUTPUTS`, `composite` first.

    Args:
        model: on any device; it is read only.
        path: of the file, ending in .onnx.
        overwrite: whether a file of that name may be replaced.

    Raises:
        InvalidInputError: onnx, onnxscript or onnxruntime is not installed, the file can't be written, or a value of
            the graph, run by onnxruntime at three sizes, differs from the model's by more than `TOLERANCE`. Nothing
            is written then.
    """
    path = Path(path)
    check_target(path, overwrite)
    import onnxruntime

    from .inpainter import HVQInpainter

    copy = HVQInpainter(model.config)
    copy.load_state_dict(model.state_dict())
    copy = copy.float().cpu().eval()
    graph = _traced(copy)
    graph.metadata_props.add(key="config", value=json.dumps(model.config.to_dict()))
    content = graph.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    largest = max(_smallest_difference(copy, session, shape) for shape in _CHECKED)
    if not largest <= TOLERANCE:
        raise InvalidInputError(
            f"The exported graph differs from the model by {largest:.2g}, more than {TOLERANCE:g}, so {path} was not "
            "written."
        )
    with all_or_nothing() as partial:
        partial(path).write_bytes(content)
    return ExportReport(path, len(content), largest)


def check_target(path: Path, overwrite: bool = False) -> None:
    """Refuse now what `export_onnx` would refuse, but for a graph that differs.

    Raises:
        InvalidInputError: as there.
    """
    if path.suffix.lower() != ".onnx":
        raise InvalidInputError(f"{path} must end in .onnx.")
    check_targets([path], overwrite)
    for name in ("onnx", "onnx_ir", "onnxscript", "onnxruntime"):
        if find_spec(name) is None:
            raise InvalidInputError(
                f'To export, {name.replace("_", "-")} must be installed: pip install "hvq-inpaint[export]".'
            )


def _example(batch: int, height: int, width: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Waves with some noise, a hole of strokes in each."""
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    waves = np.sin(rows * generator.uniform(0.02, 0.2, (batch, 3, 1, 1)) + columns * 0.1)
    image = 0.5 + 0.4 * waves + generator.normal(0, 0.02, waves.shape)
    missing = [make_mask("brush", height, width, 0.3, seed + index) for index in range(batch)]
    damaged = torch.from_numpy(image.clip(0, 1).astype(np.float32))
    return damaged, torch.from_numpy(~np.stack(missing)[:, None]).float()


def _traced(model: HVQInpainter) -> onnx.ModelProto:
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    axes = {0: "batch", 2: "height", 3: "width"}
    with torch.no_grad(), warnings.catch_warnings():
        # Each axis is named at both inputs, of which one is enough.
        warnings.filterwarnings("ignore", message="# The axis name")
        program = torch.onnx.export(
            _Graph(model).eval(),
            _example(*_TRACED),
            input_names=INPUTS,
            output_names=OUTPUTS,
            opset_version=OPSET,
            dynamo=True,
            dynamic_shapes=dict.fromkeys(INPUTS, axes),
            custom_translation_table=_translations(),
            verbose=False,
        )
    ClearMetadataAndDocStringPass()(program.model)  # stack traces with the paths of this machine
    return program.model_proto


def _smallest_difference(model: HVQInpainter, session: Any, shape: tuple[int, int, int]) -> float:
    """Of the pictures that are tried at one size, until one is within the tolerance."""
    smallest = float("inf")
    for seed in range(_TRIES):
        smallest = min(smallest, _difference(model, session, *_example(*shape, seed)))
        if smallest <= TOLERANCE:
            break
    return smallest


def _difference(model: HVQInpainter, session: Any, damaged: torch.Tensor, known: torch.Tensor) -> float:
    """The largest difference between a value of a graph and of its model; codes are values as well."""
    with torch.no_grad():
        expected = model(damaged, known)
    values: Sequence[np.ndarray] = session.run(OUTPUTS, {"damaged": damaged.numpy(), "known": known.numpy()})
    differences = [
        np.abs(getattr(expected, name).numpy().astype(np.float64) - value).max()
        for name, value in zip(OUTPUTS, values, strict=True)
    ]
    return float(np.max(differences))  # which, unlike max(), sees a NaN


def _translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """What `torch.onnx` has no ONNX for."""
    from .onnx_functions import harmonic_extension, searchsorted

    return {
        torch.ops.hvq_inpaint.harmonic_extension.default: harmonic_extension,
        torch.ops.aten.searchsorted.Tensor: searchsorted,
    }
