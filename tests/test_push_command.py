"""`hvq-inpaint push` and `card`: what would be sent is shown, and sent only when asked."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import warnings
from importlib.metadata import version
from pathlib import Path

import hub_scenarios as scenarios
import numpy as np
import pytest
import yaml
from fake_hub import FakeHub
from hub_client import Client
from huggingface_hub import ModelCard

from hvq_inpaint import HVQInpainter
from hvq_inpaint.__main__ import main
from hvq_inpaint.card import with_model_id
from hvq_inpaint.hub import Upload, describe
from hvq_inpaint.masks import make_mask
from hvq_inpaint.publishing.model_folder import stage_model
from hvq_inpaint.publishing.space import pinned_requirements
from hvq_inpaint.tokens import refuse_tokens

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with what training leaves beside it."""
    folder = tmp_path_factory.mktemp("model")
    scenarios.make().save_pretrained(folder)
    (folder / "notes.txt").write_text("mine")
    (folder / "picture.png").write_bytes(b"picture")
    card = folder / "README.md"
    card.write_text(card.read_text().replace("## Limits", "![A picture](picture.png)\n\n## Limits"))
    return folder


@pytest.fixture(scope="module")
def masks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two masks for each of two percentages."""
    folder = tmp_path_factory.mktemp("masks")
    limits = ["--per-ratio", "2", "--min-percent", "10", "--max-percent", "11", "--size", "32", "--seed", "3"]
    assert main(["masks", "--out", str(folder), *limits, "--workers", "1"]) == 0
    return folder


def run(client: Client, *arguments: str | Path) -> str:
    """What a command prints that succeeds."""
    status, output, error = client.run(["push", *map(str, arguments)])
    assert status == 0, error
    assert "hf_" not in output + error
    return output


def refused(client: Client, *arguments: str | Path) -> str:
    status, output, error = client.run(["push", *map(str, arguments)])
    assert status == 1 and error.count("\n") == 1 and error.startswith("error: ")
    assert "hf_" not in output + error
    return error


def writes(hub: FakeHub) -> list[tuple[str, str]]:
    """The requests that may change something on the Hub."""
    return [(seen.method, seen.path) for seen in hub.requests if seen.method not in ("GET", "HEAD")]


# ---------------------------------------------------------------- models


def test_a_dry_run_shows_what_send_then_sends(hub: FakeHub, owner: Client, repo_id: str, folder: Path) -> None:
    shown = run(owner, "model", repo_id, "--model", folder)
    assert writes(hub) == [] and ("model", repo_id) not in hub.repositories
    assert "not sent: notes.txt" in shown
    assert f"model {repo_id} (new), branch main, as one commit: Push a model" in shown and "dry run" in shown
    listed = dict(re.findall(r"  new +([\d,]+)  (\S+)", shown))
    assert set(listed.values()) == {"README.md", "config.json", "model.safetensors", "picture.png"}
    sent = run(owner, "model", repo_id, "--model", folder, "--send", "--tag", "v1", "--message", "One")
    files = hub.files(repo_id)
    assert {name: f"{len(files[name]):,}" for name in listed.values()} == {name: size for size, name in listed.items()}
    commit, message = hub.commits(repo_id)[0]
    assert message == "One" and f"sent: {hub.endpoint}/{repo_id}/commit/{commit}" in sent
    assert f'from_pretrained("{repo_id}")' in files["README.md"].decode()
    assert owner.call(scenarios.load, repo_id, revision="v1") == scenarios.digest(scenarios.make())
    again = run(owner, "model", repo_id, "--model", folder)
    assert len(re.findall(r"^  same ", again, flags=re.MULTILINE)) == 3 and "kept " in again
    assert "0 files, 0 bytes to send" in again and "--replace-card" in again


def test_a_dry_run_tells_what_would_change(hub: FakeHub, owner: Client, repo_id: str, folder: Path) -> None:
    old = {"config.json": b"old", "model-00001-of-00002.safetensors": b"old", "model.safetensors.index.json": b"{}"}
    hub.create(repo_id, {**old, "README.md": b"mine", "mine.txt": b"mine"})
    shown = run(owner, "model", repo_id, "--model", folder, "--replace-card")
    for line in ("changed .* config.json", "changed .* README.md", "new .* model.safetensors"):
        assert re.search(line, shown)
    assert re.search("deleted +model-00001-of-00002.safetensors\n  deleted +model.safetensors.index.json\n", shown)
    assert "mine.txt" not in shown and writes(hub) == []
    run(owner, "model", repo_id, "--model", folder, "--send")
    assert {"mine.txt", "README.md"} <= set(hub.files(repo_id)) and not set(old) - {"config.json"} & set(
        hub.files(repo_id)
    )
    assert hub.files(repo_id)["README.md"] == b"mine"


def test_a_new_branch_starts_from_main_and_the_dry_run_knows_it(
    hub: FakeHub, owner: Client, repo_id: str, folder: Path
) -> None:
    shard = "model-00001-of-00002.safetensors"
    hub.create(repo_id, {"README.md": b"mine", shard: b"old"})
    options = ["--model", folder, "--branch", "next"]
    shown = run(owner, "model", repo_id, *options)
    assert "branch next (new, from main)" in shown and re.search(f"deleted +{shard}\n", shown) and "kept " in shown
    assert writes(hub) == []
    run(owner, "model", repo_id, *options, "--send")
    assert hub.files(repo_id, "next")["README.md"] == b"mine" and shard not in hub.files(repo_id, "next")
    assert hub.files(repo_id)[shard] == b"old"


def test_a_tag_names_one_commit_for_ever(
    hub: FakeHub, owner: Client, repo_id: str, folder: Path, tmp_path: Path
) -> None:
    options = ["--model", folder, "--tag", "v1", "--send"]
    assert "as one commit, with the tag v1: " in run(owner, "model", repo_id, *options)
    run(owner, "model", repo_id, *options)  # nothing has changed
    scenarios.make(seed=1).save_pretrained(tmp_path)
    before = hub.commits(repo_id)
    for more in ([], ["--send"]):
        message = refused(owner, "model", repo_id, "--model", tmp_path, "--tag", "v1", *more)
        assert "has a tag v1 already: choose another one" in message and hub.commits(repo_id) == before
    assert "can't get a tag" in refused(owner, "model", repo_id, "--model", tmp_path, "--tag", "v2", "--pull-request")
    hub.fail("*/tag/*", 500, 50)
    message = refused(owner, "model", repo_id, "--model", tmp_path, "--tag", "v2", "--send")
    assert (
        f"The commit is there ({hub.endpoint}/{repo_id}/commit/{hub.commits(repo_id)[0][0]}), its tag is not" in message
    )


def test_what_is_to_be_private_does_not_become_public(hub: FakeHub, owner: Client, repo_id: str, folder: Path) -> None:
    hub.create(repo_id, {})
    before = hub.files(repo_id)
    for more in ([], ["--send"]):
        assert "is there and public" in refused(owner, "model", repo_id, "--model", folder, "--private", *more)
    assert hub.files(repo_id) == before


def test_without_the_hub_a_dry_run_says_what_it_does_not_know(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["push", "model", "tester/model", "--model", str(folder)]) == 0  # the tests are offline
    output, error = capsys.readouterr()
    assert "note: what is there already is not known: The Hub can't be reached.\n" in error
    assert re.search(r"\? +[\d,]+  model.safetensors", output) and "Nothing was sent" in output


def test_without_a_token_nothing_is_made(hub: FakeHub, stranger: Client, repo_id: str, folder: Path) -> None:
    assert "needs a token" in refused(stranger, "model", repo_id, "--model", folder, "--send")
    assert ("model", repo_id) not in hub.repositories


def test_branches_pull_requests_and_private_repositories(
    hub: FakeHub, owner: Client, repo_id: str, folder: Path
) -> None:
    run(owner, "model", repo_id, "--model", folder, "--private", "--branch", "next", "--send")
    assert hub.is_private(repo_id)
    assert set(hub.files(repo_id)) == {".gitattributes"} and "config.json" in hub.files(repo_id, "next")
    address = run(owner, "model", repo_id, "--model", folder, "--pull-request", "--send")
    assert "/discussions/1" in address and "config.json" not in hub.files(repo_id)
    assert "config.json" in hub.files(repo_id, "refs/pr/1")


def test_what_can_t_be_loaded_is_not_sent(
    hub: FakeHub, owner: Client, repo_id: str, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"broken")
    assert "not a readable safetensors" in refused(owner, "model", repo_id, "--model", tmp_path, "--send")
    assert "There is no model folder" in refused(owner, "model", repo_id, "--model", tmp_path / "none")
    for name in ("model", "us er/name", "u/", "/n", "a/b/c", "us\\g/na\\1me"):
        assert "must be user/name, not " in refused(owner, "model", name, "--model", folder)
    assert writes(hub) == []


def test_a_part_goes_as_a_model_of_its_own(hub: FakeHub, owner: Client, repo_id: str, tmp_path: Path) -> None:
    scenarios.make().vqvae.save_pretrained(tmp_path)
    run(owner, "model", repo_id, "--model", tmp_path, "--send")
    assert owner.call(scenarios.load, repo_id, "HierarchicalVQVAE") == scenarios.digest(scenarios.make().vqvae)
    assert "A tokenizer of images" in hub.files(repo_id)["README.md"].decode()


@pytest.mark.parametrize(
    "words",
    [["--token", "x"], ["--hf-token=x"], ["--access_token", "x"], ["hf_" + "a" * 34], ["--message", "hf_" + "a" * 34]],
)
def test_a_token_on_a_command_line_is_refused_and_not_repeated(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["push", "model", "tester/model", *words]) == 1
    output, error = capsys.readouterr()
    assert output == "" and "A token does not belong on a command line" in error
    assert "hf_a" not in error
    refuse_tokens(["push", "--title", "hf_pretrained_inpainting_model", "--tag", "v1"])


def test_the_description_of_an_upload_is_exact(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 1234)
    upload = Upload("tester/space", {"a": tmp_path / "a"}, "Message", repo_type="space", private=True)
    assert describe(upload, None).splitlines() == [
        "Space tester/space, branch main, as one commit: Message",
        "  ?               1,234  a",
        "1 files, 1,234 bytes to send",
    ]


# ---------------------------------------------------------------- cards


def test_a_card_tells_what_is_known_and_keeps_what_was_told(folder: Path, tmp_path: Path) -> None:
    scenarios.make().save_pretrained(tmp_path)
    notes = tmp_path / "notes.md"
    notes.write_text("On 7 photographs.")
    evaluation = ["--evaluation", str(ROOT / "hub" / "model")]
    facts = [
        "--license",
        "other",
        "--license-name",
        "mine",
        "--dataset",
        "someone/photographs",
        "--training",
        str(notes),
    ]
    assert main(["card", str(tmp_path), *evaluation, *facts]) == 0
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.license == "other" and card.data.license_name == "mine"
    assert card.data.datasets == ["someone/photographs"] and card.data.pipeline_tag == "image-to-image"
    assert "On 7 photographs." in card.text and "![Three kinds" in card.text
    assert (tmp_path / "samples.jpg").is_file() and (tmp_path / "evaluation.json").is_file()
    document = json.loads((ROOT / "hub" / "model" / "evaluation.json").read_text())
    found = {(result.dataset_config, result.metric_name): result.metric_value for result in card.data.eval_results}
    for kind, methods in document["figures"].items():
        for bucket in document["settings"]["buckets_percent"]:
            for metric, title in (("psnr_hole", "PSNR in the hole (dB)"), ("ssim", "SSIM"), ("lpips", "LPIPS")):
                value = methods["refined"][bucket][metric]
                assert found[f"{kind}, {bucket} %", title] == pytest.approx(value, abs=1e-4)
                if metric != "ssim":
                    assert format(value, ".2f" if metric == "psnr_hole" else ".4f") in card.text
    # Given again with less, it keeps what it was told before, what was written by hand as well.
    text = (tmp_path / "README.md").read_text()
    (tmp_path / "README.md").write_text(text.replace("## Citation", "## Thanks\n\nTo all.\n\n## Citation"))
    assert main(["card", str(tmp_path), "--title", "Another title", "--no-samples"]) == 0
    again = ModelCard.load(tmp_path / "README.md")
    assert "# Another title" in again.text and "To all." in again.text and "On 7 photographs." in again.text
    assert len(again.data.eval_results) == len(card.data.eval_results)
    assert again.text.count("## ") == card.text.count("## ") + 1 and again.data.license_name == "mine"
    assert "![Three kinds" in again.text


def test_a_card_keeps_what_it_does_not_know(tmp_path: Path) -> None:
    scenarios.make().save_pretrained(tmp_path, model_card_kwargs={"license": "other", "license_name": "mine"})
    path = tmp_path / "README.md"
    text = path.read_text().replace("tags:\n", "language: en\ntags:\n- mine\n")
    code = "```bash\n## no heading\npython train.py\n```"
    path.write_text(
        text.replace("Not recorded.", f"By hand.\n\n{code}").replace(
            "## Limits", "## More\n\nA\n\n## More\n\nB\n\n## Limits"
        )
    )
    assert main(["card", str(tmp_path), "--license", "mit", "--no-samples"]) == 0
    card = ModelCard.load(path)
    assert code in card.text and "## More\n\nA\n\n## More\n\nB" in card.text
    assert (card.data.license, card.data.license_name) == ("mit", None)
    assert card.data.language == "en" and "mine" in card.data.tags and "vq-vae" in card.data.tags
    before = path.read_text()
    assert main(["card", str(tmp_path), "--no-samples"]) == 0
    assert path.read_text() == before


@pytest.mark.parametrize(
    "text",
    [
        "# Mine\n\nImportant.",
        "---\n: [\n---\n",
        "---\n- a\n---\n",
        b"\xff\xfe",
        "---\ndatasets: 5\n---\n",
        "---\nmodel-index: 5\n---\n",
    ],
)
def test_a_card_that_can_t_be_read_is_told_and_not_replaced(text: str | bytes, refused, workplace: Path) -> None:
    scenarios.make().save_pretrained(workplace / "model")
    card = workplace / "model" / "README.md"
    card.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert re.search("can't be read|was not written by hvq-inpaint", refused("card", "model"))
    # It is in nobody's way who saves.
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        HVQInpainter.from_pretrained(workplace / "model").save_pretrained(workplace / "copy")
    is_readable = text in ("# Mine\n\nImportant.", "---\ndatasets: 5\n---\n", "---\nmodel-index: 5\n---\n")
    assert any("is not known: The card" in str(warning.message) for warning in warned) != is_readable
    assert "hvq-inpaint model" in (workplace / "copy" / "README.md").read_text()


def test_the_licence_of_a_card_by_hand_goes_with_the_weights(tmp_path: Path) -> None:
    scenarios.make().save_pretrained(tmp_path)
    (tmp_path / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n# Mine\n")
    assert HVQInpainter.from_pretrained(tmp_path).refiner.generate_model_card().data.license == "cc-by-nc-4.0"


def test_of_what_a_card_leads_to_only_the_folder_s_own_files_are_sent(folder: Path, tmp_path: Path) -> None:
    model, staged = tmp_path / "model", tmp_path / "staged"
    scenarios.make().save_pretrained(model)
    staged.mkdir()
    for path in (model / "a b.png", model / "sub" / "c.png", tmp_path / "secret.png"):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"picture")
    links = ["a%20b.png", "<a b.png>", "sub/c.png#top", "../secret.png", "../model/a b.png", f"{tmp_path}/secret.png"]
    links += [f"{model}/sub/c.png", "data:image/png;base64," + "A" * 5000, "https://a.b/c.png", "none.png", "sub"]
    card = model / "README.md"
    card.write_text(card.read_text() + "".join(f"\n![x]({link})" for link in links))
    before = sorted(tmp_path.rglob("*"))
    assert stage_model(model, staged, "a/b") == []
    names = {path.relative_to(staged).as_posix() for path in staged.rglob("*") if path.is_file()}
    assert names == {"config.json", "model.safetensors", "README.md", "a b.png", "sub/c.png"}
    assert [path for path in sorted(tmp_path.rglob("*")) if not path.is_relative_to(staged)] == [
        path for path in before if path != staged
    ]


def test_only_our_own_programs_get_the_name_of_the_repository(tmp_path: Path) -> None:
    text = 'HVQInpainter.from_pretrained("hub/model") AutoModel.from_pretrained("bert")'
    assert with_model_id(text, "u/n\\1") == 'HVQInpainter.from_pretrained("u/n\\1") AutoModel.from_pretrained("bert")'


@pytest.mark.parametrize(
    "change",
    [
        {"settings": None},
        {"figures": {}},
        {"figures": {"brush": {}}},
        {"codebooks": None},
        {"versions": None},
        {"figures": {"brush": {"refined": {"mean": {"psnr_hole": None}}}}},
    ],
)
def test_an_evaluation_that_is_not_whole_is_told(change: dict, refused, workplace: Path, model_folder: str) -> None:
    document = json.loads((ROOT / "hub" / "model" / "evaluation.json").read_text())
    Path("evaluation.json").write_text(json.dumps({**document, **change}))
    assert "is no whole evaluation" in refused("card", model_folder, "--evaluation", ".")


def test_figures_that_were_measured_elsewhere_go_onto_a_card(tmp_path: Path) -> None:
    scenarios.make().vqvae.save_pretrained(tmp_path)
    (tmp_path / "figures.md").write_text("| PSNR (dB) |\n|---:|\n| 27.78 |\n")
    assert main(["card", str(tmp_path), "--results", str(tmp_path / "figures.md")]) == 0
    assert "## Results\n\n| PSNR (dB) |\n|---:|\n| 27.78 |\n\n## Limits" in (tmp_path / "README.md").read_text()
    assert not (tmp_path / "samples.jpg").exists()  # it fills nothing
    assert main(["card", str(tmp_path), "--evaluation", str(ROOT / "hub" / "model")]) == 1
    scenarios.make().save_pretrained(tmp_path / "whole")
    for more in (["--evaluation", str(ROOT / "hub" / "model")], ["--results", str(tmp_path / "figures.md")]):
        assert main(["card", str(tmp_path / "whole"), "--no-samples", *more]) == 0
    assert not ModelCard.load(tmp_path / "whole" / "README.md").data.eval_results  # those of other figures


def test_a_card_is_refused_in_one_sentence_where_it_can_t_be_made(refused, model_folder: str, workplace: Path) -> None:
    assert "has no config.json" in refused("card", str(workplace))
    assert "measure the model first" in refused("card", model_folder, "--evaluation", "nowhere")
    (workplace / "evaluation.json").write_text("{}")
    assert "is no whole evaluation" in refused("card", model_folder, "--evaluation", ".")
    assert "is no file of text" in refused("card", model_folder, "--training", "photo.png")


# ---------------------------------------------------------------- masks


def test_the_mask_set_comes_back_from_the_hub(hub: FakeHub, owner: Client, repo_id: str, masks: Path) -> None:
    shown = run(owner, "masks", repo_id, "--masks", masks, "--send")
    assert f"dataset {repo_id}" in shown
    for options in ({}, {"streaming": True}):
        rows = owner.call(scenarios.rows, repo_id, **options)
        assert [(row["percent"], row["number"]) for row in rows] == [(10, 0), (10, 1), (11, 0), (11, 1)]
        for row in rows:
            mask = make_mask(row["kind"], 32, 32, row["percent"] / 100, row["seed"])
            assert row["image"].mode == "1" and np.array_equal(np.array(row["image"]), mask)
            assert mask.sum() == round(row["percent"] / 100 * 32 * 32)
    card = hub.files(repo_id, repo_type="dataset")["README.md"].decode()
    data = yaml.safe_load(card.split("---")[1])
    assert data["configs"][0]["data_files"] == [{"split": "test", "path": "data/test-*.parquet"}]
    assert (
        "4 masks of 32 x 32 pixels" in card and f'load_dataset("{repo_id}"' in card and "{" not in card.split("---")[2]
    )
    assert "--size 32 --per-ratio 2 --max-percent 11 --seed 3`" in card


def test_a_folder_of_masks_that_is_not_whole_is_refused(
    owner: Client, repo_id: str, masks: Path, tmp_path: Path
) -> None:
    assert "holds no complete set of masks" in refused(owner, "masks", repo_id, "--masks", tmp_path)
    (tmp_path / "masks.json").write_bytes((masks / "masks.json").read_bytes())
    assert "lacks random_walk/10/0000.png" in refused(owner, "masks", repo_id, "--masks", tmp_path)
    values = json.loads((masks / "masks.json").read_text())
    for text in ("{}", "[", json.dumps({**values, "size": "a"}), json.dumps({**values, "per_ratio": 1.5})):
        (tmp_path / "masks.json").write_text(text)
        assert "can't be used" in refused(owner, "masks", repo_id, "--masks", tmp_path)


# ---------------------------------------------------------------- the Space


def test_a_space_is_pushed_with_all_it_needs(hub: FakeHub, owner: Client, repo_id: str, folder: Path) -> None:
    hub.create(repo_id, {"hvq_inpaint/gone.py": b"old", "mine.txt": b"mine"}, repo_type="space", sdk="gradio")
    run(owner, "space", repo_id, "--model", folder, "--send", "--replace-card")
    files = hub.files(repo_id, repo_type="space")
    own = {"app.py", "requirements.txt", "README.md", "LICENSE", "hub/model/model.safetensors", "mine.txt"}
    assert own <= set(files) and "hvq_inpaint/gone.py" not in files
    assert files["app.py"] == (ROOT / "app.py").read_bytes()
    for name in ("examples/coffee.jpg", "demo/page.js", "demo/page.css", "templates/model_card.md", "__init__.py"):
        assert files[f"hvq_inpaint/{name}"] == (ROOT / "hvq_inpaint" / name).read_bytes()
    assert not [name for name in files if "__pycache__" in name or name.endswith((".bin", ".pt", ".pyc"))]
    data = yaml.safe_load(files["README.md"].decode().split("---")[1])
    assert data["sdk"] == "gradio" and data["sdk_version"] == version("gradio") and data["app_file"] == "app.py"
    assert {"title", "emoji", "colorFrom", "colorTo", "python_version", "license", "tags"} <= set(data)
    assert len(data["short_description"]) <= 60
    # In a new Space lies a card that nobody wrote.
    run(owner, "space", f"{repo_id}-2", "--model", folder, "--send")
    assert (
        hub.files(f"{repo_id}-2", repo_type="space")["README.md"].decode().replace(f"{repo_id}-2", repo_id)
        == files["README.md"].decode()
    )
    assert f'Client("{repo_id}")' in files["README.md"].decode()


def test_requirements_are_pinned_to_what_is_installed() -> None:
    lines = pinned_requirements((ROOT / "requirements.txt").read_text()).splitlines()
    assert len(lines) == len((ROOT / "requirements.txt").read_text().split("\n")) - 1
    assert f"torch=={version('torch').partition('+')[0]}" in lines and f"gradio=={version('gradio')}" in lines


def test_a_build_that_not_everybody_has_is_not_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hvq_inpaint.publishing.space.version", lambda name: {"torch": "2.9.1+cpu"}[name])
    assert pinned_requirements("torch>=2.7\n\n") == "torch==2.9.1\n"


def test_a_part_makes_no_space(owner: Client, repo_id: str, tmp_path: Path) -> None:
    scenarios.make().vqvae.save_pretrained(tmp_path)
    assert "fills nothing" in refused(owner, "space", repo_id, "--model", tmp_path)


def test_the_space_s_folder_is_a_program_of_its_own(owner: Client, repo_id: str, folder: Path, tmp_path: Path) -> None:
    """From the folder alone: neither this checkout nor an installed package is looked at."""
    run(owner, "space", repo_id, "--model", folder, "--save", tmp_path / "space")
    code = "import app, hvq_inpaint, sys; print(hvq_inpaint.__file__); print(list(app.load_models(None, 'cpu')))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path / "space", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    where, models = done.stdout.splitlines()
    assert Path(where).parent.parent == tmp_path / "space" and models == "['bundled']"
    assert "is there already" in refused(owner, "space", repo_id, "--model", folder, "--save", tmp_path / "space")
