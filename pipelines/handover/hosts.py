"""Where submissions are uploaded to: what a contest's host must be able to do, and Kaggle."""

import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Protocol

from competition.errors import WORTH_RETRYING, CompetitionError, Fault
from pipelines.secrets import redacted

TOO_MANY, SERVER_FAULT = 429, 500
HOW_TO_SIGN_IN = (
    "sign in as the kaggle package wants it: `kaggle auth login`, KAGGLE_API_TOKEN, or ~/.kaggle/kaggle.json"
)


class HostUnreachableError(CompetitionError):
    """The host did not answer, or said that it cannot now: worth retrying."""

    exit_code: ClassVar[int] = WORTH_RETRYING


class NotSignedInError(CompetitionError):
    """The host was not asked: its package is not installed, or finds no credentials."""


@dataclass(frozen=True)
class Limits:
    """What the host lets a team do today (UTC).

    Attributes
    ----------
    left
        Further submissions that it takes today.
    used
        Those of today.
    """

    left: int
    used: int


class Host(Protocol):
    """A contest's host.

    Both methods raise `HostUnreachableError`, `NotSignedInError`, and `CompetitionError` for what it refuses.
    """

    @property
    def formats(self) -> tuple[str, ...]:
        """Suffixes of the files that it takes."""
        ...

    def limits(self, competition: str) -> Limits:
        """How many submissions are left today."""
        ...

    def upload(self, competition: str, file: Path, message: str) -> str:
        """What the host said to the submitted `file`."""
        ...


class Kaggle:
    """Kaggle, through its own package: credentials come from the places that it knows, and are never read by us."""

    formats = (".csv", ".zip")

    def limits(self, competition: str) -> Limits:
        """How many submissions are left today; none are for who has not joined the contest."""
        with _answering(competition):
            found = _signed_in().competition_get_submission_limits(competition)
        return Limits(found.num_allowed_now, found.num_today)

    def upload(self, competition: str, file: Path, message: str) -> str:
        """What Kaggle said to the submitted `file`."""
        with _answering(competition):
            client = _signed_in()
            said = str(client.competition_submit(str(file), message, competition, quiet=True).message)
        if said == client.COMPETITION_SUBMIT_UPLOAD_FAILED_MESSAGE:
            raise HostUnreachableError(
                f"the upload to {competition} broke off", advice="run it again; the file is where it was"
            )
        return redacted(said)


HOSTS: Mapping[str, Callable[[], Host]] = {"kaggle": Kaggle}


def host_of(address: str) -> tuple[Host, str]:
    """The host and the contest's name on it, of ``kaggle:CONTEST``.

    Raises
    ------
    CompetitionError
        There is no such host, or no name.
    """
    name, _, competition = address.partition(":")
    if name not in HOSTS or not competition:
        fault = Fault("--to", repr(address), " or ".join(f"{known}:CONTEST" for known in HOSTS))
        raise CompetitionError(
            "there is nowhere to upload to", faults=[fault], advice="for example --to kaggle:CONTEST"
        )
    return HOSTS[name](), competition


def _signed_in() -> Any:
    """The client of the kaggle package, signed in.

    Raises
    ------
    NotSignedInError
        The package finds no credentials.
    """
    from kaggle.api.kaggle_api_extended import KaggleApi  # signs in by itself, and prints where it cannot

    client = KaggleApi()
    try:
        client.authenticate()
    except SystemExit as error:
        raise NotSignedInError("there are no Kaggle credentials", advice=HOW_TO_SIGN_IN) from error
    return client


@contextmanager
def _answering(competition: str) -> Iterator[None]:
    """Inside, the client prints nothing (addresses that it prints may be signed), and its failures are ours.

    Raises
    ------
    NotSignedInError
        The client's package is not installed.
    CompetitionError
        The contest refuses.
    HostUnreachableError
        It does not answer, or cannot now.
    """
    if find_spec("kaggle") is None:
        raise NotSignedInError("the kaggle package is not installed", advice="pip install 'relstack[kaggle]'")
    import requests  # comes with it

    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            yield
    except (requests.ConnectionError, requests.Timeout) as error:
        raise HostUnreachableError(
            "Kaggle does not answer", faults=[_fault(error)], advice="run it again; the file is where it was"
        ) from error
    except requests.HTTPError as error:
        status = 0 if error.response is None else error.response.status_code
        if status == TOO_MANY or status >= SERVER_FAULT:
            raise HostUnreachableError(
                f"Kaggle cannot now (status {status})", faults=[_fault(error)], advice="run it again later"
            ) from error
        raise CompetitionError(
            f"Kaggle refuses (status {status})",
            faults=[_fault(error)],
            advice=f"is the contest called {competition!r}, are its rules accepted? Else {HOW_TO_SIGN_IN}",
        ) from error


def _fault(error: Exception) -> Fault:
    return Fault("kaggle", redacted(str(error))[:300])
