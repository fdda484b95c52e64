"""Tokens stay out of command lines, which shells, logs and lists of processes keep."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .errors import InvalidInputError

_TOKEN = re.compile(r"\b(hf|api_org)_[A-Za-z0-9]{30,}\b")


def refuse_tokens(arguments: Sequence[str]) -> None:
    """Refuse a command line with a token of the Hub in it, without repeating it.

    Raises:
        InvalidInputError: an argument is a token, or says that one follows.
    """
    if any(_TOKEN.search(text) or re.match(r"--?(\w+[-_])?token\b", text) for text in arguments):
        raise InvalidInputError(
            "A token does not belong on a command line, where others can read it: revoke this one if it was real, sign "
            "in with 'hf auth login' or set HF_TOKEN, and leave it out."
        )
