"""The ONNX graph: the same as the model, at sizes and batches that were not traced, and nothing written otherwise."""

from __future__ import annotations

import importlib.util

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from conftest import make_model, make_pixels
from hypothesis import given, settings
from hypothesis import strategies as st
from onnxscript import FLOAT, INT64, script
from onnxscript import opset18 as op

from hvq_inpaint import InvalidInputError, export
from hvq_inpaint.__main__ import main
from hvq_inpaint.blending import harmonic_extension
from hvq_inpaint.masks import make_mask
from hvq_inpaint.quantizer import _ROWS_AT_A_TIME


@pytest.fixture(scope="module")
def model():
    # All that takes special care: a smooth start inside the hole and a blended result.
    return make_model(harmonic_input=True, poisson_composite=True, transformer_feedback=True)


@pytest.fixture(scope="module")
def path(model, tmp_path_factory):
    """Exported from a model in train mode: as it will be used, and itself left as it is."""
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    report = export.export_onnx(model, path)
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    model.eval()
    assert report.path == path
    assert report.size == path.stat().st_size
    assert report.largest_difference <= export.TOLERANCE
    return path


@pytest.fixture(scope="module")
def session(path):
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def inputs(batch: int, height: int, width: int, kind: str = "box", ratio: float = 0.3):
    image = np.stack([make_pixels(height, width, seed) for seed in range(batch)]).transpose(0, 3, 1, 2) / 255
    missing = np.stack([make_mask(kind, height, width, ratio, seed) for seed in range(batch)])
    return torch.from_numpy(image).float(), torch.from_numpy(~missing[:, None]).float()


def assert_ties(latents: torch.Tensor, codebook: torch.Tensor, codes: torch.Tensor, others: np.ndarray) -> None:
    """Where two codes differ, one is no nearer than the other."""
    vectors = latents.permute(0, 2, 3, 1)
    one, other = ((vectors - codebook[indices]).norm(dim=-1) for indices in (codes, torch.from_numpy(others)))
    assert torch.allclose(one, other, rtol=1e-3)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    batch=st.integers(1, 3),
    rows=st.integers(1, 12),
    columns=st.integers(1, 12),
    kind=st.sampled_from(["box", "brush", "random_walk"]),
)
def test_every_size_and_batch_gives_what_the_model_gives(model, session, batch, rows, columns, kind):
    damaged, known = inputs(batch, 8 * rows, 8 * columns, kind)
    with torch.no_grad():
        expected = model(damaged, known)
    values = session.run(None, {"damaged": damaged.numpy(), "known": known.numpy()})
    values = dict(zip(export.OUTPUTS, values, strict=True))
    assert_ties(
        expected.global_latents,
        model.vqvae.global_quantizer.codebook,
        expected.global_codes,
        values["global_codes"],
    )
    alike = all(np.array_equal(values[name], getattr(expected, name)) for name in ("global_codes", "local_codes"))
    for name, value in values.items():
        assert value.shape == tuple(getattr(expected, name).shape), name
        assert not alike or np.allclose(value, getattr(expected, name), rtol=0, atol=1e-4), name


def test_ties_are_rare(model, session):
    """So that the test above compares pictures."""
    shares = []
    for seed in range(5):
        damaged, known = inputs(1, 64, 64, ratio=0.2 + seed / 20)
        with torch.no_grad():
            expected = model(damaged, known).global_codes.numpy()
        (codes,) = session.run(["global_codes"], {"damaged": damaged.numpy(), "known": known.numpy()})
        shares.append(np.mean(codes != expected))
    assert np.mean(shares) < 0.01


def test_more_vectors_than_are_compared_at_a_time(model, session):
    damaged, known = inputs(1, 512, 520)
    assert _ROWS_AT_A_TIME < 512 * 520 // 16
    with torch.no_grad():
        expected = model(damaged, known).local_codes.numpy()
    (codes,) = session.run(["local_codes"], {"damaged": damaged.numpy(), "known": known.numpy()})
    assert np.mean(codes != expected) < 0.01


def test_known_pixels_come_back_bit_for_bit(session):
    damaged, known = inputs(1, 40, 56)
    (composite,) = session.run(["composite"], {"damaged": damaged.numpy(), "known": known.numpy()})
    is_known = np.broadcast_to(known.numpy() > 0.5, composite.shape)
    assert np.array_equal(composite[is_known], damaged.numpy()[is_known])


def test_the_graph_is_valid_and_says_what_it_takes(path, model):
    graph = onnx.load(path)
    onnx.checker.check_model(graph, full_check=True)
    shapes = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in graph.graph.input
    }
    assert shapes == {"damaged": ["batch", 3, "height", "width"], "known": ["batch", 1, "height", "width"]}
    assert [value.name for value in graph.graph.output] == list(export.OUTPUTS)
    assert __file__.rsplit("/", 2)[0].encode() not in path.read_bytes()


def test_exported_programs_keep_the_harmonic_extension_as_one_operation():
    class Blend(torch.nn.Module):
        def forward(self, values, known):
            return harmonic_extension(values, known)

    values, known = inputs(2, 24, 40)
    program = torch.export.export(Blend(), (values, known), dynamic_shapes=({2: torch.export.Dim.AUTO},) * 2)
    torch.library.opcheck(torch.ops.hvq_inpaint.harmonic_extension.default, (values, known, 12))
    values, known = inputs(2, 56, 40)
    assert torch.equal(program.module()(values, known), harmonic_extension(values, known))


@script(default_opset=op)
def _always_zero(sorted_sequence: FLOAT, values: FLOAT) -> INT64:
    return op.Cast(op.Mul(values, op.Constant(value_float=0.0)), to=7)


def test_a_graph_that_computes_something_else_is_not_written(tmp_path, model, monkeypatch):
    translations = export._translations()
    searchsorted = torch.ops.aten.searchsorted.Tensor

    monkeypatch.setattr(export, "_translations", lambda: {**translations, searchsorted: _always_zero})
    with pytest.raises(InvalidInputError, match=r"differs from the model by .* was not written"):
        export.export_onnx(model, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", export.OUTPUTS)
def test_nothing_that_is_not_a_number_passes(model, name):
    damaged, known = inputs(1, 16, 16)

    class Session:
        def run(self, *_):
            with torch.no_grad():
                expected = model(damaged, known)
            return [
                getattr(expected, one).numpy().astype(float) * (np.nan if one == name else 1) for one in export.OUTPUTS
            ]

    assert not export._difference(model, Session(), damaged, known) <= export.TOLERANCE


def test_a_tie_in_one_picture_is_no_reason_to_refuse(model, monkeypatch):
    differences = iter([2.0, 1e-6])
    monkeypatch.setattr(export, "_difference", lambda *arguments: next(differences))
    assert export._smallest_difference(model, None, (1, 8, 8)) == 1e-6


@pytest.mark.parametrize("name", ["onnx", "onnxscript", "onnxruntime"])
def test_what_is_not_installed_is_named(tmp_path, model, monkeypatch, name):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(export, "find_spec", lambda wanted: None if wanted == name else find_spec(wanted))
    with pytest.raises(InvalidInputError, match=rf"{name} must be installed: pip install .*\[export\]"):
        export.export_onnx(model, tmp_path / "model.onnx")


class TestCommand:
    @pytest.fixture
    def folder(self, tmp_path, model):
        model.save_pretrained(tmp_path / "model")
        return tmp_path

    def test_writes_a_graph_that_runs(self, folder, capsys):
        out = folder / "new" / "networks.onnx"
        assert main(["export", "--format", "onnx", "--model", str(folder / "model"), "--out", str(out)]) == 0
        assert "damaged, known -> composite, refined" in capsys.readouterr().out
        damaged, known = inputs(1, 16, 24)
        session = onnxruntime.InferenceSession(out)
        assert session.run(["refined"], {"damaged": damaged.numpy(), "known": known.numpy()})[0].shape == (1, 3, 16, 24)
        assert [path.name for path in out.parent.iterdir()] == ["networks.onnx"]

    @pytest.mark.parametrize(
        ("name", "sentence"),
        [("graph.pt", "must end in .onnx"), ("there.onnx", "exists already"), ("folder.onnx", "is a folder")],
    )
    def test_refuses_before_the_model_is_loaded(self, tmp_path, capsys, name, sentence):
        (tmp_path / "there.onnx").write_text("mine")
        (tmp_path / "folder.onnx").mkdir()
        assert main(["export", "--model", "no/model/here", "--out", str(tmp_path / name)]) == 1
        assert sentence in capsys.readouterr().err
        assert (tmp_path / "there.onnx").read_text() == "mine"
