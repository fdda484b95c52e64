"""The way to and from the Hugging Face Hub: files of a repository fetched, and sent in one commit.

What goes wrong on the way is told in one sentence. A token is taken from where `hf auth login` keeps it, or from the
environment variable HF_TOKEN, and is shown nowhere.
"""

from __future__ import annotations

import errno
import fnmatch
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    constants,
    hf_hub_download,
)
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from .card import CARD_FILE
from .errors import InvalidInputError

# The client's errors of connections; which library they come from depends on its version.
_ConnectionProblem = HfHubHTTPError.__mro__[1]

_SIGN_IN = "sign in with 'hf auth login', or set HF_TOKEN"
_COLLISION = 412  # HTTP status of a commit whose parent is not the newest any more


@contextmanager
def told_in_a_sentence(name: str, revision: str | None = None, is_sent: bool = False) -> Iterator[None]:
    """A block in which the Hub is asked for the repository `name`; what goes wrong is told as `InvalidInputError`.

    Args:
        revision: that is asked for.
        is_sent: whether something is to be sent there; what is to be loaded might have been a folder.
    """
    either = "" if is_sent else f"There is no folder {name}, and "
    try:
        yield
    except HFValidationError:
        meant = "not" if is_sent else "neither a model folder nor"
        raise InvalidInputError(f"{name} is {meant} the id of a repository on the Hub, such as user/name.") from None
    except GatedRepoError:
        raise InvalidInputError(
            f"Not everybody may have {name}: ask for access on its page on the Hub, and {_SIGN_IN}."
        ) from None
    except RevisionNotFoundError:
        raise InvalidInputError(f"The repository {name} has no branch, tag or commit {revision}.") from None
    except RepositoryNotFoundError:
        found = f"{either}no repository of that name" if either else f"There is no repository {name}"
        raise InvalidInputError(f"{found} on the Hub, or it is private: check the name, or {_SIGN_IN}.") from None
    except LocalTokenNotFoundError:
        raise InvalidInputError(f"The Hub needs a token: {_SIGN_IN}.") from None
    except (LocalEntryNotFoundError, OfflineModeIsEnabled):
        hub = f"{either}the Hub, where it may be a repository," if either else "The Hub"
        raise InvalidInputError(f"{hub} can't be reached.") from None
    except HfHubHTTPError as error:
        raise InvalidInputError(_sentence_of(error, name)) from None
    except _ConnectionProblem as error:
        raise InvalidInputError(_no_connection(name, error)) from None
    except json.JSONDecodeError:
        raise InvalidInputError(
            "What answers at the address of the Hub is not the Hub, as with a network that asks to sign in first: "
            f"{name} can't be fetched or sent."
        ) from None
    except UnicodeEncodeError:
        raise InvalidInputError("The token, perhaps that of HF_TOKEN, has letters that no token has.") from None
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise InvalidInputError(f"The disk is full, so {name} can't be fetched or sent: make room.") from None


def _no_connection(name: str, error: BaseException) -> str:
    return f"The connection to the Hub can't be made or broke off ({type(error).__name__}) at {name}: try again."


def _sentence_of(error: HfHubHTTPError, name: str) -> str:
    """What a refusal of the Hub means."""
    status = getattr(error.response, "status_code", None)
    if status == 401:
        return f"The Hub does not take the token: {_SIGN_IN}, with one that is valid."
    if status == 403:
        return f"The token may not do this with {name}: {_SIGN_IN}, with one that may."
    if status == _COLLISION:
        return f"Something else was sent to {name} at the same time: look at it, and give the command again."
    said = error.server_message or str(error).splitlines()[0]
    return f"The Hub refuses {name} (status {status}: {' '.join(said.split()).rstrip('.')}): try again later."


def fetch(name: str, file: str, **options: Any) -> Path | None:
    """A file of the model repository `name`, from the cache or the Hub; None if the repository has no such file.

    Args:
        options: as for `huggingface_hub.hf_hub_download`: `revision`, `token`, `cache_dir`, `local_files_only` and
            `force_download`.

    Raises:
        InvalidInputError: it can't be had; the message says why.
    """
    with told_in_a_sentence(name, options.get("revision")):
        try:
            return Path(hf_hub_download(repo_id=name, filename=file, **options))
        except RemoteEntryNotFoundError:
            return None
        except LocalEntryNotFoundError:
            if not options.get("local_files_only"):
                raise
            raise InvalidInputError(
                f"There is no folder {name}, and the cache has no {file} of such a repository: without "
                "local_files_only it is fetched from the Hub."
            ) from None
        except RuntimeError as error:  # of hf_xet, which moves large files
            raise InvalidInputError(_no_connection(name, error)) from None


@dataclass(frozen=True)
class Upload:
    """Files that are to be sent to a repository, in one commit.

    Attributes:
        files: by their paths in the repository.
        replaced: patterns of files that are deleted there if they are none of `files`.
        keeps_card: whether a card that is there already stays.
        private: of a repository that is made for it; None: as the account is set up.
        create_pr: propose the commit as a pull request.
        tag: a name for the commit, such as `v1`.
    """

    repo_id: str
    files: Mapping[str, Path]
    message: str
    repo_type: str = constants.REPO_TYPE_MODEL
    branch: str = constants.DEFAULT_REVISION
    replaced: Sequence[str] = ()
    keeps_card: bool = True
    private: bool | None = None
    create_pr: bool = False
    tag: str | None = None


@dataclass(frozen=True)
class Comparison:
    """An upload beside what is in its repository.

    Attributes:
        head: the newest commit of the branch, or of that which a new branch starts from; None without a repository.
        exists: whether there is such a repository.
        has_branch: and such a branch.
        states: of each file: `new`, `changed`, `same`, or `kept` of a card that stays.
        deleted: files that go.
    """

    head: str | None
    exists: bool
    has_branch: bool
    states: Mapping[str, str]
    deleted: list[str] = field(default_factory=list)

    @property
    def changes_something(self) -> bool:
        return bool(self.deleted) or bool({"new", "changed"} & set(self.states.values()))


class UnreachableError(InvalidInputError):
    """What is on the Hub can't be seen."""


def compare(upload: Upload, token: str | None = None) -> Comparison:
    """What an upload would change; asks the Hub and changes nothing there.

    Raises:
        UnreachableError: the Hub can't be reached or does not answer.
        InvalidInputError: it can't be sent as it is asked: a public repository is to be private, or the tag is another
            commit's.
    """
    if upload.tag and upload.create_pr:
        raise InvalidInputError("A pull request is no commit of its branch yet, so it can't get a tag.")
    api = HfApi(token=token)
    nothing = dict.fromkeys(upload.files, "new")
    where = {"repo_id": upload.repo_id, "repo_type": upload.repo_type}
    try:
        with told_in_a_sentence(upload.repo_id, upload.branch, is_sent=True):
            if not api.repo_exists(**where):
                return Comparison(None, False, False, nothing)
            references = api.list_repo_refs(**where)
            branches = {branch.name: branch.target_commit for branch in references.branches}
            tags = {tag.name: tag.target_commit for tag in references.tags}
            head = branches.get(upload.branch, branches[constants.DEFAULT_REVISION])
            is_private = api.repo_info(**where).private
            there = {
                entry.path: entry
                for entry in api.list_repo_tree(**where, revision=head, recursive=True)
                if hasattr(entry, "blob_id")  # a file, no folder
            }
    except InvalidInputError as error:
        raise UnreachableError(str(error)) from None
    if upload.private and not is_private:
        raise _is_public(upload.repo_id)
    states = {}
    for path, file in upload.files.items():
        if path not in there:
            states[path] = "new"
        elif path == CARD_FILE and upload.keeps_card:
            states[path] = "kept"
        else:
            states[path] = "same" if _is_same(file, there[path]) else "changed"
    deleted = [
        path
        for path in sorted(there)
        if path not in upload.files and any(fnmatch.fnmatch(path, pattern) for pattern in upload.replaced)
    ]
    comparison = Comparison(head, True, upload.branch in branches, states, deleted)
    if upload.tag in tags and (comparison.changes_something or tags[upload.tag] != head):
        raise InvalidInputError(f"{upload.repo_id} has a tag {upload.tag} already: choose another one.")
    return comparison


def _is_same(file: Path, entry: Any) -> bool:
    """Whether a file has the contents of one in a repository, by its hash: no contents are fetched."""
    if entry.size != file.stat().st_size:
        return False
    if entry.lfs is not None:
        return CommitOperationAdd(file.name, file).upload_info.sha256.hex() == entry.lfs.sha256
    contents = file.read_bytes()  # which is small
    # Git's name of a blob; no secret hangs on it.
    return hashlib.sha1(b"blob %d\0" % len(contents) + contents, usedforsecurity=False).hexdigest() == entry.blob_id


def describe(upload: Upload, comparison: Comparison | None) -> str:
    """Exactly what `send` would do, in lines; `comparison` is None if the Hub could not be asked."""
    kind = {"model": "model", "dataset": "dataset", "space": "Space"}[upload.repo_type]
    repository, branch = f"{kind} {upload.repo_id}", f"branch {upload.branch}"
    if comparison is not None and not comparison.exists:
        repository += f" (new{', private' if upload.private else ''})"
    if comparison is not None and not comparison.has_branch and upload.branch != constants.DEFAULT_REVISION:
        branch += " (new, from main)"
    form = "a pull request" if upload.create_pr else "one commit"
    tag = f", with the tag {upload.tag}" if upload.tag else ""
    lines = [f"{repository}, {branch}, as {form}{tag}: {upload.message}"]
    states = {} if comparison is None else comparison.states
    for path, file in sorted(upload.files.items()):
        lines.append(f"  {states.get(path, '?'):8} {file.stat().st_size:>12,}  {path}")
    for path in [] if comparison is None else comparison.deleted:
        lines.append(f"  {'deleted':8} {'':>12}  {path}")
    sent = [path for path in upload.files if states.get(path, "?") not in ("same", "kept")]
    lines.append(f"{len(sent)} files, {sum(upload.files[path].stat().st_size for path in sent):,} bytes to send")
    if states.get(CARD_FILE) == "kept":
        lines.append(f"The card that is there ({CARD_FILE}) is kept; --replace-card sends this one.")
    return "\n".join(lines)


def send(upload: Upload, token: str | None = None) -> str:
    """Send an upload, as one commit or not at all; the repository and the branch are made if they are not there.

    Args:
        token: None: the one of `hf auth login` or HF_TOKEN.

    Returns:
        The address of the commit; of the repository, if there is nothing to change.

    Raises:
        InvalidInputError: it can't be sent, or something else was sent to the branch meanwhile; then nothing has
            changed there. Or the tag could not be made, which the message says.
    """
    api = HfApi(token=token)
    where = {"repo_id": upload.repo_id, "repo_type": upload.repo_type}
    _check_token(api, upload.repo_id)
    with told_in_a_sentence(upload.repo_id, upload.branch, is_sent=True):
        if not api.repo_exists(**where):
            upload = replace(upload, keeps_card=False)  # what the Hub itself puts into a new Space is nobody's card
        made = api.create_repo(
            **where,
            private=upload.private,
            exist_ok=True,
            space_sdk="gradio" if upload.repo_type == constants.REPO_TYPE_SPACE else None,
        )
        if upload.branch != constants.DEFAULT_REVISION and not upload.create_pr:
            api.create_branch(**where, branch=upload.branch, exist_ok=True)
    comparison = compare(upload, token)
    operations: list[CommitOperationAdd | CommitOperationDelete] = [
        CommitOperationAdd(path, file)
        for path, file in upload.files.items()
        if comparison.states[path] in ("new", "changed")
    ]
    operations += [CommitOperationDelete(path) for path in comparison.deleted]
    commit, address = comparison.head, str(made)
    with told_in_a_sentence(upload.repo_id, upload.branch, is_sent=True):
        if operations:
            try:
                done = api.create_commit(
                    **where,
                    operations=operations,
                    commit_message=upload.message,
                    revision=upload.branch,
                    create_pr=upload.create_pr,
                    # Otherwise, of two pushes at once, one might leave files of the other between its own.
                    parent_commit=comparison.head,
                )
            except RuntimeError as error:  # so the client, or hf_xet, tells that a file could not be sent
                raise InvalidInputError(_no_connection(upload.repo_id, error.__cause__ or error)) from None
            except ValueError as error:  # so the client tells what the Hub finds wrong with a card
                if CARD_FILE not in str(error):
                    raise
                raise InvalidInputError(f"The Hub refuses the card: {' '.join(str(error).split())}.") from None
            commit, address = done.oid, done.pr_url or done.commit_url
    if upload.tag is not None:
        try:
            with told_in_a_sentence(upload.repo_id, is_sent=True):
                api.create_tag(**where, tag=upload.tag, revision=commit, exist_ok=True)
        except InvalidInputError as error:
            raise InvalidInputError(f"The commit is there ({address}), its tag is not: {error}") from None
    return address


def check_access(repo_id: str, private: bool | None = None, token: str | None = None, create_pr: bool = False) -> str:
    """Make sure that a model can be pushed, before there is one: makes the repository if it is not there.

    Whether a token of fine grain may write to the repository is only seen when it does.

    Returns:
        The whole id, with the name of the account if it was left out.

    Raises:
        InvalidInputError: it can't; the message says why.
    """
    api = HfApi(token=token)
    own = _check_token(api, repo_id)
    with told_in_a_sentence(repo_id, is_sent=True):
        # To make one that is there the client takes for done, whoever it belongs to.
        is_foreign = "/" in repo_id and repo_id.partition("/")[0] not in own and api.repo_exists(repo_id)
        if is_foreign and not create_pr:
            raise InvalidInputError(f"The token may not do this with {repo_id}: {_SIGN_IN}, with one that may.")
        whole = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        is_private = api.repo_info(whole).private
    if private and not is_private:
        raise _is_public(whole)
    return whole


def _is_public(repo_id: str) -> InvalidInputError:
    """What is to be said where a repository is to be private and is not."""
    return InvalidInputError(
        f"{repo_id} is there and public: make it private on its page first, or choose another name."
    )


def _check_token(api: HfApi, repo_id: str) -> set[str]:
    """Refuse to send without a token, or with one that may only read; returns the names that it may speak for."""
    with told_in_a_sentence(repo_id, is_sent=True):
        known = api.whoami()
    if known.get("auth", {}).get("accessToken", {}).get("role") == "read":
        raise InvalidInputError(f"The token may only read: {_SIGN_IN}, with one that may write.")
    return {known["name"], *(organisation["name"] for organisation in known.get("orgs", ()))}
