"""Networks pushed to the Hub and pulled from it, by the real client, also where something goes wrong on the way."""

from __future__ import annotations

import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import hub_scenarios as scenarios
import pytest
from fake_hub import FakeHub
from hub_client import Client, ClientError, hub_client

from hvq_inpaint.pretrained import DEFAULT_MODEL

FIRST, SECOND = (scenarios.digest(scenarios.make(seed=seed)) for seed in (0, 1))

MANY = 50  # more than the client tries


def refusal(client: Client, function: Any, *arguments: Any, **options: Any) -> str:
    """The sentence with which a call is refused: one, with its end, and without a token."""
    with pytest.raises(ClientError) as caught:
        client.call(function, *arguments, **options)
    assert caught.value.type_name == "InvalidInputError", str(caught.value)
    message = caught.value.message
    assert "\n" not in message and message.endswith(".")
    assert "hf_" not in message
    return message


def downloads(hub: FakeHub, repo_id: str) -> list[str]:
    """The files of a repository that were asked for, by revision and name; large ones are sent on to another place."""
    start = f"/{repo_id}/resolve/"
    return [seen.path.removeprefix(start) for seen in hub.requests if seen.path.startswith(start)]


# ---------------------------------------------------------------- push and pull


def test_what_is_pushed_is_pulled_by_branch_tag_and_commit(hub: FakeHub, owner: Client, repo_id: str) -> None:
    address = owner.call(scenarios.push, repo_id, samples=True, tag="v1", commit_message="The first")
    first, message = hub.commits(repo_id)[0]
    assert message == "The first" and address == f"{hub.endpoint}/{repo_id}/commit/{first}"
    owner.call(scenarios.push, repo_id, seed=1)
    owner.call(scenarios.push, repo_id, branch="next", seed=0)
    assert owner.call(scenarios.load, repo_id) == SECOND
    for revision in ("v1", first, "next"):
        assert owner.call(scenarios.load, repo_id, revision=revision) == FIRST
    files = hub.files(repo_id)
    assert set(files) - {".gitattributes"} == {"config.json", "model.safetensors", "README.md", "samples.jpg"}
    assert f'from_pretrained("{repo_id}")' in files["README.md"].decode()
    assert "(samples.jpg)" in files["README.md"].decode()


def test_what_is_there_already_is_not_sent_again(hub: FakeHub, owner: Client, repo_id: str) -> None:
    owner.call(scenarios.push, repo_id)
    commits = hub.commits(repo_id)
    hub.requests.clear()
    assert owner.call(scenarios.push, repo_id) == f"{hub.endpoint}/{repo_id}"
    assert hub.commits(repo_id) == commits
    assert not [seen for seen in hub.requests if seen.method == "PUT" or "/commit/" in seen.path]


@pytest.mark.parametrize("architecture", ["HierarchicalVQVAE", "MultiDilationRefiner"])
def test_a_part_is_pushed_alone_and_pulled_alone_or_from_the_whole(
    hub: FakeHub, owner: Client, repo_id: str, architecture: str
) -> None:
    owner.call(scenarios.push, repo_id, architecture)
    assert owner.call(scenarios.load, repo_id, architecture) == scenarios.digest(scenarios.make(architecture))
    assert f"load it with {architecture}.from_pretrained" in refusal(owner, scenarios.load, repo_id)
    owner.call(scenarios.push, f"{repo_id}-whole")
    part = {"HierarchicalVQVAE": "vqvae", "MultiDilationRefiner": "refiner"}[architecture]
    expected = scenarios.digest(getattr(scenarios.make(), part))
    assert owner.call(scenarios.load, f"{repo_id}-whole", architecture) == expected


def test_shards_are_pushed_and_pulled_and_go_when_one_file_takes_their_place(
    hub: FakeHub, owner: Client, repo_id: str
) -> None:
    owner.call(scenarios.push, repo_id, max_shard_size=40_000)
    assert sum(name.endswith(".safetensors") for name in hub.files(repo_id)) > 2
    assert owner.call(scenarios.load, repo_id) == FIRST
    owner.call(scenarios.push, repo_id, seed=1)
    assert {name for name in hub.files(repo_id) if "safetensors" in name} == {"model.safetensors"}
    assert owner.call(scenarios.load, repo_id) == SECOND


def test_without_a_name_the_project_s_own_model_is_taken(
    hub: FakeHub, owner: Client, stranger: Client, tmp_path: Path
) -> None:
    message = refusal(stranger, scenarios.load, None)
    assert DEFAULT_MODEL in message and "hub/model in a clone of the project" in message
    owner.call(scenarios.save, str(tmp_path / "model"))
    files = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}
    hub.create(DEFAULT_MODEL, files)
    assert stranger.call(scenarios.load, None) == FIRST


def test_all_files_are_those_of_one_commit(hub: FakeHub, owner: Client, repo_id: str) -> None:
    owner.call(scenarios.push, repo_id)
    commit = hub.commits(repo_id)[0][0]
    hub.requests.clear()
    owner.call(scenarios.load, repo_id, force_download=True)
    # Otherwise, if something is pushed in between, a configuration meets the weights of another one.
    assert f"{commit}/model.safetensors" in downloads(hub, repo_id)


def test_what_was_fetched_once_is_there_without_a_connection(hub: FakeHub, owner: Client, repo_id: str) -> None:
    owner.call(scenarios.push, repo_id)
    assert owner.call(scenarios.load, repo_id) == FIRST
    hub.fail("*", 503, MANY)
    assert owner.call(scenarios.load, repo_id) == FIRST
    hub.reset()
    assert owner.call(scenarios.load, repo_id, local_files_only=True) == FIRST
    assert hub.requests == []
    message = refusal(owner, scenarios.load, f"{repo_id}-other", local_files_only=True)
    assert "the cache has no config.json of such a repository" in message and hub.requests == []


def test_shards_that_were_fetched_once_are_there_without_a_connection(
    hub: FakeHub, owner: Client, repo_id: str
) -> None:
    owner.call(scenarios.push, repo_id, max_shard_size=40_000)
    assert owner.call(scenarios.load, repo_id) == FIRST
    assert owner.call(scenarios.load, repo_id, local_files_only=True) == FIRST
    hub.fail("*", 503, MANY)
    assert owner.call(scenarios.load, repo_id) == FIRST


# ---------------------------------------------------------------- cards


def test_a_card_that_is_there_is_kept_unless_asked(hub: FakeHub, owner: Client, repo_id: str) -> None:
    hub.create(repo_id, {"README.md": b"mine"})
    owner.call(scenarios.push, repo_id)
    assert hub.files(repo_id)["README.md"] == b"mine"
    owner.call(scenarios.push, repo_id, seed=1, replace_card=True)
    assert f'from_pretrained("{repo_id}")' in hub.files(repo_id)["README.md"].decode()


def test_a_card_that_the_hub_does_not_take_is_told(hub: FakeHub, owner: Client, repo_id: str, tmp_path: Path) -> None:
    scenarios.save(str(tmp_path))
    (tmp_path / "README.md").write_text("---\n: [\n---\n")
    status, _, error = owner.run(["push", "model", repo_id, "--model", str(tmp_path), "--send"])
    assert status == 1 and error.startswith("error: The Hub refuses the card") and error.count("\n") == 1
    assert set(hub.files(repo_id)) == {".gitattributes"}


def test_the_licence_goes_with_the_weights(hub: FakeHub, owner: Client, repo_id: str, tmp_path: Path) -> None:
    facts = {"license": "other", "license_name": "mine", "training": "On photographs."}
    owner.call(scenarios.push, repo_id, model_card_kwargs=facts)
    owner.call(scenarios.copy, repo_id, f"{repo_id}-copy")
    card = tmp_path / "README.md"
    card.write_bytes(hub.files(f"{repo_id}-copy")["README.md"])
    data = scenarios.card_data(str(card))
    assert (data["license"], data["license_name"], data["base_model"]) == ("other", "mine", repo_id)
    # With a part, with what is only saved, and where another licence is given the origin is told all the same.
    for function in ("save_part", "save_copy"):
        owner.call(f"hub_scenarios:{function}", repo_id, str(tmp_path / function))
        data = scenarios.card_data(str(tmp_path / function / "README.md"))
        assert (data["license"], data["base_model"]) == ("other", repo_id)
    owner.call(scenarios.save_copy, repo_id, str(tmp_path / "mit"), model_card_kwargs={"license": "mit"})
    data = scenarios.card_data(str(tmp_path / "mit" / "README.md"))
    assert (data["license"], data.get("license_name"), data["base_model"]) == ("mit", None, repo_id)


# ---------------------------------------------------------------- who may


def test_what_is_to_be_private_does_not_become_public(hub: FakeHub, owner: Client, repo_id: str) -> None:
    hub.create(repo_id, {})
    assert "is there and public" in refusal(owner, scenarios.push, repo_id, private=True)
    assert set(hub.files(repo_id)) == {".gitattributes"}


def test_a_private_repository_without_a_token(hub: FakeHub, owner: Client, stranger: Client, repo_id: str) -> None:
    owner.call(scenarios.push, repo_id, private=True)
    assert hub.is_private(repo_id)
    assert "or it is private: check the name, or sign in" in refusal(stranger, scenarios.load, repo_id)
    assert stranger.call(scenarios.load, repo_id, token=hub.token) == FIRST


def test_a_wrong_token_and_one_that_may_only_read(hub: FakeHub, owner: Client, stranger: Client, repo_id: str) -> None:
    owner.call(scenarios.push, repo_id)
    before = hub.files(repo_id)
    wrong = "hf_" + "x" * 34
    for call in ((scenarios.load, repo_id), (scenarios.push, repo_id)):
        assert "does not take the token" in refusal(stranger, *call, token=wrong)
    assert "The Hub needs a token: sign in" in refusal(stranger, scenarios.push, repo_id, seed=1)
    assert "The token may only read" in refusal(stranger, scenarios.push, repo_id, seed=1, token=hub.read_token)
    assert "The token may not do this with somebody/model" in refusal(owner, scenarios.push, "somebody/model")
    assert hub.files(repo_id) == before


def test_a_gated_repository_says_where_to_ask(hub: FakeHub, owner: Client, repo_id: str) -> None:
    hub.create(repo_id, {"config.json": b"{}"})
    hub.gate(repo_id)
    assert "ask for access on its page" in refusal(owner, scenarios.load, repo_id)


# ---------------------------------------------------------------- what is there


def test_what_is_no_model_of_ours_is_told_before_weights_are_fetched(hub: FakeHub, owner: Client, repo_id: str) -> None:
    bert = json.dumps({"model_type": "bert", "hidden_size": 768}).encode()
    hub.create(repo_id, {"config.json": bert, "model.safetensors": b"0" * 10_000})
    assert "is no model of hvq_inpaint" in refusal(owner, scenarios.load, repo_id)
    hub.commit(repo_id, {"config.json": None}, "No configuration")
    assert "has no config.json" in refusal(owner, scenarios.load, repo_id)
    assert not [name for name in downloads(hub, repo_id) if "safetensors" in name]
    assert "no repository of that name" in refusal(owner, scenarios.load, f"{repo_id}-other")
    hub.create(f"{repo_id}-data", {"config.json": bert}, repo_type="dataset")
    assert "no repository of that name" in refusal(owner, scenarios.load, f"{repo_id}-data")


def test_a_revision_that_is_not_there_is_named(hub: FakeHub, owner: Client, repo_id: str) -> None:
    owner.call(scenarios.push, repo_id)
    assert "has no branch, tag or commit v9" in refusal(owner, scenarios.load, repo_id, revision="v9")


def test_a_repository_of_pickles_is_refused_and_none_is_fetched(
    hub: FakeHub, owner: Client, repo_id: str, tmp_path: Path
) -> None:
    owner.call(scenarios.save, str(tmp_path))
    config = (tmp_path / "config.json").read_bytes()
    hub.create(repo_id, {"config.json": config, "pytorch_model.bin": b"cos\nsystem\n"})
    message = refusal(owner, scenarios.load, repo_id)
    assert "never from pickles" in message and "ask its owner for safetensors" in message
    assert not [name for name in downloads(hub, repo_id) if name.endswith(".bin")]


def test_an_index_that_leads_elsewhere_is_refused_and_nothing_fetched(
    hub: FakeHub, owner: Client, repo_id: str, tmp_path: Path
) -> None:
    owner.call(scenarios.save, str(tmp_path))
    index = json.dumps({"weight_map": {"a": "../../other/model/resolve/main/model.safetensors"}}).encode()
    files = {"config.json": (tmp_path / "config.json").read_bytes(), "model.safetensors.index.json": index}
    hub.create(repo_id, files)
    assert "safetensors files beside it only" in refusal(owner, scenarios.load, repo_id)
    assert not [seen for seen in hub.requests if "other" in seen.path.removeprefix(f"/{repo_id}")]
    shard = "model-00001-of-00001.safetensors"
    index = json.dumps({"weight_map": {"a": shard}}).encode()
    hub.commit(repo_id, {"model.safetensors.index.json": index}, "A shard that is not there")
    assert f"lacks {shard}" in refusal(owner, scenarios.load, repo_id)


# ---------------------------------------------------------------- connections and disks


def test_without_a_connection_there_is_one_sentence(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{probe.getsockname()[1]}"
    with hub_client(address, tmp_path, "hf_any") as client:
        assert "can't be reached" in refusal(client, scenarios.load, "tester/model")
        assert "The connection to the Hub can't be made" in refusal(client, scenarios.push, "tester/model")


def test_what_is_not_the_hub_is_told(tmp_path: Path) -> None:
    """As with a network that asks to sign in first: everything is answered with a page."""

    class Portal(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "13")
            self.end_headers()
            self.wfile.write(b"<html></html>")

        do_POST = do_GET

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Portal) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with hub_client(f"http://127.0.0.1:{server.server_port}", tmp_path, "hf_any") as client:
            assert "is not the Hub" in refusal(client, scenarios.push, "tester/model")
            scenarios.save(str(tmp_path / "model"))
            status, output, error = client.run(["push", "model", "tester/m", "--model", str(tmp_path / "model")])
            assert status == 0 and "is not the Hub" in error and "Nothing was sent" in output
        server.shutdown()


def test_an_upload_that_is_cut_leaves_nothing_and_goes_on_later(hub: FakeHub, owner: Client, repo_id: str) -> None:
    owner.call(scenarios.push, repo_id)
    before = hub.files(repo_id)
    hub.cut_upload(after=1000, times=MANY)
    assert "can't be made or broke off" in refusal(owner, scenarios.push, repo_id, seed=1)
    assert hub.files(repo_id) == before
    hub.reset()
    hub.cut_upload(after=1000)  # once: the client tries again by itself
    owner.call(scenarios.push, repo_id, seed=1)
    assert owner.call(scenarios.load, repo_id) == SECOND


@pytest.mark.parametrize("status", [500, 503])
def test_a_hub_that_is_ill_leaves_nothing_half_sent(hub: FakeHub, owner: Client, repo_id: str, status: int) -> None:
    owner.call(scenarios.push, repo_id)
    before = hub.files(repo_id)
    hub.fail("*/commit/*", status, MANY)
    assert f"(status {status}" in refusal(owner, scenarios.push, repo_id, seed=1)
    assert hub.files(repo_id) == before


def test_a_download_that_is_cut_gives_no_model_and_goes_on_later(
    hub: FakeHub, owner: Client, stranger: Client, repo_id: str
) -> None:
    owner.call(scenarios.push, repo_id)
    hub.cut_download(after=1000, times=MANY, path="*model.safetensors")
    assert "can't be made or broke off" in refusal(stranger, scenarios.load, repo_id)
    hub.reset()
    hub.cut_download(after=1000, path="*model.safetensors")
    assert stranger.call(scenarios.load, repo_id) == FIRST


def test_a_full_disk_is_told_where_it_is_met(hub: FakeHub, owner: Client, repo_id: str, tmp_path: Path) -> None:
    owner.call(scenarios.push, repo_id)
    before = hub.files(repo_id)
    cache = str(tmp_path / "cache")
    message = refusal(owner, scenarios.with_full_disk, 10_000, "load", repo_id, cache_dir=cache)
    assert "The disk is full" in message
    assert owner.call(scenarios.load, repo_id, cache_dir=cache) == FIRST
    assert "can't be written" in refusal(owner, scenarios.with_full_disk, 10_000, "push", repo_id, seed=1)
    assert "The disk is full" in refusal(owner, scenarios.with_full_disk, 1000, "push", repo_id, samples=True)
    assert hub.files(repo_id) == before


def test_of_two_pushes_at_once_one_is_whole_and_the_other_told(hub: FakeHub, owner: Client, repo_id: str) -> None:
    owner.call(scenarios.push, repo_id)
    theirs = {"config.json": b"theirs", "model.safetensors": b"theirs"}
    hub.before_commit = lambda: hub.commit(repo_id, theirs, "By another hand")
    assert "Something else was sent" in refusal(owner, scenarios.push, repo_id, seed=1)
    assert {name: hub.files(repo_id)[name] for name in theirs} == theirs
    owner.call(scenarios.push, repo_id, seed=1)
    assert owner.call(scenarios.load, repo_id) == SECOND


def test_two_processes_that_push_at_once_leave_the_model_of_one(
    hub: FakeHub, owner: Client, stranger: Client, repo_id: str
) -> None:
    owner.call(scenarios.push, repo_id, seed=2)
    for _ in range(3):
        with ThreadPoolExecutor(2) as both:
            pushes = [
                both.submit(owner.call, scenarios.push, repo_id, seed=0),
                both.submit(stranger.call, scenarios.push, repo_id, seed=1, token=hub.token),
            ]
        failures = [push.exception() for push in pushes if push.exception() is not None]
        assert len(failures) < 2 and all("Something else was sent" in failure.message for failure in failures)
        assert owner.call(scenarios.load, repo_id) in (FIRST, SECOND)


def test_a_name_that_no_repository_can_have_is_refused(hub: FakeHub, owner: Client) -> None:
    for name in ("a b/c", "tester/" + "x" * 100):
        assert "neither a model folder nor the id" in refusal(owner, scenarios.load, name)
        assert "is not the id of a repository" in refusal(owner, scenarios.push, name)
    assert not any(seen.method == "POST" for seen in hub.requests)
