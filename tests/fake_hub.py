"""A Hugging Face Hub in memory, on a port of this machine, for the real client of `huggingface_hub`.

It knows what a push and a pull ask for. Statuses, `X-Error-Code`s and sentences of its refusals are those of the Hub,
because the client makes its exceptions of them. Not here: Xet, uploads in parts, pages of long listings, discussions.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
import secrets
import socket
import string
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, NamedTuple
from urllib.parse import parse_qs, quote, unquote, urlencode

import uvicorn
import yaml
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

USER = "tester"
LFS_SUFFIXES = (".jpg", ".parquet", ".png", ".safetensors")
LFS_SIZE = 64 * 1024  # 10 MB on the Hub
DATE = "2026-01-01T00:00:00.000Z"


class Exchange(NamedTuple):
    """A request and what became of it."""

    method: str
    path: str
    status: int | None  # None: the connection was cut instead
    authorized: bool  # with a token, of whatever kind


@dataclass(frozen=True)
class Commit:
    sha: str
    message: str
    parent: str | None
    files: dict[str, bytes]


@dataclass
class Repository:
    repo_id: str
    repo_type: str
    private: bool = False
    sdk: str | None = None  # of a Space
    gated: bool = False
    commits: dict[str, Commit] = field(default_factory=dict)
    references: dict[str, str] = field(default_factory=dict)  # refs/heads/main, refs/tags/v1, refs/pr/1: a commit
    objects: dict[str, bytes] = field(default_factory=dict)  # of LFS, by SHA-256; kept of an upload without a commit

    def find(self, revision: str) -> Commit | None:
        """The commit of a branch, a tag, a reference or the beginning of its own id."""
        for reference in (f"refs/heads/{revision}", f"refs/tags/{revision}", revision):
            if reference in self.references:
                return self.commits[self.references[reference]]
        if re.fullmatch("[0-9a-f]{7,40}", revision):
            return next((commit for sha, commit in self.commits.items() if sha.startswith(revision)), None)
        return None

    def add(self, reference: str, files: dict[str, bytes], message: str, parent: str | None) -> Commit:
        """A commit that holds just these files; `reference` points to it from now on."""
        commit = Commit(secrets.token_hex(20), message, parent, files)
        self.commits[commit.sha] = commit
        self.references[reference] = commit.sha
        return commit


@dataclass
class Fault:
    """Something that goes wrong so many times where path and method match."""

    times: int
    path: str
    method: str = "*"
    after: int = 0
    status: int = 0


class FakeHub:
    """What the Hub holds, what it was asked, and what is to go wrong next.

    Tokens are made anew each time, so that a test may look for one where none belongs.
    """

    def __init__(self, port: int) -> None:
        self.endpoint = f"http://127.0.0.1:{port}"
        # Large files lie elsewhere, as on the Hub: at another origin, which gets no token. Here it is the same server.
        self.storage = f"http://localhost:{port}"
        self.user = USER
        self.token, self.read_token = (
            "hf_" + "".join(secrets.choice(string.ascii_letters) for _ in range(34)) for _ in range(2)
        )
        self.signature = secrets.token_hex(16)
        self.repositories: dict[tuple[str, str], Repository] = {}  # by type and id
        self.requests: list[Exchange] = []
        self.unknown: list[str] = []  # requests it has no answer for, or failed at; a test wants none
        self.before_commit: Callable[[], None] | None = None
        self.lock = threading.RLock()
        self._upload_cuts: list[Fault] = []
        self._download_cuts: list[Fault] = []
        self._failures: list[Fault] = []

    def repository(self, repo_id: str, repo_type: str = "model") -> Repository:
        return self.repositories[repo_type, repo_id]

    def create(
        self,
        repo_id: str,
        files: Mapping[str, bytes] | None = None,
        repo_type: str = "model",
        private: bool = False,
        sdk: str | None = None,
    ) -> Repository:
        """A repository with the files that the Hub makes itself, and these in a second commit."""
        repository = Repository(repo_id, repo_type, private, sdk)
        attributes = "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LFS_SUFFIXES)
        first = {".gitattributes": attributes.encode()}
        if repo_type == "space":
            title = repo_id.partition("/")[2]
            first["README.md"] = f"---\ntitle: {title}\nsdk: {sdk}\napp_file: app.py\npinned: false\n---\n".encode()
        repository.add("refs/heads/main", first, "initial commit", None)
        self.repositories[repo_type, repo_id] = repository
        if files:
            self.commit(repo_id, files, "Upload files", repo_type=repo_type)
        return repository

    def commit(
        self,
        repo_id: str,
        files: Mapping[str, bytes | None],
        message: str,
        branch: str = "main",
        repo_type: str = "model",
    ) -> str:
        """What somebody else pushes; None removes a file. Returns the id of the commit."""
        with self.lock:
            repository = self.repository(repo_id, repo_type)
            reference = f"refs/heads/{branch}"
            head = repository.commits[repository.references[reference]]
            merged = {**head.files, **files}
            kept = {path: data for path, data in merged.items() if data is not None}
            return repository.add(reference, kept, message, head.sha).sha

    def files(self, repo_id: str, revision: str = "main", repo_type: str = "model") -> dict[str, bytes]:
        """All files, with `.gitattributes`, which every repository is born with."""
        commit = self.repository(repo_id, repo_type).find(revision)
        if commit is None:
            raise KeyError(revision)
        return dict(commit.files)

    def commits(self, repo_id: str, repo_type: str = "model", branch: str = "main") -> list[tuple[str, str]]:
        """Ids and messages, the newest first."""
        repository = self.repository(repo_id, repo_type)
        found = []
        sha: str | None = repository.references[f"refs/heads/{branch}"]
        while sha is not None:
            commit = repository.commits[sha]
            found.append((sha, commit.message))
            sha = commit.parent
        return found

    def is_private(self, repo_id: str, repo_type: str = "model") -> bool:
        return self.repository(repo_id, repo_type).private

    def gate(self, repo_id: str, repo_type: str = "model") -> None:
        """Nobody may download its files any more, not even the owner."""
        self.repository(repo_id, repo_type).gated = True

    def cut_upload(self, after: int, times: int = 1) -> None:
        """The connection of an upload to LFS ends after about so many bytes, without an answer."""
        self._upload_cuts.append(Fault(times, "*", after=after))

    def cut_download(self, after: int, times: int = 1, path: str | None = None) -> None:
        """The connection of a download ends after so many bytes, fewer than its header said.

        Args:
            path: of the file in its repository, or a pattern; None is any file.
        """
        self._download_cuts.append(Fault(times, path or "*", after=after))

    def fail(self, path_pattern: str, status: int, times: int = 1, method: str = "*") -> None:
        """Requests whose path matches a pattern like `*/preupload/*` are answered by this status."""
        self._failures.append(Fault(times, path_pattern, method, status=status))

    def reset(self) -> None:
        """Faults that did not happen and the record of requests are dropped; the repositories stay."""
        for records in (self.requests, self.unknown, self._upload_cuts, self._download_cuts, self._failures):
            records.clear()
        self.before_commit = None

    def next_upload_cut(self) -> Fault | None:
        return _use_up(self._upload_cuts, "PUT", "")

    def next_download_cut(self, path: str) -> Fault | None:
        return _use_up(self._download_cuts, "GET", path)

    def next_failure(self, method: str, path: str) -> Fault | None:
        return _use_up(self._failures, method, path)


def _use_up(faults: list[Fault], method: str, path: str) -> Fault | None:
    """The first that is armed for this, which is so once less from now on."""
    for fault in faults:
        if fault.times > 0 and fnmatchcase(method, fault.method) and fnmatchcase(path, fault.path):
            fault.times -= 1
            return fault
    return None


@contextmanager
def serve_hub() -> Iterator[FakeHub]:
    """An empty Hub, served by a thread of this process until the block ends."""
    # TCP said in full: without, asyncio leaves Nagle's algorithm on, and every answer takes 40 ms.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        hub = FakeHub(listener.getsockname()[1])
        server = _Server(
            uvicorn.Config(
                _Application(hub),
                http=_Connection,
                ws="none",
                loop="asyncio",
                lifespan="off",
                log_config=None,
                log_level="critical",
                timeout_graceful_shutdown=1,
            )
        )
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        if not server.ready.wait(30):
            raise RuntimeError("the server did not start")
        try:
            yield hub
        finally:
            server.should_exit = True
            thread.join()


class _Server(uvicorn.Server):
    """Says when it listens, instead of being asked again and again."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()


class _Connection(H11Protocol):
    """Hands its transport to the application, as `request.state.transport`, which can cut it so."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.app_state = {**self.app_state, "transport": transport}


class _Cut(Response):
    """No answer: the connection is gone."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"]["transport"].abort()
        while (await receive())["type"] != "http.disconnect":  # or the server would try to answer by 500
            pass


class _Truncated(Response):
    """The beginning of a body under the header of all of it; the server closes what an application left unfinished."""

    length = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body[: self.length], "more_body": True})


class _Refusal(Exception):
    """An answer that is an error. Header and body say it both, since an answer to HEAD has no body."""

    def __init__(self, status: int, message: str, code: str | None = None, **headers: str) -> None:
        super().__init__(message)
        self.response = JSONResponse({"error": message}, status)
        self.response.headers["X-Error-Message"] = message
        if code:
            self.response.headers["X-Error-Code"] = code
        for name, value in headers.items():
            self.response.headers[name.replace("_", "-")] = value


def _is_lfs(path: str, size: int) -> bool:
    return size > 0 and (path.endswith(LFS_SUFFIXES) or size > LFS_SIZE)


def _git_id(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _describe(path: str, data: bytes) -> dict[str, Any]:
    """A file as listings have it; git knows of a large one just the pointer."""
    if not _is_lfs(path, len(data)):
        return {"type": "file", "path": path, "size": len(data), "oid": _git_id(data)}
    sha = hashlib.sha256(data).hexdigest()
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha}\nsize {len(data)}\n".encode()
    lfs = {"oid": sha, "size": len(data), "pointerSize": len(pointer)}
    return {"type": "file", "path": path, "size": len(data), "oid": _git_id(pointer), "lfs": lfs}


def _describe_folder(path: str) -> dict[str, Any]:
    return {"type": "directory", "path": path, "size": 0, "oid": _git_id(path.encode())}


def _list_folder(files: Mapping[str, bytes], folder: str, recursive: bool) -> list[dict[str, Any]]:
    beginning = f"{folder}/" if folder else ""
    found: dict[str, dict[str, Any]] = {}
    for path, data in sorted(files.items()):
        if not path.startswith(beginning):
            continue
        parents = path[len(beginning) :].split("/")[:-1]
        for depth in range(1, len(parents) + 1 if recursive else min(len(parents), 1) + 1):
            parent = beginning + "/".join(parents[:depth])
            found.setdefault(parent, _describe_folder(parent))
        if recursive or not parents:
            found[path] = _describe(path, data)
    return list(found.values())


def _errors_of_card(content: str) -> list[dict[str, str]]:
    """Of the YAML at the beginning of a README: whether it can be read, which is not all that the Hub looks at."""
    header = re.match(r"---\r?\n(.*?)\r?\n---", content, re.DOTALL)
    if header is None:
        return []
    try:
        metadata = yaml.safe_load(header[1])
    except yaml.YAMLError as error:
        return [{"message": str(error)}]
    return [] if isinstance(metadata, dict) else [{"message": "metadata must be an object"}]


class _Application:
    """The routes. They go by the raw path: a revision such as `refs/pr/1` is one of its parts, with its `/` quoted."""

    def __init__(self, hub: FakeHub) -> None:
        self.hub = hub

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        response: Response | None = None
        try:
            response = await self._answer(request)
        except _Refusal as refusal:
            response = refusal.response
        finally:
            if response is None:  # a fault of this file, which the client sees as status 500 and tries again
                self.hub.unknown.append(f"{request.method} {request.url.path} failed")
        # Before the answer, so that it is there when the client has it.
        status = None if isinstance(response, _Cut) else response.status_code
        authorized = "authorization" in request.headers
        self.hub.requests.append(Exchange(request.method, request.url.path, status, authorized))
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        if failure := self.hub.next_failure(request.method, request.url.path):
            raise _Refusal(failure.status, "armed by the test")
        parts = [unquote(part) for part in request.scope["raw_path"].decode().split("/")[1:]]
        match [request.method, *parts]:
            case ["GET", "api", "agent-harnesses"]:
                return JSONResponse({"standardEnvVars": [], "harnesses": {}})
            case ["GET", "api", "whoami-v2"]:
                return self._whoami(request)
            case ["POST", "api", "validate-yaml"]:
                errors = _errors_of_card((await request.json())["content"])
                return JSONResponse({"errors": errors, "warnings": []}, 400 if errors else 200)
            case ["POST", "api", "repos", "create"]:
                return await self._create(request)
            case ["DELETE", "api", "repos", "delete"]:
                asked = await request.json()
                repository = self._writable(request, asked.get("type") or "model", self._full_name(asked))
                del self.hub.repositories[repository.repo_type, repository.repo_id]
                return Response()
            case [method, "api", ("models" | "datasets" | "spaces") as kind, owner, name, *rest]:
                return await self._ask_repository(request, method, kind[:-1], f"{owner}/{name}", rest)
            case [method, "objects", kind, owner, name, sha]:
                repository = self.hub.repositories.get((kind[:-1], f"{owner}/{name}"))
                if repository is not None and request.query_params.get("signature") == self.hub.signature:
                    if method == "PUT":
                        return await self._receive_object(request, repository, sha)
                    if method in ("GET", "HEAD") and sha in repository.objects:
                        return self._content(request, request.query_params["path"], repository.objects[sha], {})
                raise _Refusal(403, "Access denied")
            case [method, ("datasets" | "spaces") as kind, owner, name, *rest] if rest:
                return await self._ask_files(request, method, kind[:-1], f"{owner}/{name}", rest)
            case [method, owner, name, *rest] if rest:
                return await self._ask_files(request, method, "model", f"{owner}/{name}", rest)
        return self._not_known(request)

    def _not_known(self, request: Request) -> Response:
        self.hub.unknown.append(f"{request.method} {request.url.path}")
        return JSONResponse({"error": "Sorry, we can't find the page you are looking for."}, 404)

    async def _ask_repository(
        self, request: Request, method: str, repo_type: str, repo_id: str, rest: list[str]
    ) -> Response:
        match [method, *rest]:
            case ["GET"]:
                return self._info(request, self._readable(request, repo_type, repo_id), "main")
            case ["GET", "revision", revision]:
                return self._info(request, self._readable(request, repo_type, repo_id), revision)
            case ["GET", "refs"]:
                return self._references(request, self._readable(request, repo_type, repo_id))
            case ["GET", "tree", revision, *folder]:
                commit = self._commit(self._readable(request, repo_type, repo_id), revision)
                path = "/".join(folder).strip("/")
                found = _list_folder(commit.files, path, request.query_params.get("recursive", "").lower() == "true")
                if path and not found:
                    raise _Refusal(404, f'{path} does not exist on "{revision}"', "EntryNotFound")
                return JSONResponse(found)
            case ["POST", "paths-info", revision]:
                commit = self._commit(self._readable(request, repo_type, repo_id), revision)
                return await self._paths(request, commit)
            case ["POST", "preupload", revision]:
                commit = self._commit(self._writable(request, repo_type, repo_id), revision)
                return await self._preupload(request, commit)
            case ["POST", "commit", revision]:
                return await self._receive_commit(request, self._writable(request, repo_type, repo_id), revision)
            case ["POST", "branch", branch]:
                repository = self._writable(request, repo_type, repo_id)
                start = self._commit(repository, (await request.json()).get("startingPoint", "main"))
                return self._refer(repository, f"refs/heads/{branch}", start)
            case ["POST", "tag", revision]:
                repository = self._writable(request, repo_type, repo_id)
                tag = (await request.json())["tag"]
                return self._refer(repository, f"refs/tags/{tag}", self._commit(repository, revision))
        return self._not_known(request)

    async def _ask_files(
        self, request: Request, method: str, repo_type: str, repo_id: str, rest: list[str]
    ) -> Response:
        match [method, *rest]:
            case ["GET" | "HEAD", "resolve", revision, *path] if path:
                return self._resolve(request, self._readable(request, repo_type, repo_id), revision, "/".join(path))
            case ["POST", "info", "lfs", "objects", "batch"]:
                repository = self._writable(request, repo_type, repo_id.removesuffix(".git"))
                return await self._batch(request, repository)
        return self._not_known(request)

    def _role(self, request: Request) -> str | None:
        """What the token allows, None without one. A wrong one is refused everywhere, also where none is needed."""
        given = request.headers.get("authorization")
        roles = {f"Bearer {self.hub.token}": "write", f"Bearer {self.hub.read_token}": "read", None: None}
        if given not in roles:
            raise _Refusal(401, "Invalid credentials in Authorization header")
        return roles[given]

    def _readable(self, request: Request, repo_type: str, repo_id: str) -> Repository:
        """The repository, if it is there and may be seen; what may not is not there."""
        role = self._role(request)
        repository = self.hub.repositories.get((repo_type, repo_id))
        mine = role is not None and repo_id.startswith(f"{USER}/")
        if repository is None or (repository.private and not mine):
            if role is None:
                raise _Refusal(401, "Invalid username or password.", "RepoNotFound")
            raise _Refusal(404, "Repository not found", "RepoNotFound")
        return repository

    def _writable(self, request: Request, repo_type: str, repo_id: str) -> Repository:
        repository = self._readable(request, repo_type, repo_id)
        role = self._role(request)
        if role is None:
            # The Hub gives no code here. The client takes it for this one by the address, if that begins with https.
            raise _Refusal(401, "Invalid username or password.", "RepoNotFound")
        if role == "read":
            raise _Refusal(403, "you must use a write token to upload to a repository")
        if not repo_id.startswith(f"{USER}/") and "create_pr" not in request.query_params:
            raise _Refusal(403, "pass `create_pr=1` as a query parameter to create a Pull Request")
        return repository

    def _commit(self, repository: Repository, revision: str) -> Commit:
        commit = repository.find(revision)
        if commit is None:
            raise _Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit

    def _address(self, repository: Repository) -> str:
        kind = "" if repository.repo_type == "model" else f"{repository.repo_type}s/"
        return f"{self.hub.endpoint}/{kind}{repository.repo_id}"

    @staticmethod
    def _full_name(asked: dict[str, Any]) -> str:
        return f"{asked.get('organization') or USER}/{asked['name']}"

    def _whoami(self, request: Request) -> Response:
        role = self._role(request)
        if role is None:
            raise _Refusal(401, "Invalid username or password.")
        token = {"displayName": "tests", "role": role, "createdAt": DATE}
        auth = {"type": "access_token", "accessToken": token}
        return JSONResponse({"type": "user", "id": "0", "name": USER, "fullname": USER, "orgs": [], "auth": auth})

    async def _create(self, request: Request) -> Response:
        role = self._role(request)
        if role is None:
            raise _Refusal(401, "Invalid username or password.")
        asked = await request.json()
        repo_type, repo_id = asked.get("type") or "model", self._full_name(asked)
        namespace = repo_id.partition("/")[0]
        if role != "write" or namespace != USER:
            raise _Refusal(403, f'You don\'t have the rights to create a {repo_type} under the namespace "{namespace}"')
        repository = self.hub.repositories.get((repo_type, repo_id))
        if repository is not None:
            address = self._address(repository)
            return JSONResponse({"error": f"You already created this {repo_type} repo: {repo_id}", "url": address}, 409)
        private = asked.get("private") is True or asked.get("visibility") == "private"
        repository = self.hub.create(repo_id, None, repo_type, private, asked.get("sdk"))
        return JSONResponse({"url": self._address(repository), "name": repo_id, "id": "0"})

    def _info(self, request: Request, repository: Repository, revision: str) -> Response:
        commit = self._commit(repository, revision)
        siblings: list[dict[str, Any]] = [{"rfilename": path} for path in sorted(commit.files)]
        if request.query_params.get("blobs"):
            for sibling in siblings:
                description = _describe(sibling["rfilename"], commit.files[sibling["rfilename"]])
                sibling.update(size=description["size"], blobId=description["oid"])
                if lfs := description.get("lfs"):
                    sibling["lfs"] = {"sha256": lfs["oid"], "size": lfs["size"], "pointerSize": lfs["pointerSize"]}
        facts = {
            "_id": "0",
            "id": repository.repo_id,
            "author": repository.repo_id.partition("/")[0],
            "sha": commit.sha,
            "private": repository.private,
            "gated": "auto" if repository.gated else False,
            "disabled": False,
            "createdAt": DATE,
            "lastModified": DATE,
            "downloads": 0,
            "likes": 0,
            "tags": [],
            "siblings": siblings,
        }
        if repository.sdk:
            facts["sdk"] = repository.sdk
        return JSONResponse(facts)

    def _references(self, request: Request, repository: Repository) -> Response:
        def under(beginning: str) -> list[dict[str, str]]:
            return [
                {"name": reference.removeprefix(beginning), "ref": reference, "targetCommit": sha}
                for reference, sha in repository.references.items()
                if reference.startswith(beginning)
            ]

        found = {"branches": under("refs/heads/"), "tags": under("refs/tags/"), "converts": []}
        if "include_prs" in request.query_params:
            found["pullRequests"] = under("refs/pr/")
        return JSONResponse(found)

    def _refer(self, repository: Repository, reference: str, commit: Commit) -> Response:
        """A new branch or tag."""
        with self.hub.lock:
            if reference in repository.references:
                raise _Refusal(409, f"Reference already exists: {reference}")
            repository.references[reference] = commit.sha
        return JSONResponse({})

    async def _paths(self, request: Request, commit: Commit) -> Response:
        found = []
        for path in parse_qs((await request.body()).decode()).get("paths", []):
            if path in commit.files:
                found.append(_describe(path, commit.files[path]))
            elif any(file.startswith(f"{path.strip('/')}/") for file in commit.files):
                found.append(_describe_folder(path.strip("/")))
        return JSONResponse(found)

    async def _preupload(self, request: Request, commit: Commit) -> Response:
        """How each file is to be sent, and what is there under its name; the client leaves out what is the same."""
        answers = []
        for asked in (await request.json())["files"]:
            path = asked["path"]
            mode = "lfs" if _is_lfs(path, asked["size"]) else "regular"
            answer = {"path": path, "uploadMode": mode, "shouldIgnore": False}
            if path in commit.files:
                description = _describe(path, commit.files[path])
                answer["oid"] = description["lfs"]["oid"] if "lfs" in description else description["oid"]
            answers.append(answer)
        return JSONResponse({"files": answers})

    async def _batch(self, request: Request, repository: Repository) -> Response:
        """Where the large files are to be sent; one that is there is not sent again."""
        objects = []
        for asked in (await request.json())["objects"]:
            entry = {"oid": asked["oid"], "size": asked["size"]}
            if asked["oid"] not in repository.objects:
                entry["actions"] = {"upload": {"href": self._object_address(repository, asked["oid"]), "header": {}}}
            objects.append(entry)
        return JSONResponse({"transfer": "basic", "objects": objects})

    def _object_address(self, repository: Repository, sha: str, **query: str) -> str:
        address = f"{self.hub.storage}/objects/{repository.repo_type}s/{repository.repo_id}/{sha}"
        return f"{address}?{urlencode({**query, 'signature': self.hub.signature})}"

    async def _receive_object(self, request: Request, repository: Repository, sha: str) -> Response:
        cut = self.hub.next_upload_cut()
        data = bytearray()
        async for chunk in request.stream():
            data += chunk
            if cut and len(data) >= cut.after:
                break
        if cut:
            return _Cut()
        if hashlib.sha256(data).hexdigest() != sha:
            raise _Refusal(400, "BadDigest")
        repository.objects[sha] = bytes(data)
        return Response()

    async def _receive_commit(self, request: Request, repository: Repository, revision: str) -> Response:
        operations = [json.loads(line) for line in (await request.body()).splitlines()]
        if action := self.hub.before_commit:
            self.hub.before_commit = None
            await asyncio.to_thread(action)  # which may itself ask this server
        with self.hub.lock:
            return self._apply(repository, revision, operations, "create_pr" in request.query_params)

    def _apply(
        self, repository: Repository, revision: str, operations: list[dict[str, Any]], as_pull_request: bool
    ) -> Response:
        head = self._commit(repository, revision)
        files, message = dict(head.files), ""
        for operation in operations:
            value = operation["value"]
            match operation["key"]:
                case "header":
                    message = value["summary"]
                    parent = value.get("parentCommit")
                    if parent and not as_pull_request and not head.sha.startswith(parent):
                        raise _Refusal(412, "A commit has happened since. Please refresh and try again.")
                case "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    if value["oid"] not in repository.objects:
                        raise _Refusal(400, f"LFS pointer to a file that does not exist: {value['path']}")
                    files[value["path"]] = repository.objects[value["oid"]]
                case "deletedFile":
                    if files.pop(value["path"], None) is None:
                        raise _Refusal(404, "A file with this name doesn't exist", "EntryNotFound")
                case "deletedFolder":
                    folder = value["path"].rstrip("/") + "/"
                    files = {path: data for path, data in files.items() if not path.startswith(folder)}
        answer = {"success": True, "hookOutput": ""}
        if as_pull_request:
            number = 1 + sum(reference.startswith("refs/pr/") for reference in repository.references)
            reference = f"refs/pr/{number}"
            answer["pullRequestUrl"] = f"{self._address(repository)}/discussions/{number}"
        elif revision in repository.references:  # a pull request
            reference = revision
        else:
            reference = f"refs/heads/{revision}"
            if reference not in repository.references:
                raise _Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        commit = repository.add(reference, files, message, head.sha)
        answer.update(commitOid=commit.sha, commitUrl=f"{self._address(repository)}/commit/{commit.sha}")
        return JSONResponse(answer)

    def _resolve(self, request: Request, repository: Repository, revision: str, path: str) -> Response:
        """A file: itself, or the way to where large files lie, with a header that says what it is."""
        if repository.gated:
            name = f"{repository.repo_type} {repository.repo_id}"
            if self._role(request) is None:
                message = "You must have access to it and be authenticated to access it. Please log in."
                raise _Refusal(401, f"Access to {name} is restricted. {message}", "GatedRepo")
            message = f"you are not in the authorized list. Visit {self._address(repository)} to ask for access."
            raise _Refusal(403, f"Access to {name} is restricted and {message}", "GatedRepo")
        commit = self._commit(repository, revision)
        data = commit.files.get(path)
        if data is None:
            raise _Refusal(404, "Entry not found", "EntryNotFound", X_Repo_Commit=commit.sha)
        description = _describe(path, data)
        headers = {"X-Repo-Commit": commit.sha}
        if "lfs" not in description:
            return self._content(request, path, data, {**headers, "ETag": f'"{description["oid"]}"'})
        sha = description["lfs"]["oid"]
        repository.objects[sha] = data  # a file of `FakeHub.create` came by no upload
        headers["X-Linked-Etag"] = f'"{sha}"'
        headers["X-Linked-Size"] = str(len(data))
        headers["Location"] = self._object_address(repository, sha, path=path)
        return Response(status_code=302, headers=headers)

    def _content(self, request: Request, path: str, data: bytes, headers: dict[str, str]) -> Response:
        headers = {
            **headers,
            "Accept-Ranges": "bytes",
            "Content-Disposition": f"inline; filename*=UTF-8''{quote(path)}",
        }
        status = 200
        if asked := re.fullmatch(r"bytes=(\d*)-(\d*)", request.headers.get("range", "")):
            first, last = asked.groups()
            start = int(first) if first else max(len(data) - int(last), 0)
            stop = min(int(last) + 1, len(data)) if first and last else len(data)
            if start >= stop:
                raise _Refusal(416, "Range Not Satisfiable", Content_Range=f"bytes */{len(data)}")
            status, headers["Content-Range"] = 206, f"bytes {start}-{stop - 1}/{len(data)}"
            data = data[start:stop]
        cut = self.hub.next_download_cut(path) if request.method == "GET" else None
        if cut is None:
            return Response(data, status, headers, "application/octet-stream")
        truncated = _Truncated(data, status, headers, "application/octet-stream")
        truncated.length = cut.after
        return truncated
