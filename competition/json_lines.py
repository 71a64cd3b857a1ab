"""JSON Lines: one record on every line; no line that is none stops the reading of the others."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from competition.raw_rows import BYTE_ORDER_MARK, MISSING, Finding, RawRows, decode, describe, physical_lines


def read_json_lines(path: Path, wanted: Sequence[str]) -> RawRows:
    """The records of a JSON Lines file; blank lines are skipped."""
    columns: dict[str, list[object]] = {name: [] for name in wanted}
    lines: list[int] = []
    if layout := _other_layout(path):
        return RawRows(columns, lines, [Finding(0, layout, "JSON Lines: one object per line")])
    findings: list[Finding] = []
    oddities = _Oddities()
    for number, line in enumerate(physical_lines(path), start=1):
        repeated: Sequence[str] = ()
        try:
            record = orjson.loads(line)
            if type(record) is dict and line.count(b":") > len(record):
                repeated = _repeated_fields(line)
        except orjson.JSONDecodeError:
            if not line.strip():
                oddities.blank.append(number)
                continue
            record = _mend_json(line, number, findings)
        if line.endswith(b"\r\n"):
            oddities.crlf.append(number)
        if type(record) is dict:
            lines.append(number)
            oddities.add(record)
            for name, values in columns.items():
                values.append(record.get(name, MISSING))
            findings += [Finding(number, f"{name} stands more than once on the line", "once") for name in repeated]
        elif record is not MISSING:
            findings.append(Finding(number, f"the line is {describe(record)}", "one JSON object"))
    return RawRows(columns, lines, findings, list(oddities.remarks(lines, wanted)))


def _repeated_fields(line: bytes) -> list[str]:
    """The fields of the record on `line` that it has more than once; a reader keeps the last and says nothing."""
    pairs: list[list[str]] = []  # nested objects first, the record itself last
    json.loads(line, object_pairs_hook=lambda found: pairs.append([name for name, _ in found]))
    return [name for name, times in Counter(pairs[-1]).items() if times > 1]


@dataclass
class _Oddities:
    """What is noted while a JSON Lines file is read: blank lines, lines in CR LF, which record has which fields."""

    blank: list[int] = field(default_factory=list)
    crlf: list[int] = field(default_factory=list)
    layouts: dict[tuple[str, ...], int] = field(default_factory=dict)
    codes: list[int] = field(default_factory=list)

    def add(self, record: dict[str, object]) -> None:
        self.codes.append(self.layouts.setdefault(tuple(record), len(self.layouts)))

    def remarks(self, lines: Sequence[int], wanted: Sequence[str]) -> Iterator[Finding]:
        """What is odd about a file whose records stand on `lines`."""
        last = max(lines, default=0)
        yield from (Finding(number, "the line is blank") for number in self.blank if number < last)
        if 0 < len(self.crlf) < last - 1:
            yield from (Finding(number, "the line ends in CR LF", "LF, as others do") for number in self.crlf)
        elif self.crlf:
            yield Finding(0, "the lines end in CR LF")
        counts = Counter(self.codes)
        for name in dict.fromkeys(name for layout in self.layouts for name in layout):
            having = {code for layout, code in self.layouts.items() if name in layout}
            n_having = sum(counts[code] for code in having)
            if n_having == len(lines):
                if name not in wanted:
                    yield Finding(0, f"every line has a further field {name!r}")
            elif name not in wanted or 2 * n_having < len(lines):
                said = f"the line has a {'' if name in wanted else 'further '}field {name!r}, which others lack"
                yield from self._each(lines, having, said)
            else:
                others = set(counts) - having
                yield from self._each(lines, others, f"the line lacks the field {name!r}, which others have")

    def _each(self, lines: Sequence[int], codes: set[int], said: str) -> Iterator[Finding]:
        return (Finding(line, said) for line, code in zip(lines, self.codes, strict=True) if code in codes)


def _mend_json(line: bytes, number: int, findings: list[Finding]) -> object:
    """The value of a line that orjson refused, if only its encoding is wrong, else `MISSING`; notes why."""
    n_findings = len(findings)
    if line.startswith(BYTE_ORDER_MARK):
        findings.append(Finding(number, "a byte order mark stands inside the file", "it only at the beginning"))
    text = decode(line.removeprefix(BYTE_ORDER_MARK), number, findings).rstrip()
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        if len(findings) == n_findings:
            found = f"the line is not valid JSON: {error.msg} at column {error.colno}"
            findings.append(Finding(number, found, "one JSON object"))
        return MISSING


def _other_layout(path: Path) -> str:
    """What the file is, if its first line shows one JSON document instead of JSON Lines, else ""."""
    opening = next((text for line in physical_lines(path) if (text := line.strip())), b"")
    if opening == b"{":
        return "the file is a JSON object spread over several lines"
    if not opening.startswith(b"["):
        return ""
    try:
        record = orjson.loads(opening)
    except orjson.JSONDecodeError:
        return "the file is a JSON array"
    return "the file is a JSON array" if not record or isinstance(record[0], dict) else ""
