"""A layout's work: the records of a file as found, and the records that count under the names of the task."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from competition.categories import SEPARATOR
from competition.layout import Join, Layout, Value
from competition.raw_rows import MISSING, Finding, RawRows, describe
from competition.readers import READERS, read_raw
from competition.tasks import SPLITS, Task

Key = tuple[str, ...]

GROUP = "group_key"
"""The column of rows that holds the values of a layout's group column."""


def read_records(path: Path, task: Task, *, labelled: bool, split: str) -> RawRows:
    """The records of a file, unchecked, under the task's names: filtered, joined, target and language in place."""
    layout = task.layout
    if is_plain(task):
        names = [name for name in (task.id, task.task, *task.text_columns, task.label) if name]
        return read_raw(path, names, encoding=layout.encoding, delimiter=layout.delimiter)
    conditions, required = layout.conditions(split), required_columns(task, labelled=labelled, split=split)
    asked = list(dict.fromkeys((*required, *filter(None, (task.task, task.label)))))
    raw = read_raw(path, asked, encoding=layout.encoding, delimiter=layout.delimiter)
    lacking = _lacking(raw, required)
    if lacking or not raw.lines or not {*required} <= raw.columns.keys():
        return _nothing_of(raw, lacking)
    chosen = fulfilling(raw, conditions)
    if not chosen.lines:
        words = ", ".join(f"{name} = {' or '.join(map(str, values))}" for name, values in conditions.items())
        return _nothing_of(raw, [Finding(0, f"no row has {words}", "at least one")])
    for join in layout.joins:
        chosen = _joined(chosen, join, path.parent)
    return _named(chosen, task)


def required_columns(task: Task, *, labelled: bool, split: str) -> list[str]:
    """The columns that the file itself must have, those of second files left out."""
    layout = task.layout
    named = [
        *([] if layout.id_from_line else [task.id]),
        *([] if layout.language_is else [task.language]),
        task.query,
        *(layout.targets or [task.target]),
        *([layout.group] if layout.group else []),
        *([task.label] if labelled else []),
        *layout.conditions(split),
        *(name for join in layout.joins for name in join.on),
    ]
    joined = {name for join in layout.joins for name in join.columns}
    return [name for name in dict.fromkeys(named) if name not in joined]


def _nothing_of(raw: RawRows, findings: Sequence[Finding]) -> RawRows:
    return replace(raw, columns={}, lines=[], header=(), findings=[*raw.findings, *findings])


def is_plain(task: Task) -> bool:
    """Whether the columns of the files are the task's own: nothing is to do but to read them."""
    plain = Layout(
        files=task.layout.files,
        encoding=task.layout.encoding,
        delimiter=task.layout.delimiter,
        labels=task.layout.labels,
    )
    return task.layout == plain


def _lacking(raw: RawRows, required: Sequence[str]) -> list[Finding]:
    """The required columns that a header does not name."""
    there = ", ".join(map(repr, raw.header))
    return [
        Finding(raw.header_line, f"there is no column {name!r}", f"it beside {there}")
        for name in dict.fromkeys(required)
        if raw.header and name not in raw.header
    ]


def fulfilling(raw: RawRows, conditions: Mapping[str, tuple[Value, ...]]) -> RawRows:
    """The records that fulfil all conditions; numbers and their digits are the same."""
    kept: Sequence[int] = range(len(raw.lines))
    for column, values in conditions.items():
        wanted, found = {str(value) for value in values}, raw.columns.get(column, [])
        kept = [place for place in kept if str(found[place]) in wanted]
    return raw if len(kept) == len(raw.lines) else taken(raw, kept)


def taken(raw: RawRows, places: Sequence[int]) -> RawRows:
    """The records at these places."""
    columns = {name: [values[place] for place in places] for name, values in raw.columns.items()}
    return replace(raw, columns=columns, lines=[raw.lines[place] for place in places])


def _joined(raw: RawRows, join: Join, folder: Path) -> RawRows:
    """The records with the columns of a second file; what is wrong with that file, or not in it, is a finding."""
    keys = [_key(values) for values in zip(*(raw.columns[name] for name in join.on), strict=True)]
    table, findings = _table(folder / join.file, join, wanted=set(keys))
    if not join.optional and not findings:
        findings = [
            Finding(line, f"{join.file} has no {' and '.join(join.on)} {', '.join(key)}", "a row of every key")
            for line, key in zip(raw.lines, keys, strict=True)
            if key not in table
        ]
    nothing = (None,) * len(join.columns)
    found = [table.get(key, nothing) for key in keys]
    brought = {name: [values[place] for values in found] for place, name in enumerate(join.columns)}
    return replace(raw, columns={**raw.columns, **brought}, findings=[*raw.findings, *findings])


def _table(path: Path, join: Join, *, wanted: set[Key]) -> tuple[dict[Key, tuple[object, ...]], list[Finding]]:
    """Key -> values of the columns to bring, for the wanted keys; and what is wrong with the file."""
    if path.suffix not in READERS and not join.delimiter:
        return {}, [Finding(0, f"the suffix of {path.name} is {path.suffix!r}", f"one of {' '.join(READERS)}")]
    try:
        raw = read_raw(path, (*join.on, *join.columns), encoding=join.encoding, delimiter=join.delimiter)
    except OSError as error:
        return {}, [Finding(0, f"{path.name}, which is joined, cannot be read: {error.strerror}")]
    findings = [*raw.findings, *_lacking(raw, (*join.on, *join.columns))]
    table: dict[Key, tuple[object, ...]] = {}
    if not findings:
        values = zip(*(raw.columns[name] for name in (*join.on, *join.columns)), strict=True)
        for line, found in zip(raw.lines, values, strict=True):
            key = _key(found[: len(join.on)])
            if key in wanted and key in table:
                findings.append(Finding(line, f"{' and '.join(join.on)} {', '.join(key)} repeats", "each key once"))
            elif key in wanted:
                table[key] = found[len(join.on) :]
    return table, [Finding(0, _told(path.name, raw.unit, each), each.expected) for each in findings]


def _key(values: Sequence[object]) -> Key:
    return tuple("" if value is MISSING or value is None else str(value) for value in values)


def _told(name: str, unit: str, finding: Finding) -> str:
    """A finding about a joined file, for the faults of the file that it is joined to."""
    return f"{name}, {unit} {finding.line}: {finding.found}" if finding.line else f"{name}: {finding.found}"


def _named(raw: RawRows, task: Task) -> RawRows:
    """The records under the task's names."""
    layout = task.layout
    columns = {name: raw.columns[name] for name in (task.task, task.label) if name in raw.columns}
    languages, findings = _languages(raw, task)
    columns |= {
        task.id: list(raw.lines) if layout.id_from_line else raw.columns.get(task.id, []),
        task.language: languages,
        task.query: raw.columns.get(task.query, []),
        task.target: _targets(raw, task),
    }
    if layout.group:
        columns[GROUP], faults = _groups(raw, layout.group)
        findings += faults
    header = tuple(columns) if raw.header else ()
    return replace(raw, columns=columns, findings=[*raw.findings, *findings], header=header)


def _languages(raw: RawRows, task: Task) -> tuple[list[object], list[Finding]]:
    layout = task.layout
    if layout.language_is:
        return [layout.language_is] * len(raw.lines), []
    found = raw.columns.get(task.language, [])
    if not layout.languages:
        return found, []
    expected = f"one of {', '.join(layout.languages)}"
    strange = [
        Finding(line, f"{task.language} is {describe(value)}", expected)
        for line, value in zip(raw.lines, found, strict=True)
        if type(value) is str and value and value not in layout.languages
    ]
    return [layout.languages.get(value, value) if isinstance(value, str) else value for value in found], strange


def _targets(raw: RawRows, task: Task) -> list[object]:
    layout = task.layout
    if layout.targets:
        parts = zip(*(raw.columns.get(name, []) for name in layout.targets), strict=True)
        return [one_text(values, layout.separator) for values in parts]
    found = raw.columns.get(task.target, [])
    if task.target_is_category and layout.category_separator != ",":
        return _once_each(found, lambda path: comma_path(path, layout.category_separator))
    return found


def one_text(values: Sequence[object], separator: str) -> object:
    """The texts among `values` as one; what is neither text nor nothing stands for all, to be told as a fault."""
    for value in values:
        if not (isinstance(value, str) or value is None or value is MISSING):
            return value
    return separator.join(value for value in values if isinstance(value, str) and value.strip()) or None


def comma_path(path: str, separator: str) -> str:
    """A category path with commas between its levels; a comma in a name is followed by a space.

    Examples
    --------
    >>> comma_path("Home > Kitchen,Dining > Pans", ">")
    'Home,Kitchen, Dining,Pans'
    """
    return ",".join(SEPARATOR.sub(", ", name.strip()).rstrip(", ") for name in path.split(separator))


def _once_each(values: Sequence[object], function: Callable[[str], str]) -> list[object]:
    known: dict[str, str] = {}
    return [
        (known[value] if value in known else known.setdefault(value, function(value)))
        if isinstance(value, str)
        else value
        for value in values
    ]


def _groups(raw: RawRows, name: str) -> tuple[list[object], list[Finding]]:
    """The group of every record as text; records without one are findings."""
    found = raw.columns.get(name, [])
    empty = [value is None or value is MISSING or value == "" for value in found]
    faults = [
        Finding(line, f"{name} is missing or empty", "the group of the row")
        for line, is_empty in zip(raw.lines, empty, strict=True)
        if is_empty
    ]
    return ["" if is_empty else str(value) for value, is_empty in zip(found, empty, strict=True)], faults


def joined_files(folder: Path, tasks: Sequence[Task]) -> Iterator[Path]:
    """The second files of tasks, each once."""
    names = dict.fromkeys(join.file for task in tasks for join in task.layout.joins)
    return (folder / name for name in names if (folder / name).is_file())


def file_names(task: Task) -> set[str]:
    """All names that a task's files may have, second files included."""
    own = {name for split in SPLITS for name in task.layout.names(task.name, split, tuple(READERS))}
    return own | {join.file for join in task.layout.joins}
