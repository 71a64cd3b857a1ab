"""JSON Lines: one record on every line; no line that is none stops the reading of the others."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
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
    layouts, codes = oddities.layouts, oddities.codes
    for number, line in enumerate(physical_lines(path), start=1):
        try:
            record = orjson.loads(line)
        except orjson.JSONDecodeError:
            if not line.strip():
                oddities.blank.append(number)
                continue
            record = _mend_json(line, number, findings)
        if line[-2:] == b"\r\n":
            oddities.crlf.append(number)
        if type(record) is dict:
            lines.append(number)
            codes.append(layouts.setdefault(tuple(record), len(layouts)))
            for name, values in columns.items():
                values.append(record.get(name, MISSING))
            if line.count(b":") > len(record):  # a colon in a text, an object in the record, or a field twice
                findings += _repeated_fields(line, number)
        elif record is not MISSING:
            findings.append(Finding(number, f"the line is {describe(record)}", "one JSON object"))
    return RawRows(columns, lines, findings, list(oddities.remarks(lines, wanted)))


def _repeated_fields(line: bytes, number: int) -> Iterator[Finding]:
    """The fields of the record on `line` that it has more than once; of these orjson keeps the last in silence."""
    records: list[list[str]] = []  # nested objects first, the record itself last
    try:
        json.loads(line, object_pairs_hook=lambda pairs: records.append([name for name, _ in pairs]))
    except (ValueError, RecursionError):  # told already: not UTF-8, a mark at its beginning; or nested without end
        return
    for name, times in Counter(records[-1]).items():
        if times > 1:
            yield Finding(number, f"{name} stands more than once on the line", "once")


@dataclass
class _Oddities:
    """What is noted while a JSON Lines file is read.

    Attributes
    ----------
    blank, crlf
        The lines that are blank, and those that end in CR LF.
    layouts
        The fields of a record, in order -> a code.
    codes
        The code of each record, ``(n_records,)``.
    """

    blank: list[int] = field(default_factory=list)
    crlf: list[int] = field(default_factory=list)
    layouts: dict[tuple[str, ...], int] = field(default_factory=dict)
    codes: list[int] = field(default_factory=list)

    def remarks(self, lines: Sequence[int], wanted: Sequence[str]) -> Iterator[Finding]:
        """What is odd about a file whose records stand on `lines`."""
        last = max(lines, default=0)
        yield from (Finding(number, "the line is blank") for number in self.blank if number < last)
        if 0 < len(self.crlf) < last - 1:
            yield from (Finding(number, "the line ends in CR LF", "LF, as others do") for number in self.crlf)
        elif self.crlf:
            yield Finding(0, "the lines end in CR LF")
        counts = Counter(self.codes)
        lines_by_code: dict[int, list[int]] = {}
        for line, code in zip(lines, self.codes, strict=True):
            lines_by_code.setdefault(code, []).append(line)
        codes_of: dict[str, set[int]] = {}
        for layout, code in self.layouts.items():
            for name in layout:
                codes_of.setdefault(name, set()).add(code)
        for name, having in codes_of.items():
            n_having = sum(counts[code] for code in having)
            if n_having == len(lines):
                if name not in wanted:
                    yield Finding(0, f"every line has a further field {name!r}")
            elif name not in wanted or 2 * n_having < len(lines):
                said = f"the line has a {'' if name in wanted else 'further '}field {name!r}, which others lack"
                yield from (Finding(line, said) for line in _lines_of(having, lines_by_code))
            else:
                others = set(counts) - having
                said = f"the line lacks the field {name!r}, which others have"
                yield from (Finding(line, said) for line in _lines_of(others, lines_by_code))


def _lines_of(codes: set[int], lines: Mapping[int, Sequence[int]]) -> list[int]:
    """The lines whose records have any of these codes, in order; `lines` is by code."""
    return sorted(line for code in codes for line in lines[code])


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
