"""The client of `huggingface_hub` in a process of its own, so that it may go online while this one stays offline.

`huggingface_hub` and `datasets` read `HF_ENDPOINT`, `HF_HUB_OFFLINE` and the like once, as they are imported, and
`conftest` has them imported offline. A spawned process imports them anew, under the environment that it starts with.
It must not import `conftest`, which would set that environment back: a function that is to run there has to lie in a
module that imports neither `conftest` nor a module that does. Functions of libraries are best called by their names,
`client.call("huggingface_hub:upload_folder", ...)`: given as they are, those of `huggingface_hub` bring the `HfApi` of
this process along, with the address of the real Hub.
"""

from __future__ import annotations

import multiprocessing
import os
import pkgutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO
from unittest import mock

TIMEOUT = 120  # seconds of a call; one that takes longer hangs


class ClientError(Exception):
    """An exception of the client's process in words: some of `huggingface_hub` do not survive being sent.

    Attributes:
        type_name: of its class.
        message: what it says.
        bases: names of its class and of all that this derives from.
        status: of the HTTP answer that it tells of, if it does.
        causes: what it was raised from, as "type: message", the nearest first.
    """

    def __init__(
        self,
        type_name: str,
        message: str,
        bases: tuple[str, ...] = (),
        status: int | None = None,
        causes: tuple[str, ...] = (),
    ) -> None:
        super().__init__(type_name, message, bases, status, causes)
        self.type_name, self.message, self.bases, self.status, self.causes = type_name, message, bases, status, causes

    def __str__(self) -> str:
        return f"{self.type_name}: {self.message}"

    @classmethod
    def of(cls, error: BaseException) -> ClientError:
        causes: dict[str, None] = {}  # each once: what is tried again and again fails in the same way
        cause: BaseException | None = error
        while cause := cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__):
            causes[f"{type(cause).__name__}: {cause}"] = None
        bases = tuple(base.__name__ for base in type(error).__mro__)
        status = getattr(getattr(error, "response", None), "status_code", None)
        return cls(type(error).__name__, str(error), bases, status, tuple(causes))


class Client:
    """A process that talks to one Hub with one token."""

    def __init__(self, executor: ProcessPoolExecutor) -> None:
        self._executor = executor
        self._process_id: int = executor.submit(os.getpid).result(TIMEOUT)

    def call(self, function: Callable[..., Any] | str, *args: Any, **kwargs: Any) -> Any:
        """Run a function there, given itself or as "module:name"; an exception comes back as a `ClientError`."""
        future = self._executor.submit(_call, function, args, kwargs)
        try:
            return future.result(TIMEOUT)
        finally:
            if not future.done():  # or the end of the pool would wait for it
                os.kill(self._process_id, signal.SIGTERM)

    def run(self, arguments: list[str]) -> tuple[int, str, str]:
        """Run `hvq-inpaint` there: its exit status, and all that the process wrote to its output and its errors."""
        return self.call(_run, "hvq_inpaint.__main__:main", [str(argument) for argument in arguments])

    def train(self, arguments: list[str]) -> tuple[int, str, str]:
        """Run `train_accelerate.py` there, as `run` does."""
        return self.call(_run, "train_accelerate:main", [str(argument) for argument in arguments])


@contextmanager
def hub_client(endpoint: str, home: Path, token: str | None) -> Iterator[Client]:
    """A client of the Hub at `endpoint` whose cache lies in `home`, ready to be called.

    It reaches nothing but this machine, and does not wait before it tries again what failed: neither `huggingface_hub`
    nor `datasets` has a setting for the seconds in between.
    """
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("HF_", "HUGGING", "TRANSFORMERS_")) and not name.lower().endswith("_proxy")
    }
    environment.update(
        HF_ENDPOINT=endpoint,
        HF_HOME=str(home),
        HF_HUB_DISABLE_XET="1",
        HF_HUB_DISABLE_TELEMETRY="1",
        HF_HUB_DISABLE_PROGRESS_BARS="1",
        HF_HUB_OFFLINE="0",
        HF_DATASETS_OFFLINE="0",
    )
    if token is not None:
        environment["HF_TOKEN"] = token
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=_prepare) as executor:
        with mock.patch.dict(os.environ, environment, clear=True):  # the process starts with the first call
            client = Client(executor)
        yield client


def _prepare() -> None:
    """Once, in the new process: nothing but this machine can be reached, and no wait is long."""
    connect, sleep = socket.socket.connect, time.sleep

    def connect_here(self: socket.socket, address: Any) -> None:
        if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "localhost", "::1"):
            raise AssertionError(f"the client tried to reach {address}")
        connect(self, address)

    socket.socket.connect = connect_here  # type: ignore[method-assign]
    time.sleep = lambda seconds: sleep(min(seconds, 0.01))


def _call(function: Callable[..., Any] | str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if isinstance(function, str):
        function = pkgutil.resolve_name(function)
    try:
        return function(*args, **kwargs)
    except Exception as error:  # whatever it is, it is told in words
        raise ClientError.of(error) from error


def _run(program: str, arguments: list[str]) -> tuple[int, str, str]:
    main = pkgutil.resolve_name(program)
    command_line = mock.patch.object(sys, "argv", [program, *arguments])
    with command_line, _captured(sys.stdout) as output, _captured(sys.stderr) as errors:
        try:
            status = main()
        except SystemExit as end:  # of argparse
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
    return status, output[0], errors[0]


@contextmanager
def _captured(stream: TextIO) -> Iterator[list[str]]:
    """What is written to a stream, also by those that took hold of it before, as the log of `huggingface_hub` does."""
    text: list[str] = []
    descriptor = stream.fileno()
    with tempfile.TemporaryFile() as file:
        stream.flush()
        kept = os.dup(descriptor)
        os.dup2(file.fileno(), descriptor)
        try:
            yield text
        finally:
            stream.flush()
            os.dup2(kept, descriptor)
            os.close(kept)
            file.seek(0)
            text.append(file.read().decode(errors="replace"))
