"""Secrets stay out of what is written: logs, messages, manifests, run.toml.

A secret is the value of an environment variable whose name says so, a hub token by its shape, and what stands before
the ``@`` of an address.
"""

import json
import logging
import os
import re
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any
from urllib.parse import quote

from competition.errors import CompetitionError, Fault

HIDDEN = "***"
SHORTEST = 6  # a shorter value is a word that logs are full of
NAMES = re.compile(r"(.*_)?(TOKEN|KEY|KEY_ID|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?)", re.IGNORECASE)
SHAPES = (
    re.compile(r"(?<=://)[^\s/@'\"]+(?=@)"),  # user:password of an address
    re.compile(r"(?<=[?&])((?:token|key|secret|password|sig|signature|x-amz-\w[\w-]*)=)[^&\s'\"]+", re.IGNORECASE),
    re.compile(r"\bhf_[A-Za-z0-9]{20,}"),  # a token that was typed in is in a file, not in the environment
)


def redacted(text: str) -> str:
    """The text with `HIDDEN` in place of every secret.

    Examples
    --------
    >>> redacted("cannot reach https://me:pass@example.org/x?token=abc&page=2")
    'cannot reach https://***@example.org/x?token=***&page=2'
    """
    for value in _values():
        text = text.replace(value, HIDDEN)
    user, parameter, token = SHAPES
    return token.sub(HIDDEN, parameter.sub(rf"\1{HIDDEN}", user.sub(HIDDEN, text)))


def _values() -> list[str]:
    """The secrets of the environment as they may be written, longest first: one may be a part of another."""
    secrets = {value for name, value in os.environ.items() if NAMES.fullmatch(name) and len(value) >= SHORTEST}
    written = {form for value in secrets for form in (value, quote(value, safe=""), json.dumps(value)[1:-1])}
    return sorted(written, key=len, reverse=True)


def redacted_values(values: Any) -> Any:
    """Plain values (tables, lists, texts, numbers) with every text redacted."""
    if isinstance(values, str):
        return redacted(values)
    if isinstance(values, Mapping):
        return {redacted(str(key)): redacted_values(value) for key, value in values.items()}
    if isinstance(values, Sequence):
        return [redacted_values(value) for value in values]
    return values


def refuse_secrets(values: Mapping[str, Any], where: str) -> None:
    """Refuse settings that are going to be kept if a secret stands among them.

    Raises
    ------
    CompetitionError
        The keys are named, the secrets are not.
    """
    faults = [
        Fault(f"{where}: {key}", f"holds a secret: {redacted(text)}", "a value that may be kept")
        for key, text in _texts(values)
        if redacted(text) != text
    ]
    if faults:
        raise CompetitionError(
            "settings are kept in the run folder and its manifests, where a secret must not stand",
            faults=faults,
            advice="give tokens by environment variable (HF_TOKEN, ...), and addresses without user and password",
        )


def _texts(values: Any, key: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(values, str):
        yield key, values
    elif isinstance(values, Mapping):
        for name, value in values.items():
            yield from _texts(value, f"{key}.{name}" if key else str(name))
    elif isinstance(values, Sequence):
        for value in values:
            yield from _texts(value, key)


class RedactingFormatter(logging.Formatter):
    """Formats records without secrets: message, arguments, exception and stack."""

    def format(self, record: logging.LogRecord) -> str:
        """The record's line; the record itself is left as it is, for other handlers."""
        return redacted(super().format(record))


def redact_tracebacks() -> None:
    """From now on errors that nobody caught are printed without secrets."""
    sys.excepthook = _print_redacted


def _print_redacted(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    sys.stderr.write(redacted("".join(traceback.format_exception(kind, error, trace))))
