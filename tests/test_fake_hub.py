"""The Hub in memory holds against the real client: what is pushed is pulled, and what it refuses or cuts is noticed."""

from __future__ import annotations

import io
import os
import socket
import sys
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from fake_hub import FakeHub
from hub_client import Client, ClientError, hub_client
from huggingface_hub import CommitOperationAdd, CommitOperationDelete

# Functions of `huggingface_hub` that the client's process runs.
CREATE_REPO = "huggingface_hub:create_repo"
CREATE_COMMIT = "huggingface_hub:create_commit"
UPLOAD_FOLDER = "huggingface_hub:upload_folder"
DOWNLOAD = "huggingface_hub:hf_hub_download"
SNAPSHOT = "huggingface_hub:snapshot_download"

WEIGHTS = bytes(range(256)) * 4000  # 1 MB: more than a connection takes at once


def load_rows(name: str, **options: Any) -> list[dict[str, Any]]:
    """Run by the client's process: the rows of a dataset."""
    import datasets

    return list(datasets.load_dataset(name, split="train", **options))


def imported(name: str) -> bool:
    """Run by the client's process."""
    return name in sys.modules


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A regular file, a large one and one in a sub-folder with a space in its name."""
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A model\n")
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    (folder / "sub" / "a note.txt").write_text("note")
    return folder


@pytest.fixture
def name(repo_id: str) -> str:
    return repo_id


def contents(folder: Path | str) -> dict[str, bytes]:
    folder = Path(folder)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def pushed(hub: FakeHub, name: str, revision: str = "main", repo_type: str = "model") -> dict[str, bytes]:
    """All files of a repository but the one that the Hub makes."""
    files = hub.files(name, revision, repo_type)
    del files[".gitattributes"]
    return files


def table(rows: int) -> bytes:
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"number": list(range(rows))}), file)
    return file.getvalue()


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_folder_is_pushed_and_pulled(hub: FakeHub, owner: Client, folder: Path, name: str):
    owner.call(CREATE_REPO, name, private=True)
    assert hub.is_private(name)
    assert [message for _, message in hub.commits(name)] == ["initial commit"]
    info = owner.call(UPLOAD_FOLDER, repo_id=name, folder_path=str(folder), commit_message="First")
    assert hub.commits(name)[0] == (info.oid, "First")
    assert info.commit_url == f"{hub.endpoint}/{name}/commit/{info.oid}"
    assert pushed(hub, name) == contents(folder)
    assert contents(owner.call(SNAPSHOT, name)) == hub.files(name)
    # The same again makes no commit and sends nothing.
    hub.reset()
    assert owner.call(UPLOAD_FOLDER, repo_id=name, folder_path=str(folder)).oid == info.oid
    assert "PUT" not in [exchange.method for exchange in hub.requests]
    owner.call("huggingface_hub:delete_repo", name)
    assert ("model", name) not in hub.repositories


def test_large_files_are_elsewhere_and_get_no_token(hub: FakeHub, owner: Client, folder: Path, name: str):
    owner.call(CREATE_REPO, name)
    owner.call(UPLOAD_FOLDER, repo_id=name, folder_path=str(folder))
    owner.call(DOWNLOAD, name, "model.safetensors")
    owner.call(DOWNLOAD, name, "README.md")
    sent = [exchange for exchange in hub.requests if exchange.path.startswith("/objects/")]
    assert [(exchange.method, exchange.status, exchange.authorized) for exchange in sent] == [
        ("PUT", 200, False),
        ("GET", 200, False),
    ]
    assert all(exchange.authorized for exchange in hub.requests if exchange not in sent)


def test_revisions(hub: FakeHub, owner: Client, name: str):
    hub.create(name, {"config.json": b"1", "model.safetensors": b"weights of 1"})
    first = hub.commits(name)[0][0]
    owner.call("huggingface_hub:create_tag", name, tag="v1")
    owner.call("huggingface_hub:create_branch", name, branch="next/try", revision="v1")
    second = hub.commit(name, {"config.json": b"2"}, "Second")
    on_branch = hub.commit(name, {"config.json": b"3"}, "Third", branch="next/try")
    adding = [CommitOperationAdd("config.json", b"4")]
    pull_request = owner.call(CREATE_COMMIT, name, operations=adding, commit_message="Fourth", create_pr=True)
    assert pull_request.pr_revision == "refs/pr/1"
    owner.call(CREATE_COMMIT, name, operations=adding, commit_message="Fifth", revision="refs/pr/1")
    for revision, expected in {
        None: b"2",
        "main": b"2",
        "v1": b"1",
        "next/try": b"3",
        "refs/pr/1": b"4",
        first: b"1",
        second: b"2",
        on_branch: b"3",
        pull_request.oid: b"4",
    }.items():
        assert Path(owner.call(DOWNLOAD, name, "config.json", revision=revision)).read_bytes() == expected
    references = owner.call("huggingface_hub:list_repo_refs", name, include_pull_requests=True)
    assert [(tag.name, tag.target_commit) for tag in references.tags] == [("v1", first)]
    assert [(branch.name, branch.target_commit) for branch in references.branches] == [
        ("main", second),
        ("next/try", on_branch),
    ]
    assert [reference.ref for reference in references.pull_requests] == ["refs/pr/1"]
    assert hub.commits(name, branch="next/try")[:2] == [(on_branch, "Third"), (first, "Upload files")]


def test_what_is_asked_about_a_repository(hub: FakeHub, owner: Client, name: str):
    assert owner.call("huggingface_hub:whoami")["name"] == "tester"
    assert not owner.call("huggingface_hub:repo_exists", name)
    hub.create(name, {"config.json": b"{}", "sub/model.safetensors": b"weights"}, private=True)
    assert owner.call("huggingface_hub:repo_exists", name)
    assert owner.call("huggingface_hub:file_exists", name, "config.json")
    assert not owner.call("huggingface_hub:file_exists", name, "config.yaml")
    info = owner.call("huggingface_hub:model_info", name, revision="main", files_metadata=True)
    assert (info.sha, info.private, info.gated) == (hub.commits(name)[0][0], True, False)
    sizes = {sibling.rfilename: sibling.size for sibling in info.siblings}
    assert sizes == {path: len(data) for path, data in hub.files(name).items()}
    assert owner.call("huggingface_hub:list_repo_files", name) == sorted(hub.files(name))
    found = owner.call("huggingface_hub:get_paths_info", name, ["sub", "sub/model.safetensors", "missing"])
    assert [entry.path for entry in found] == ["sub", "sub/model.safetensors"]
    assert found[1].lfs.size == 7


def test_files_are_deleted(hub: FakeHub, owner: Client, folder: Path, name: str):
    hub.create(name, {"old.txt": b"old", "kept.txt": b"kept", "gone/a.txt": b"a", "gone/b.txt": b"b"})
    deletions = [CommitOperationDelete("old.txt"), CommitOperationDelete("gone/")]
    owner.call(CREATE_COMMIT, name, operations=deletions, commit_message="Tidy")
    assert pushed(hub, name) == {"kept.txt": b"kept"}
    owner.call(UPLOAD_FOLDER, repo_id=name, folder_path=str(folder), delete_patterns="*")
    assert pushed(hub, name) == contents(folder)


def test_creation_is_refused(hub: FakeHub, owner: Client, stranger: Client, name: str):
    hub.create(name)
    for who, repo_id, token, status, message in (
        (owner, name, None, 409, f"You already created this model repo: {name}"),
        (owner, "somebody/model", None, 403, 'rights to create a model under the namespace "somebody"'),
        (owner, f"{name}-2", hub.read_token, 403, 'rights to create a model under the namespace "tester"'),
        (owner, f"{name}-2", "hf_wrong", 401, "Invalid credentials in Authorization header"),
        (stranger, f"{name}-2", None, 401, "Invalid username or password."),
    ):
        with pytest.raises(ClientError) as refusal:
            who.call(CREATE_REPO, repo_id, token=token)
        assert (refusal.value.type_name, refusal.value.status) == ("HfHubHTTPError", status)
        assert message in refusal.value.message
    # Says nothing of whether the repository may be written, as on the Hub.
    for token in (hub.token, hub.read_token):
        assert owner.call(CREATE_REPO, name, exist_ok=True, token=token).repo_id == name
    assert [repo_id for _, repo_id in hub.repositories if repo_id.startswith(name)] == [name]


def test_a_wrong_token(hub: FakeHub, owner: Client, name: str):
    hub.create(name, {"config.json": b"{}"})  # public: it would be there for somebody without a token
    for function, options in (
        (DOWNLOAD, {"repo_id": name, "filename": "config.json"}),
        (SNAPSHOT, {"repo_id": name}),
        (UPLOAD_FOLDER, {"repo_id": name, "folder_path": "."}),
        ("huggingface_hub:whoami", {}),
    ):
        with pytest.raises(ClientError) as refusal:
            owner.call(function, **options, token="hf_wrong")
        assert (refusal.value.type_name, refusal.value.status) == ("HfHubHTTPError", 401)
        told = "Invalid user token." if "whoami" in function else "Invalid credentials in Authorization header"
        assert told in refusal.value.message


def test_a_push_without_the_right_to(hub: FakeHub, owner: Client, stranger: Client, folder: Path, name: str):
    hub.create(name)
    hub.create("somebody/model")
    for who, repo_id, token, kind, status, message in (
        (owner, name, hub.read_token, "HfHubHTTPError", 403, "you must use a write token to upload to a repository"),
        (owner, "somebody/model", None, "HfHubHTTPError", 403, "pass `create_pr=1` as a query parameter"),
        (stranger, name, None, "RepositoryNotFoundError", 401, "Invalid username or password."),
        (owner, f"{name}-2", None, "RepositoryNotFoundError", 404, "Repository Not Found for url"),
    ):
        with pytest.raises(ClientError) as refusal:
            who.call(UPLOAD_FOLDER, repo_id=repo_id, folder_path=str(folder), token=token)
        assert (refusal.value.type_name, refusal.value.status) == (kind, status)
        assert message in refusal.value.message
    assert len(hub.commits(name)) == 1


def test_a_private_repository_is_not_there_for_others(hub: FakeHub, owner: Client, stranger: Client, name: str):
    hub.create(name, {"config.json": b"{}"}, private=True)
    missing = f"{name}-2"
    for repo_id in (name, missing):
        for function, arguments in ((DOWNLOAD, (repo_id, "config.json")), (SNAPSHOT, (repo_id,))):
            with pytest.raises(ClientError) as refusal:
                stranger.call(function, *arguments)
            assert (refusal.value.type_name, refusal.value.status) == ("RepositoryNotFoundError", 401)
    with pytest.raises(ClientError) as refusal:
        owner.call(DOWNLOAD, missing, "config.json")
    assert (refusal.value.type_name, refusal.value.status) == ("RepositoryNotFoundError", 404)
    assert owner.call(DOWNLOAD, name, "config.json", token=hub.read_token)


def test_what_is_not_there(hub: FakeHub, owner: Client, name: str):
    hub.create(name, {"config.json": b"{}"})
    for file, revision, kind, message in (
        ("config.json", "missing", "RevisionNotFoundError", "Invalid rev id: missing"),
        ("config.json", "0" * 40, "RevisionNotFoundError", "Invalid rev id: 0000"),
        ("missing.json", "main", "RemoteEntryNotFoundError", "Entry Not Found for url"),
    ):
        with pytest.raises(ClientError) as refusal:
            owner.call(DOWNLOAD, name, file, revision=revision)
        assert (refusal.value.type_name, refusal.value.status) == (kind, 404)
        assert message in refusal.value.message


def test_a_gated_repository(hub: FakeHub, owner: Client, stranger: Client, name: str):
    hub.create(name, {"config.json": b"{}"})
    hub.gate(name)
    for who, status, message in (
        (owner, 403, f"Access to model {name} is restricted and you are not in the authorized list."),
        (stranger, 401, f"Access to model {name} is restricted. You must have access to it and be authenticated"),
    ):
        for function, arguments in ((DOWNLOAD, (name, "config.json")), (SNAPSHOT, (name,))):
            with pytest.raises(ClientError) as refusal:
                who.call(function, *arguments)
            assert (refusal.value.type_name, refusal.value.status) == ("GatedRepoError", status)
            assert message in refusal.value.message
    assert owner.call("huggingface_hub:model_info", name).gated == "auto"


def test_two_pushes_at_once(hub: FakeHub, owner: Client, name: str):
    hub.create(name)
    head = hub.commits(name)[0][0]
    hub.before_commit = lambda: hub.commit(name, {"theirs.txt": b"theirs"}, "By another hand")
    adding = [CommitOperationAdd("mine.txt", b"mine")]
    with pytest.raises(ClientError) as refusal:
        owner.call(CREATE_COMMIT, name, operations=adding, commit_message="Mine", parent_commit=head)
    assert (refusal.value.type_name, refusal.value.status) == ("HfHubHTTPError", 412)
    assert "A commit has happened since. Please refresh and try again." in refusal.value.message
    assert pushed(hub, name) == {"theirs.txt": b"theirs"}
    # The new one will do, by the beginning of its id too.
    head = hub.commits(name)[0][0]
    owner.call(CREATE_COMMIT, name, operations=adding, commit_message="Mine", parent_commit=head[:8])
    assert pushed(hub, name) == {"theirs.txt": b"theirs", "mine.txt": b"mine"}
    # Without a parent, the one who comes second wins.
    hub.before_commit = lambda: hub.commit(name, {"mine.txt": b"theirs too"}, "By another hand")
    adding = [CommitOperationAdd("mine.txt", b"mine again")]
    owner.call(CREATE_COMMIT, name, operations=adding, commit_message="Mine")
    assert hub.before_commit is None
    assert pushed(hub, name)["mine.txt"] == b"mine again"


def test_the_other_hand_may_ask_the_hub(hub: FakeHub, owner: Client, stranger: Client, name: str):
    hub.create(name)
    seen = []
    hub.before_commit = lambda: seen.append(stranger.call("huggingface_hub:list_repo_files", name))
    adding = [CommitOperationAdd("mine.txt", b"mine")]
    owner.call(CREATE_COMMIT, name, operations=adding, commit_message="Mine")
    assert seen == [[".gitattributes"]]


def test_a_cut_upload_is_tried_again(hub: FakeHub, owner: Client, folder: Path, name: str):
    owner.call(CREATE_REPO, name)
    hub.cut_upload(after=len(WEIGHTS) // 2)
    owner.call(UPLOAD_FOLDER, repo_id=name, folder_path=str(folder))
    assert [exchange.status for exchange in hub.requests if exchange.method == "PUT"] == [None, 200]
    assert pushed(hub, name) == contents(folder)


def test_an_upload_that_is_cut_every_time(hub: FakeHub, owner: Client, folder: Path, name: str):
    owner.call(CREATE_REPO, name)
    hub.cut_upload(after=len(WEIGHTS) // 2, times=6)
    with pytest.raises(ClientError) as failure:
        owner.call(UPLOAD_FOLDER, repo_id=name, folder_path=str(folder))
    # Neither an OSError nor one of `huggingface_hub`; what the connection said depends on when it was noticed.
    assert failure.value.bases == ("RuntimeError", "Exception", "BaseException", "object")
    assert failure.value.message == "Error while uploading 'model.safetensors' to the Hub."
    assert failure.value.causes[0].startswith(("ReadError", "WriteError", "RemoteProtocolError"))
    assert [exchange.status for exchange in hub.requests if exchange.method == "PUT"] == [None] * 6
    assert [message for _, message in hub.commits(name)] == ["initial commit"]
    owner.call(UPLOAD_FOLDER, repo_id=name, folder_path=str(folder))
    assert pushed(hub, name) == contents(folder)


def test_a_cut_download_is_tried_again(hub: FakeHub, owner: Client, name: str):
    files = {"config.json": b"{}" * 100, "model.safetensors": WEIGHTS}
    hub.create(name, files)
    for path, data in files.items():
        hub.cut_download(after=100, path=path)
        assert Path(owner.call(DOWNLOAD, name, path)).read_bytes() == data
    assert [exchange.status for exchange in hub.requests if exchange.method == "GET"] == [200] * 4


def test_a_long_download_goes_on_where_it_was_cut(hub: FakeHub, owner: Client, name: str):
    data = WEIGHTS * 11  # the client takes 10 MB at a time, and forgets what it has of less
    hub.create(name, {"model.safetensors": data})
    hub.cut_download(after=10_500_000)
    assert Path(owner.call(DOWNLOAD, name, "model.safetensors")).read_bytes() == data
    assert [exchange.status for exchange in hub.requests if exchange.method == "GET"] == [200, 206]


def test_a_download_that_is_cut_every_time(hub: FakeHub, owner: Client, name: str):
    hub.create(name, {"model.safetensors": WEIGHTS})
    for function, arguments in ((DOWNLOAD, (name, "model.safetensors")), (SNAPSHOT, (name,))):
        hub.cut_download(after=1000, times=6, path="*.safetensors")
        with pytest.raises(ClientError) as failure:
            owner.call(function, *arguments)
        assert failure.value.type_name == "RemoteProtocolError"
        assert "OSError" not in failure.value.bases  # of httpx, and not one of `huggingface_hub`
        assert failure.value.message == (
            "peer closed connection without sending complete message body "
            f"(received 1000 bytes, expected {len(WEIGHTS)})"
        )
    assert Path(owner.call(DOWNLOAD, name, "model.safetensors")).read_bytes() == WEIGHTS


def test_an_armed_failure(hub: FakeHub, owner: Client, name: str):
    hub.create(name, {"config.json": b"{}"})
    adding = [CommitOperationAdd("mine.txt", b"mine")]
    hub.fail("*/preupload/*", 503, times=2)
    owner.call(CREATE_COMMIT, name, operations=adding, commit_message="Mine")
    preuploads = [exchange.status for exchange in hub.requests if "/preupload/" in exchange.path]
    assert preuploads == [503, 503, 200]
    hub.fail("*/commit/*", 500)  # which is not tried again: it might have been made
    with pytest.raises(ClientError) as failure:
        owner.call(CREATE_COMMIT, name, operations=[CommitOperationAdd("more.txt", b"")], commit_message="More")
    assert (failure.value.type_name, failure.value.status) == ("HfHubHTTPError", 500)
    hub.fail("*/resolve/*", 500, times=7, method="HEAD")
    with pytest.raises(ClientError) as failure:
        owner.call(DOWNLOAD, name, "config.json")
    assert failure.value.type_name == "LocalEntryNotFoundError"
    assert owner.call(DOWNLOAD, name, "config.json")


def test_a_space(hub: FakeHub, owner: Client, tmp_path: Path, name: str):
    owner.call(CREATE_REPO, name, repo_type="space", space_sdk="gradio")
    assert set(hub.files(name, repo_type="space")) == {".gitattributes", "README.md"}
    (tmp_path / "README.md").write_text("---\ntitle: Demo\nsdk: gradio\napp_file: app.py\n---\n")
    (tmp_path / "app.py").write_text("print()\n")
    owner.call(UPLOAD_FOLDER, repo_id=name, folder_path=str(tmp_path), repo_type="space")
    assert pushed(hub, name, repo_type="space") == contents(tmp_path)
    assert owner.call("huggingface_hub:space_info", name).sdk == "gradio"
    assert contents(owner.call(SNAPSHOT, name, repo_type="space")) == hub.files(name, repo_type="space")


def test_a_card_that_is_no_yaml(hub: FakeHub, owner: Client, name: str):
    hub.create(name)
    adding = [CommitOperationAdd("README.md", b"---\ntags: [\n---\n")]
    with pytest.raises(ClientError, match=r"ValueError: Invalid metadata in README\.md"):
        owner.call(CREATE_COMMIT, name, operations=adding, commit_message="Card")


def test_a_dataset(hub: FakeHub, owner: Client, tmp_path: Path, name: str):
    (tmp_path / "data").mkdir()
    for number in range(2):
        (tmp_path / "data" / f"train-0000{number}-of-00002.parquet").write_bytes(table(100))
    owner.call(CREATE_REPO, name, repo_type="dataset", private=True)
    owner.call(UPLOAD_FOLDER, repo_id=name, folder_path=str(tmp_path), repo_type="dataset")
    assert pushed(hub, name, repo_type="dataset") == contents(tmp_path)
    expected = [{"number": number} for number in (*range(100), *range(100))]
    assert owner.call(load_rows, name) == expected
    hub.cut_download(after=50)
    assert owner.call(load_rows, name, streaming=True) == expected
    first = hub.commits(name, "dataset")[0][0]
    hub.commit(name, {"data/train-00001-of-00002.parquet": table(3)}, "Shorter", repo_type="dataset")
    assert len(owner.call(load_rows, name, streaming=True)) == 103
    assert len(owner.call(load_rows, name, streaming=True, revision=first)) == 200


def test_no_connection(tmp_path: Path):
    with hub_client(f"http://127.0.0.1:{closed_port()}", tmp_path, "hf_any") as client:
        for function, arguments, kind in (
            (CREATE_REPO, ("tester/model",), "ConnectError"),  # of httpx: no OSError
            (DOWNLOAD, ("tester/model", "config.json"), "LocalEntryNotFoundError"),
            (SNAPSHOT, ("tester/model",), "LocalEntryNotFoundError"),
        ):
            with pytest.raises(ClientError) as failure:
                client.call(function, *arguments)
            assert failure.value.type_name == kind
            assert ("OSError" in failure.value.bases) == (kind != "ConnectError")


def test_what_is_unknown_is_recorded(served_hub: FakeHub, owner: Client):
    with pytest.raises(ClientError) as refusal:
        owner.call("huggingface_hub:get_discussion_details", "tester/model", 1)
    assert refusal.value.status == 404
    assert served_hub.unknown == ["GET /api/models/tester/model/discussions/1"]
    # So is a fault of the Hub in memory itself.
    served_hub.reset()
    served_hub.create("tester/model")
    served_hub.before_commit = lambda: served_hub.commit("tester/missing", {}, "Fails")
    with pytest.raises(ClientError, match="500 Internal Server Error"):
        owner.call(CREATE_COMMIT, "tester/model", operations=[CommitOperationAdd("a", b"a")], commit_message="A")
    assert served_hub.unknown == ["POST /api/models/tester/model/commit/main failed"]


def test_the_client_has_an_environment_of_its_own(hub: FakeHub, tmp_path: Path):
    before = dict(os.environ)
    with hub_client(hub.endpoint, tmp_path, None) as client:
        assert dict(os.environ) == before
        assert client.call("os:getenv", "HF_ENDPOINT") == hub.endpoint
        assert client.call("os:getenv", "HF_TOKEN") is None
        assert not client.call("huggingface_hub:is_offline_mode")
        assert not client.call(imported, "conftest")
        with pytest.raises(ClientError, match=r"the client tried to reach \('192\.0\.2\.1', 80\)"):
            client.call("socket:create_connection", ("192.0.2.1", 80))
    assert os.environ["HF_HUB_OFFLINE"] == "1"


def test_the_client_runs_commands(owner: Client):
    status, output, error = owner.run(["--version"])
    assert (status, error) == (0, "")
    assert output.startswith("hvq-inpaint ")
    status, output, error = owner.run(["inpaint"])
    assert (status, output) == (2, "")
    assert "the following arguments are required" in error
