"""What one process meets alone, such as a full disk, all of them are told: none waits for one that has given up."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from accelerate import PartialState
from accelerate.utils import gather_object, parse_flag_from_env

from ..errors import InvalidInputError


class SharedError(InvalidInputError):
    """All processes raise it, so that one of them should print it."""


def processes() -> PartialState:
    """The processes of this run, this one among them, connected as `accelerate launch` says."""
    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))  # which by itself it would not look at


@contextmanager
def together() -> Iterator[None]:
    """A block that all processes enter, and in which any of them may fail; then all raise what the first of those says.

    Nothing that waits for other processes may follow, within the block, on what may fail.

    Raises:
        SharedError: a process raised InvalidInputError, or could not write a file.
    """
    problem = None
    try:
        yield
    except InvalidInputError as error:
        problem = str(error)
    except OSError as error:
        problem = problem_of_files(error)
        if problem is None:
            raise
    tell_all(problem)


def tell_all(problem: str | None) -> None:
    """Raise what is wrong on any process, if anything is, on all of them; all call it.

    Raises:
        SharedError: `problem` of the first process that has one.
    """
    processes()
    met = [of_process for of_process in gather_object([problem]) if of_process is not None]
    if met:
        raise SharedError(met[0])


def problem_of_files(error: OSError) -> str | None:
    """A sentence for a disk that is full or a place that can't be written; None if the error is another one."""
    if isinstance(error, (NotADirectoryError, PermissionError)):
        return f"{error.filename} can't be written: {error.strerror}."
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"The disk is full ({error}). Make room and continue with --resume auto."
    return None
