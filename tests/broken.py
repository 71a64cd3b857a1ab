"""A competition broken on purpose: 70 kinds of fault and oddity, each on a line that is known."""

import json
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Row = dict[str, Any]
FIRST, STEP = 20, 5
"""The planted lines of train are 20, 25, 30 and so on: none is the neighbour of another."""


def dumps(row: Row) -> bytes:
    return json.dumps(row, ensure_ascii=False).encode()


def changed(**changes: Any) -> Callable[[Row], bytes]:
    """The row with other values."""
    return lambda row: dumps(row | changes)


def without(name: str) -> Callable[[Row], bytes]:
    """The row without a field."""
    return lambda row: dumps({key: value for key, value in row.items() if key != name})


def edited(edit: Callable[[bytes], bytes]) -> Callable[[Row], bytes]:
    """The row's line, edited as bytes."""
    return lambda row: edit(dumps(row))


@dataclass(frozen=True)
class Plant:
    """What is done to a line of train_QC, and how what is said about it begins."""

    kind: str
    make: Callable[[Row], bytes]
    says: str


MOJIBAKE = "café".encode().decode("cp1252")

FAULTS = [
    Plant("truncated line", edited(lambda line: line[:40]), "the line is not valid JSON"),
    Plant("missing quote", edited(lambda line: line.replace(b'"task"', b'"task', 1)), "the line is not valid JSON"),
    Plant("trailing comma", edited(lambda line: line[:-1] + b",}"), "the line is not valid JSON"),
    Plant("two objects on a line", edited(lambda line: line + b" " + line), "the line is not valid JSON"),
    Plant("single quotes", edited(lambda line: line.replace(b'"', b"'")), "the line is not valid JSON"),
    Plant("NaN", edited(lambda line: line.replace(b'"label": ', b'"label": NaN, "x": ')), "the line is not valid JSON"),
    Plant("lone surrogate", edited(lambda line: line.replace(b'"QC"', b'"\\ud800"')), "the line is not valid JSON"),
    Plant("raw tab in a string", edited(lambda line: line.replace(b'"QC"', b'"Q\tC"')), "the line is not valid JSON"),
    Plant("byte order mark inside", edited(lambda line: b"\xef\xbb\xbf" + line), "a byte order mark stands inside"),
    Plant("not UTF-8", edited(lambda line: line.replace(b'"origin_query": "', b'"origin_query": "\xe9', 1)),
          "byte 0xe9 at byte offset"),
    Plant("array", edited(lambda line: b"[" + line + b"]"), "the line is a list"),
    Plant("null line", edited(lambda line: b"null"), "the line is null"),
    Plant("text line", edited(lambda line: b'"a row"'), "the line is the text"),
    Plant("field twice", edited(lambda line: line[:-1] + b', "label" : 0}'), "label stands more than once"),
    Plant("no id", without("id"), "id is missing"),
    Plant("no language", without("language"), "language is missing"),
    Plant("no query", without("origin_query"), "origin_query is missing"),
    Plant("no target", without("category_path"), "category_path is missing"),
    Plant("no label", without("label"), "label is missing"),
    Plant("null id", changed(id=None), "id is null"),
    Plant("float id", changed(id=7.5), "id is the number 7.5"),
    Plant("id as text", changed(id="77"), "id is the text '77'"),
    Plant("id true", changed(id=True), "id is the truth value true"),
    Plant("id too large", changed(id=2**63), "id is the number 9223372036854775808"),
    Plant("id twice", changed(id=1), "id 1 repeats line 1"),
    Plant("another task", changed(task="QI"), "task is the text 'QI'"),
    Plant("task a number", changed(task=1), "task is the number 1"),
    Plant("null language", changed(language=None), "language is null"),
    Plant("language a number", changed(language=33), "language is the number 33"),
    Plant("language empty", changed(language=""), "language is empty"),
    Plant("null query", changed(origin_query=None), "origin_query is null"),
    Plant("query a number", changed(origin_query=501), "origin_query is the number 501"),
    Plant("query a list", changed(origin_query=["red", "mug"]), "origin_query is a list"),
    Plant("target an object", changed(category_path={"a": "b"}), "category_path is an object"),
    Plant("target false", changed(category_path=False), "category_path is the truth value false"),
    Plant("label 2", changed(label=2), "label is the number 2"),
    Plant("label -1", changed(label=-1), "label is the number -1"),
    Plant("label yes", changed(label="yes"), "label is the text 'yes'"),
    Plant("null label", changed(label=None), "label is null"),
    Plant("label one half", changed(label=0.5), "label is the number 0.5"),
    Plant("label true", changed(label=True), "label is the truth value true"),
    Plant("label empty", changed(label=""), "label is empty"),
    Plant("label a list", changed(label=[1]), "label is a list"),
]  # fmt: skip
ODDITIES = [
    Plant("blank line", lambda row: b"", "the line is blank"),
    Plant("CR LF", edited(lambda line: line + b"\r"), "the line ends in CR LF"),
    Plant("further field", changed(note="?"), "the line has a further field 'note'"),
    Plant("field lacking", without("task"), "the line lacks the field 'task'"),
    Plant("label as text", changed(label="1"), "label is the text '1'"),
    Plant("empty query", changed(origin_query=""), "origin_query is empty"),
    Plant("blank query", changed(origin_query="   "), "origin_query is blank"),
    Plant("endless query", changed(origin_query="pan " * 200), "origin_query is over 500 characters long"),
    Plant("null target", changed(category_path=None), "category_path is null"),
    Plant("empty target", changed(category_path=""), "category_path is empty"),
    Plant("blank target", changed(category_path="  "), "category_path is blank"),
    Plant("endless target", changed(category_path="a" * 3000), "category_path is over 2,000 characters long"),
    Plant("control character", changed(origin_query="red\x07 mug"), "a control character in origin_query"),
    Plant("null character", changed(category_path="zoo,apes\x00"), "a control character in category_path"),
    Plant("replacement character", changed(origin_query="caf\ufffd"), "the replacement character U+FFFD in"),
    Plant("mojibake", changed(origin_query=MOJIBAKE), "UTF-8 read as Latin-1 (mojibake) in origin_query"),
    Plant("lost characters", changed(origin_query="??? mug"), "characters lost to question marks in origin_query"),
    Plant("private character", changed(origin_query="mug \ue001"), "a private or forbidden character in origin_query"),
    Plant("escape sequence", changed(origin_query="caf\\u00e9"), "an escape sequence as text in origin_query"),
    Plant("HTML entity", changed(origin_query="salt &amp; pepper mill"), "HTML in origin_query"),
    Plant("HTML tag", changed(origin_query="<b>mug</b>"), "HTML in origin_query"),
    Plant("zero-width space", changed(origin_query="tea\u200bpot"), "an invisible character in origin_query"),
    Plant("decomposed letters", changed(origin_query=unicodedata.normalize("NFD", "théière")),
          "letters that are not composed (NFC) in origin_query"),
    Plant("empty level", changed(category_path="zoo,,apes"), "an empty level"),
    Plant("leading comma", changed(category_path=",zoo,bears"), "a comma at an end"),
    Plant("trailing comma", changed(category_path="zoo,cats,"), "a comma at an end"),
    Plant("space in a level", changed(category_path="zoo ,birds"), "a space at an end of a level"),
    Plant("another separator", changed(category_path="zoo > fish"), "levels separated by another sign"),
    Plant("language in capitals", changed(language="EN"), "a language code in another spelling"),
    Plant("language in words", changed(language="english"), "no language code"),
]  # fmt: skip


def write_rows(path: Path, rows: list[Row]) -> None:
    path.write_bytes(b"".join(dumps(row) + b"\n" for row in rows))


def write_broken(folder: Path, rows: dict[str, list[Row]]) -> dict[str, str]:
    """Write the rows of QC (split -> rows, ids of all splits different) with everything planted.

    Returns
    -------
    Where each plant stands -> how what is said about it begins.
    """
    folder.mkdir(parents=True)
    train, said = [dumps(row) for row in rows["train"]], {}
    for place, plant in enumerate([*FAULTS, *ODDITIES]):
        line = FIRST + STEP * place
        train[line - 1] = plant.make(rows["train"][line - 1])
        said[f"train_QC.txt:{line}"] = plant.says
    twin = max((row["category_path"] for row in rows["train"][:FIRST]), key=len).title()
    last = FIRST + STEP * len([*FAULTS, *ODDITIES])
    for step, (row, says) in enumerate(
        [
            (rows["train"][1] | {"label": 1 - int(rows["train"][1]["label"])}, "conflicting labels"),
            (rows["train"][4] | {}, "repeated pairs"),
            (rows["train"][last + 2 * STEP - 1] | {"category_path": twin}, "a path that differs from a usual one"),
        ]
    ):
        line = last + step * STEP
        train[line - 1] = dumps(row | {"id": 900_000 + line})
        said[f"train_QC.txt:{line}"] = says
    said["train_QC.txt:2"] = "conflicting labels"
    (folder / "train_QC.txt").write_bytes(b"\n".join(train) + b"\n")
    dev, test = [list(rows[split]) for split in ("dev", "test")]
    dev[6] = dev[6] | {"id": rows["train"][2]["id"]}
    dev[9] = dev[9] | {"id": dev[8]["id"]}
    test[3] = test[3] | {"label": 1}
    test[7] = {key: rows["train"][7].get(key) for key in test[7]} | {"id": test[7]["id"]}
    said |= {"dev_QC.txt:7": "what dev shares with train: id", "dev_QC.txt:10": "id", "test_QC.txt:4": "the line has a"}
    said["test_QC.txt:8"] = "what test shares with train: pair"
    write_rows(folder / "dev_QC.txt", dev)
    write_rows(folder / "test_QC.txt", test)
    write_rows(folder / "train_QX.txt", rows["dev"][:2])
    said["train_QX.txt"] = "a file that nobody reads"
    return said
