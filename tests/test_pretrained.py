"""Networks saved and loaded: strictly, from safetensors only, and nothing of a folder that lies is believed."""

from __future__ import annotations

import json
import os
import pickle
import re
import resource
import shutil
import struct
from pathlib import Path

import pytest
import torch
from conftest import contents, make_model
from huggingface_hub import ModelCard
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from hvq_inpaint import HVQConfig, HVQInpainter, InvalidInputError, __version__
from hvq_inpaint.pretrained import DEFAULT_MODEL
from hvq_inpaint.refiner import MultiDilationRefiner
from hvq_inpaint.vqvae import HierarchicalVQVAE

# config.json of the first model that this project bundled, before configurations named what they are of.
FIRST_CONFIG = {
    "code_dim": 64,
    "codebook_decay": 0.99,
    "config_version": 1,
    "dilation_rates": [1, 2, 4, 8],
    "mid_channels": 128,
    "num_codes": 512,
    "refiner_blocks": 8,
    "refiner_channels": [32, 64, 128],
    "residual_blocks": 2,
    "residual_channels": 32,
    "stem_channels": 64,
    "transformer_blocks": 4,
    "transformer_feedback": True,
    "transformer_heads": 8,
    "transformer_width": 256,
}


@pytest.fixture
def folder(model: HVQInpainter, tmp_path: Path) -> Path:
    """The fixture `model`, saved."""
    model.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def change_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def refusal(folder: Path | str, cls: type = HVQInpainter, **options: object) -> str:
    """The sentence of a refusal: one line, and told by its end."""
    with pytest.raises(InvalidInputError) as caught:
        cls.from_pretrained(folder, **options)
    message = str(caught.value)
    assert "\n" not in message and message.endswith(".")
    return message


def same(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    a, b = first.state_dict(), second.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# ---------------------------------------------------------------- what is saved is what is loaded


def test_saved_and_loaded_it_gives_bit_equal_outputs(model, folder):
    model.train()
    loaded = HVQInpainter.from_pretrained(folder)
    assert not loaded.training and loaded.config == model.config and same(loaded, model)
    image, known = torch.rand(2, 3, 32, 48), (torch.rand(2, 1, 32, 48) > 0.4).float()
    for name, value in vars(model.eval()(image, known)).items():
        assert torch.equal(value, getattr(loaded(image, known), name)), name
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors", "README.md"}


def test_whoever_may_read_the_configuration_may_read_the_weights(folder):
    assert (folder / "model.safetensors").stat().st_mode == (folder / "config.json").stat().st_mode


def test_the_same_model_is_the_same_file(model, folder, tmp_path):
    model.save_pretrained(tmp_path / "again")
    for name in ("model.safetensors", "config.json", "README.md"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()


def test_the_file_says_what_it_is(folder):
    with safe_open(folder / "model.safetensors", "pt") as file:
        assert file.metadata() == {
            "format": "pt",
            "library": "hvq-inpaint",
            "library_version": __version__,
            "architecture": "HVQInpainter",
            "config_version": "1",
        }


def test_config_json_holds_every_field_and_what_it_is_of(model, folder):
    values = json.loads((folder / "config.json").read_text())
    assert values.pop("architecture") == "HVQInpainter"
    assert HVQConfig.from_dict(values) == model.config


def test_weights_are_saved_in_shards_and_read_back(model, tmp_path):
    model.save_pretrained(tmp_path, max_shard_size=40_000)
    shards = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    assert len(shards) > 2 and "model.safetensors" not in shards
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == set(shards)
    assert same(HVQInpainter.from_pretrained(tmp_path), model)
    # A part is found in them as well, and one file in place of the shards leaves none of them behind.
    assert same(HierarchicalVQVAE.from_pretrained(tmp_path), model.vqvae)
    model.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "model.safetensors", "README.md"}
    assert same(HVQInpainter.from_pretrained(tmp_path), model)


def test_half_precision_keeps_codebooks_exact(model, tmp_path):
    model.save_pretrained(tmp_path, half_precision=True)
    state = load_file(tmp_path / "model.safetensors")
    assert state["refiner.encoder.0.weight"].dtype == torch.float16
    for name in ("vqvae.global_quantizer.codebook", "vqvae.local_quantizer.sums", "credibility_map.quantiles"):
        assert state[name].dtype == torch.float32
    loaded = HVQInpainter.from_pretrained(tmp_path)
    assert all(parameter.dtype == torch.float32 for parameter in loaded.parameters())
    assert torch.equal(loaded.vqvae.global_quantizer.codebook, model.vqvae.global_quantizer.codebook)


def test_a_card_that_is_there_is_kept(model, folder):
    (folder / "README.md").write_text("mine")
    model.save_pretrained(folder)
    assert (folder / "README.md").read_text() == "mine"


def test_the_licence_of_weights_holds_for_what_becomes_of_them(model, tmp_path):
    facts = {"license": "other", "license_name": "mine", "training": "On photographs.", "datasets": ("a/b",)}
    model.save_pretrained(tmp_path / "first", model_card_kwargs=facts)
    HVQInpainter.from_pretrained(tmp_path / "first").save_pretrained(tmp_path / "second")
    for part in ("vqvae", "refiner"):
        card = getattr(HVQInpainter.from_pretrained(tmp_path / "first"), part).generate_model_card()
        assert card.data.license == "other"
    again = HVQInpainter.from_pretrained(tmp_path / "second")
    again.save_pretrained(tmp_path / "third", model_card_kwargs={"license": "mit"})
    first, second, third = (ModelCard.load(tmp_path / name / "README.md") for name in ("first", "second", "third"))
    assert first.data.datasets == ["a/b"] and "On photographs." in first.text
    assert (second.data.license, second.data.license_name) == ("other", "mine")
    assert (third.data.license, third.data.license_name) == ("mit", None)
    assert "On photographs." not in second.text  # what was done to it since is not known


def test_a_card_says_what_the_configuration_says(tmp_path):
    card = HVQInpainter(HVQConfig.preset("small")).generate_model_card(model_id="someone/something")
    assert "Preset `small`, 8.4 M parameters" in card.text and "# something" in card.text
    for addition in ("fed back into F_mid", "Skip connections", "Poisson", "none of these additions"):
        assert addition in card.text
    paper = HVQInpainter(HVQConfig.preset("paper")).generate_model_card()
    assert "Preset `paper`, 15.8 M parameters" in paper.text and "fed back" not in paper.text
    assert "additions" not in paper.text and paper.data.library_name == "hvq-inpaint"
    assert "@article{li2024hierarchical" in paper.text and "Not measured." in paper.text
    tokenizer = make_model().vqvae.generate_model_card()
    assert tokenizer.data.pipeline_tag == "image-feature-extraction" and "A tokenizer of images" in tokenizer.text


def test_a_full_disk_leaves_the_saved_model_as_it_was(model, folder):
    before = contents(folder)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(InvalidInputError, match="can't be written"):
            make_model(1).save_pretrained(folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert contents(folder) == before


def test_what_can_t_be_written_is_one_sentence(model, tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere" / "folder")
    for place in (tmp_path / "file" / "model", tmp_path / "link"):
        with pytest.raises(InvalidInputError, match="can't be written to"):
            model.save_pretrained(place)


def test_a_home_folder_is_found_where_it_is_saved(model, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    model.save_pretrained("~/models/mine")
    assert (tmp_path / "models" / "mine" / "config.json").is_file()
    assert same(HVQInpainter.from_pretrained("~/models/mine"), model)


def test_what_was_compiled_or_shares_its_memory_is_saved_as_it_is(model, tmp_path):
    expected = make_model()
    model.refiner = torch.compile(model.refiner, backend="eager")
    torch.nn.utils.vector_to_parameters(torch.nn.utils.parameters_to_vector(model.parameters()), model.parameters())
    model.save_pretrained(tmp_path)
    assert same(HVQInpainter.from_pretrained(tmp_path), expected)


def test_an_option_that_would_do_nothing_is_refused(model, tmp_path):
    with pytest.raises(TypeError, match="safe_serialization"):
        model.save_pretrained(tmp_path, safe_serialization=False)
    with pytest.raises(TypeError, match="strict"):
        HVQInpainter.from_pretrained(tmp_path, strict=False)


def test_a_file_is_no_folder_to_save_to(model, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInputError, match="is a file"):
        model.save_pretrained(tmp_path / "file")


# ---------------------------------------------------------------- parts


@pytest.mark.parametrize(("part", "cls"), [("vqvae", HierarchicalVQVAE), ("refiner", MultiDilationRefiner)])
def test_a_part_is_saved_alone_and_loaded_alone_or_from_the_whole(model, folder, tmp_path, part, cls):
    own = getattr(model, part)
    own.save_pretrained(tmp_path / part)
    for place in (tmp_path / part, folder):
        loaded = cls.from_pretrained(place)
        assert type(loaded) is cls and same(loaded, own) and not loaded.training and loaded.config == model.config
    assert f"holds {cls.__name__}, no HVQInpainter: load it with {cls.__name__}" in refusal(tmp_path / part)


def test_a_part_is_not_another_part(model, tmp_path):
    model.refiner.save_pretrained(tmp_path)
    assert "holds MultiDilationRefiner, no HierarchicalVQVAE" in refusal(tmp_path, HierarchicalVQVAE)
    change_config(tmp_path, architecture="Elephant")
    assert "holds 'Elephant', which this version" in refusal(tmp_path)


# ---------------------------------------------------------------- device and number format


def test_it_comes_in_the_format_and_on_the_device_that_were_asked_for(model, folder):
    for dtype, kind in [("bfloat16", torch.bfloat16), (torch.float16, torch.float16), (None, torch.float32)]:
        loaded = HVQInpainter.from_pretrained(folder, device="cpu", dtype=dtype)
        assert {parameter.dtype for parameter in loaded.parameters()} == {kind}
        assert {buffer.dtype for buffer in loaded.buffers()} == {torch.float32}
        expected = model.refiner.encoder[0].weight.to(kind)
        assert torch.equal(loaded.refiner.encoder[0].weight, expected)
    with pytest.raises(InvalidInputError, match="dtype must be one of float32, bfloat16, float16, not int8"):
        HVQInpainter.from_pretrained(folder, dtype="int8")
    with pytest.raises(InvalidInputError, match="no device 'tpu'"):
        HVQInpainter.from_pretrained(folder, device="tpu")


# ---------------------------------------------------------------- strict


def test_a_tensor_missing_extra_mis_shaped_or_of_integers_is_named(model, folder):
    path = folder / "model.safetensors"
    whole = model.state_dict()
    name = "refiner.encoder.0.weight"
    for state, message in [
        ({key: value for key, value in whole.items() if key != name}, f"{name} is missing"),
        ({**whole, "surplus": torch.zeros(1)}, "surplus is not part of the model"),
        ({**whole, name: torch.zeros(1, 2)}, f"{name} is (1, 2) and must be (8, 4, 7, 7)"),
        ({**whole, name: whole[name].long()}, f"{name} is of type I64 and must be of"),
    ]:
        save_file(state, path)
        assert message in refusal(folder)


def test_a_tensor_that_two_shards_hold_is_refused(model, folder):
    state = model.state_dict()
    (folder / "model.safetensors").unlink()
    for number in (1, 2):
        save_file(state, folder / f"model-0000{number}-of-00002.safetensors")
    index = {
        "weight_map": {
            name: f"model-0000{1 + position % 2}-of-00002.safetensors" for position, name in enumerate(state)
        }
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "is there twice" in refusal(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()
    assert "lacks model-00002-of-00002.safetensors" in refusal(folder)


def test_older_configurations_load(tmp_path):
    for values in (FIRST_CONFIG, {name: value for name, value in FIRST_CONFIG.items() if name != "config_version"}):
        config = HVQConfig.from_dict(values)
        HVQInpainter(config).save_pretrained(tmp_path)
        (tmp_path / "config.json").write_text(json.dumps(values))
        assert HVQInpainter.from_pretrained(tmp_path).config == config
        assert HierarchicalVQVAE.from_pretrained(tmp_path).config == config


def test_a_configuration_of_a_newer_version_or_of_something_else_says_so(folder):
    change_config(folder, config_version=2, architecture="Elephant", trunk=1)
    assert "install a newer hvq_inpaint" in refusal(folder)
    change_config(folder, config_version=1, architecture="HVQInpainter")
    assert "does not know: trunk" in refusal(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", "hidden_size": 768}))
    assert "is no model of hvq_inpaint" in refusal(folder)
    for text in ("{", "[1]", "null", '{"a": ' * 100_000, "\udcff", '{"num_codes": ' + "9" * 5000 + "}"):
        (folder / "config.json").write_bytes(text.encode(errors="surrogateescape"))
        assert "can't be used" in refusal(folder)
    (folder / "config.json").unlink()
    assert "has no config.json" in refusal(folder)


def test_names_that_are_meant_to_confuse_are_shown_short_and_on_one_line(model, folder):
    change_config(folder, **{"a\nb\x1b[31m" * 50: 1, **{f"x{number}": 1 for number in range(100)}})
    assert len(refusal(folder)) < 300
    change_config(folder)
    make_model().save_pretrained(folder)
    save_file({**model.state_dict(), "a\nb" * 1000: torch.zeros(1)}, folder / "model.safetensors")
    message = refusal(folder)
    assert len(message) < 400 and "is not part of the model" in message


def test_a_checkpoint_of_another_preset_is_refused(folder, tmp_path):
    make_model(num_codes=16).save_pretrained(tmp_path / "other")
    shutil.copy(folder / "model.safetensors", tmp_path / "other")
    assert "codebook" in refusal(tmp_path / "other")


def test_a_name_that_leads_nowhere_is_one_sentence(folder, tmp_path):
    for name, message in [
        (tmp_path / "nothing", "no model folder"),
        (folder / "model.safetensors", "give the folder that holds the model"),
        ("some thing", "neither a model folder nor the id"),
        ("nobody/nothing", "can't be reached"),  # the tests are offline
        ("", "name of the model is empty"),
        ("~nosuchuser/x", "no model folder"),
        ("x" * 5000, "no model folder"),
        (tmp_path, "no config.json"),
    ]:
        assert message in refusal(name)


def test_no_name_is_the_project_s_own_model_and_says_how_else_to_get_one():
    with pytest.raises(InvalidInputError) as caught:
        HVQInpainter.from_pretrained()  # the tests are offline
    assert DEFAULT_MODEL in str(caught.value) and "hub/model in a clone" in str(caught.value)


# ---------------------------------------------------------------- malicious folders


class _Bomb:
    """A pickle that leaves a file where it is opened."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.CKPT"])
@pytest.mark.parametrize("beside", [True, False])
def test_a_pickle_is_refused_and_never_opened(folder, tmp_path, name, beside):
    (folder / name).write_bytes(pickle.dumps(_Bomb(tmp_path / "opened")))
    if not beside:
        (folder / "model.safetensors").unlink()
    assert f"{name}, which may be a pickle" in refusal(folder)
    assert not (tmp_path / "opened").exists()


def test_a_pickle_that_is_called_safetensors_is_not_opened(folder, tmp_path):
    (folder / "model.safetensors").write_bytes(pickle.dumps(_Bomb(tmp_path / "opened")))
    assert "not a readable safetensors file" in refusal(folder)
    assert not (tmp_path / "opened").exists()


@pytest.mark.parametrize(
    "name",
    [
        "../model.safetensors",
        "/etc/passwd",
        "sub/model.safetensors",
        "..",
        "model.bin",
        "a\\b.safetensors",
        "é.safetensors",
    ],
)
def test_an_index_that_leads_elsewhere_is_refused(model, folder, name):
    shutil.copy(folder / "model.safetensors", folder.parent)
    (folder / "model.safetensors").unlink()
    index = {"weight_map": dict.fromkeys(model.state_dict(), name)}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "safetensors files beside it only" in refusal(folder)
    for broken in ({}, {"weight_map": {}}, {"weight_map": [1]}):
        (folder / "model.safetensors.index.json").write_text(json.dumps(broken))
        assert "has no weight_map" in refusal(folder)


def memory() -> int:
    """The most that this process ever held, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.parametrize(
    "changes",
    [
        {"mid_channels": 10**9},
        {"num_codes": 65536, "code_dim": 65536},
        {"transformer_blocks": 10**9},
        {"dilation_rates": [1] * 10**5},
        {"dilation_rates": [1] * 1024, "refiner_blocks": 1024},
        {"refiner_channels": [65536, 65536, 65536]},
        {"transformer_width": 65536, "transformer_heads": 1},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_configuration_that_asks_for_the_moon_takes_no_memory(folder, changes):
    change_config(folder, **changes)
    before = memory()
    assert re.search("must be at most|does not fit the configuration", refusal(folder))
    assert memory() - before < 100e6


def write_safetensors(path: Path, header: dict | bytes, data: bytes = b"", length: int | None = None) -> None:
    """A file of that header, whether it is true or not."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)


@pytest.mark.parametrize(
    ("header", "data", "length"),
    [
        ({"a": {"dtype": "F32", "shape": [10**6, 10**6], "data_offsets": [0, 4]}}, bytes(4), None),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4 * 10**15]}}, bytes(4), None),
        ({"a": {"dtype": "F32", "shape": [2**62, 4], "data_offsets": [0, 4]}}, bytes(4), None),
        ({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, bytes(4), None),
        ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}}, bytes(12), None),
        ({}, b"", 2**62),
        ({}, b"", 99 * 10**6),
        (b"\xff\xfe", b"", None),
        (b'{"a": ' * 1000, b"", None),
    ],
)
def test_a_header_that_lies_takes_no_memory(folder, header, data, length):
    write_safetensors(folder / "model.safetensors", header, data, length)
    before = memory()
    assert "not a readable safetensors file" in refusal(folder)
    assert memory() - before < 100e6


def test_a_header_of_what_the_file_does_not_hold_is_refused(model, folder):
    """The right names and shapes, on a file that is cut off."""
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    assert "not a readable safetensors file" in refusal(folder)


def test_a_file_of_json_without_end_is_not_read(folder):
    for name in ("config.json", "model.safetensors.index.json"):
        path = folder / name
        with path.open("wb") as file:
            file.truncate(10**12)  # takes no room on the disk
        if name != "config.json":
            (folder / "model.safetensors").unlink()
        assert "far too large" in refusal(folder)
        path.unlink()
        if name == "config.json":
            HVQInpainter(HVQConfig.preset("tiny")).save_pretrained(folder)


# ---------------------------------------------------------------- the mixin


def test_the_mixin_s_own_way_in_is_as_strict(model, folder):
    options = {"revision": None, "cache_dir": None, "force_download": False, "local_files_only": False, "token": None}
    assert same(HVQInpainter._from_pretrained(model_id=str(folder), config={}, **options), model)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(InvalidInputError, match="pickle"):
        HVQInpainter._from_pretrained(model_id=str(folder), **options)
