"""Audits of single texts: gaps, characters that nobody typed, category paths, language codes, labels."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping

import pandas as pd

from competition.categories import SEPARATOR
from competition.verdicts import Audited, Level, Oddity, Subject, Verdict, verdict_on

LONGEST_QUERY, LONGEST_TARGET = 500, 2000  # the longest of the public contests' files are below a third of it
LANGUAGE_CODE = re.compile(r"[a-z]{2,3}([_-][A-Za-z0-9]{2,8})*")

CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
INVISIBLE = re.compile("[\u00ad\u200b\u200e\u200f\u2028-\u202e\u2060-\u2064\u2066-\u2069\ufeff]")
PRIVATE = re.compile("[\ue000-\uf8ff\ufdd0-\ufdef\ufffe\uffff]")
HTML = re.compile(r"&(?:[a-z]{2,8}|#\d{2,6}|#x[0-9a-f]{2,5});|</?[a-z][a-z0-9]*(?: [^<>]*)?/?>", re.IGNORECASE)
ESCAPE = re.compile(r"\\u[0-9a-fA-F]{4}|\\x[0-9a-fA-F]{2}|\\[nrt](?![a-z])")
LOST = re.compile(r"\?{3,}")
FOREIGN_RUN = re.compile("[\x80-\U0010ffff]{2,}")
OTHER_SEPARATOR = re.compile(r" [>/|»] |>>|::")

Flag = Callable[[str], bool]


def is_mojibake(text: str) -> bool:
    """Whether UTF-8 was read as Latin-1 or Windows-1252 somewhere in `text`.

    Examples
    --------
    >>> is_mojibake("cafÃ©"), is_mojibake("café"), is_mojibake("â€œquotedâ€\\x9d"), is_mojibake("«CAFÉ»")
    (True, False, True, False)
    """
    return not text.isascii() and any(_reads_as_utf_8(run) for run in FOREIGN_RUN.findall(text))


def _reads_as_utf_8(run: str) -> bool:
    data = bytearray()
    for character in run:
        try:
            data += character.encode("cp1252")
        except UnicodeEncodeError:
            if ord(character) > 0xFF:
                return False
            data.append(ord(character))
    try:
        decoded = data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    # two bytes may be two honest letters and signs, as in «CAFÉ»: only what typing would not give is told
    return len(data) > 2 or run[0] in "ÂÃ" or (decoded.isalpha() and run[1] not in "»”’“‘…–—™®©°")


CHARACTERS: Mapping[str, tuple[Level, Flag]] = {
    "a control character": ("warning", lambda text: CONTROL.search(text) is not None and not is_mojibake(text)),
    "the replacement character U+FFFD": ("warning", lambda text: "\ufffd" in text),
    "UTF-8 read as Latin-1 (mojibake)": ("warning", is_mojibake),
    "characters lost to question marks": ("note", lambda text: LOST.search(text) is not None),
    "a private or forbidden character": ("warning", lambda text: PRIVATE.search(text) is not None),
    "an escape sequence as text": ("warning", lambda text: ESCAPE.search(text) is not None),
    "HTML": ("note", lambda text: HTML.search(text) is not None),
    "an invisible character": ("note", lambda text: INVISIBLE.search(text) is not None),
    "letters that are not composed (NFC)": ("note", lambda text: not unicodedata.is_normalized("NFC", text)),
}
"""Kind of oddity -> how much it matters, and what tells it."""

PATHS: Mapping[str, Flag] = {
    "an empty level": lambda path: any(not name.strip() for name in SEPARATOR.split(path.strip(" ,"))[1:]),
    "a comma at an end": lambda path: path.strip().startswith(",") or path.strip().endswith(","),
    "a space at an end of a level": lambda path: any(n != n.strip() for n in SEPARATOR.split(path) if n.strip()),
    "levels separated by another sign": lambda path: OTHER_SEPARATOR.search(path) is not None,
}


def _flagged(subject: Subject, column: str, flag: Flag) -> Iterator[str]:
    """The places of the rows whose `column` has an oddity; each different text is looked at once."""
    for split, rows in subject.rows.items():
        if column == "target":
            rows = rows[~rows["null_target"]]
        codes, texts = pd.factorize(rows[column])
        odd = pd.Series([flag(text) for text in texts.tolist()], dtype=bool).to_numpy()
        if odd.any():
            yield from subject.places(split, rows[odd[codes]])


def audit_gaps(subject: Subject) -> Audited:
    """Queries and targets that are null, empty or of absurd length."""
    task = subject.task
    null = [p for split, rows in subject.rows.items() for p in subject.places(split, rows[rows["null_target"]])]
    oddities = [
        Oddity(f"{task.query} is empty", "warning", list(_flagged(subject, "query", lambda text: not text))),
        Oddity(f"{task.query} is blank", "warning", list(_flagged(subject, "query", _is_blank))),
        Oddity(f"{task.query} is over {LONGEST_QUERY} characters long", "warning",
               list(_flagged(subject, "query", lambda text: len(text) > LONGEST_QUERY))),
        Oddity(f"{task.target} is null", "note", null, "a null target is read as an empty text; its rows stay"),
        Oddity(f"{task.target} is empty", "warning", list(_flagged(subject, "target", lambda text: not text))),
        Oddity(f"{task.target} is blank", "warning", list(_flagged(subject, "target", _is_blank))),
        Oddity(f"{task.target} is over {LONGEST_TARGET:,} characters long", "warning",
               list(_flagged(subject, "target", lambda text: len(text) > LONGEST_TARGET))),
    ]  # fmt: skip
    return verdict_on("texts", oddities, fine="no query or target is null, empty or of absurd length")


def _is_blank(text: str) -> bool:
    return bool(text) and not text.strip()


def audit_characters(subject: Subject) -> Audited:
    """Characters that nobody typed: control characters, broken encodings, HTML, invisible ones."""
    names = {"query": subject.task.query, "target": subject.task.target}
    oddities = [
        Oddity(f"{kind} in {name}", level, list(_flagged(subject, column, flag)), "mend them in the files")
        for column, name in names.items()
        for kind, (level, flag) in CHARACTERS.items()
    ]
    return verdict_on("characters", oddities, fine="no broken encoding, control or invisible characters")


def audit_paths(subject: Subject) -> Audited | None:
    """Category paths that are malformed, or that differ from another in case and spaces only."""
    if not subject.task.target_is_category:
        return None
    advice = "levels are separated by a comma without a space after it"
    oddities = [
        Oddity(kind, "warning", list(_flagged(subject, "target", flag)), advice) for kind, flag in PATHS.items()
    ]
    twins = _twins(subject)
    oddities.append(
        Oddity("a path that differs from a usual one in case or spaces only", "warning",
               list(_flagged(subject, "target", lambda path: path in twins)), "cleaning preset winner makes them one")
    )  # fmt: skip
    return verdict_on("category paths", oddities, fine="all paths are well formed, each written in one way")


def _twins(subject: Subject) -> set[str]:
    """Paths that are the same as a more frequent one but for case and spaces."""
    counts = pd.concat([rows["target"] for rows in subject.rows.values()]).value_counts()
    spellings: dict[str, list[str]] = defaultdict(list)
    for path in filter(str.strip, counts.index):  # the most frequent first
        spellings["".join(path.split()).casefold()].append(path)
    return {path for group in spellings.values() for path in group[1:]}


def audit_language_codes(subject: Subject) -> Audited:
    """Language codes that are none, and those that differ from another in case only."""
    counts = pd.concat([rows["language"] for rows in subject.rows.values()]).value_counts()
    usual: dict[str, str] = {}
    for code in counts.index:
        usual.setdefault(code.strip().casefold(), code)
    oddities = [
        Oddity("a language code in another spelling", "warning",
               list(_flagged(subject, "language", lambda code: usual[code.strip().casefold()] != code))),
        Oddity("no language code", "warning",
               list(_flagged(subject, "language", lambda code: _is_usual(code, usual) and not _is_code(code))),
               "a code has two or three small letters"),
    ]  # fmt: skip
    return verdict_on("language codes", oddities, fine=f"{len(counts)} codes: {', '.join(sorted(counts.index))}")


def _is_usual(code: str, usual: Mapping[str, str]) -> bool:
    return usual[code.strip().casefold()] == code


def _is_code(code: str) -> bool:
    return LANGUAGE_CODE.fullmatch(code) is not None


def audit_labels(subject: Subject) -> Audited:
    """Rows and labels of every split: train needs both labels, test should have none."""
    table = pd.DataFrame([_sizes(split, rows) for split, rows in subject.rows.items()])
    train = subject.rows["train"]["label"]
    words = "; ".join(
        f"{line.split} {line.rows:,} rows" + (f", {line.positive_rate:.1%} positive" if line.labelled else "")
        for line in table.itertuples()
    )
    if train.nunique() < 2:
        advice = "no model can be trained or scored on one label"
        return Audited(
            Verdict("rows", "fault", f"all {len(train):,} rows of train are labelled {train.iloc[0]}", advice), table
        )
    if "test" in subject.rows and (labelled := subject.rows["test"]["label"].notna()).any():
        places = subject.places("test", subject.rows["test"][labelled])
        found = f"{words}; test has {len(places):,} labels ({places[0]})"
        return Audited(Verdict("rows", "warning", found, "labels of test are never looked at"), table)
    return Audited(Verdict("rows", "ok", words), table)


def _sizes(split: str, rows: pd.DataFrame) -> dict[str, object]:
    labelled = rows["label"].notna()
    return {
        "split": split,
        "rows": len(rows),
        "queries": rows["query"].nunique(),
        "targets": rows["target"].nunique(),
        "languages": rows["language"].nunique(),
        "null_targets": int(rows["null_target"].sum()),
        "empty_queries": int((rows["query"].str.strip() == "").sum()),
        "labelled": int(labelled.sum()),
        "positive_rate": float(rows.loc[labelled, "label"].mean()) if labelled.any() else None,
    }
