"""Coverage-guided fuzzing (atheris) of the readers that take nothing but bytes or text.

    python benchmarks/fuzz_coverage.py [--seconds 30] [--reader NAME]

Each reader has a process of its own, which libFuzzer ends. An input that gives anything but a value or the error that
is promised is kept in the working folder as ``crash-<digest>``. Prints a line per reader and ``RESULT failures <n>``.
"""

import argparse
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

SHAPE = {"a": int, "b": {"c": list[float], "d": dict[str, str]}, "e": str | None}


class NothingError(Exception):
    """What is never raised: for readers that promise a value, whatever they read."""


def readers() -> dict[str, tuple[Callable[[bytes], object], type[Exception], bytes]]:
    """Name -> what reads bytes, the error that it may raise, an input to begin with."""
    from competition.errors import CompetitionError
    from competition.json_files import parse_json, shape_faults
    from competition.tasks import QI
    from oof.trees import checked_trees
    from pipelines.config import parse_override, parse_toml
    from pipelines.search_space import read_dimension
    from submissions.formats import csv_records, json_records

    def text(data: bytes) -> str:
        return data.decode("utf-8", "surrogateescape")

    row = b'{"id":1,"language":"en","origin_query":"a","item_title":null,"prediction":1}\n'
    return {
        "json": (lambda data: list(shape_faults(parse_json(data), SHAPE, "x")), ValueError, b'{"a":1,"b":{"c":[1.5]}}'),
        "toml": (lambda data: parse_toml(data.decode("utf-8-sig")), ValueError, b'kind = "lexical"\n[head]\nc = 0.5\n'),
        "override": (lambda data: parse_override(text(data)), CompetitionError, b"lexical:head.c=0.5"),
        "space": (lambda data: read_dimension(text(data)), NothingError, b"head.c=log:1e-5..1e-4"),
        "trees": (lambda data: checked_trees(data.decode("utf-8")), ValueError, _TREE),
        "json-submission": (lambda data: list(json_records(data, "x", QI)), NothingError, row),
        "csv-submission": (lambda data: list(csv_records(data, "x", QI)), NothingError, b"id,prediction\n1,0\n"),
    }


_TREE = b"""tree
version=v4
num_class=1
num_tree_per_iteration=1
max_feature_idx=0
objective=binary sigmoid:1
feature_names=a
feature_infos=[0:1]

Tree=0
num_leaves=2
num_cat=0
split_feature=0
split_gain=1
threshold=0.5
decision_type=2
left_child=-1
right_child=-2
leaf_value=0.1 0.2
leaf_weight=1 1
leaf_count=1 1
internal_value=0
internal_weight=1
internal_count=2
is_linear=0
shrinkage=1


end of trees
"""


def fuzz_one(name: str, seconds: int) -> None:
    """Fuzz one reader in this process, which does not come back."""
    import atheris

    with atheris.instrument_imports(include=["competition", "oof", "pipelines", "submissions", "tomllib", "json"]):
        read, promised, seed = readers()[name]
    corpus = Path(f"corpus-{name}")
    corpus.mkdir(exist_ok=True)
    (corpus / "seed").write_bytes(seed)

    def test(data: bytes) -> Any:
        with suppress(promised):
            read(data)

    atheris.Setup([sys.argv[0], str(corpus), f"-max_total_time={seconds}", "-timeout=20", "-rss_limit_mb=4096"], test)
    atheris.Fuzz()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--reader")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.here:
        fuzz_one(asked.reader, asked.seconds)
    failures = 0
    for name in [asked.reader] if asked.reader else [*readers()]:
        command = [sys.executable, __file__, "--here", "--reader", name, "--seconds", str(asked.seconds)]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        runs = re.findall(r"Done (\d+) runs", done.stderr)
        failures += not runs
        print(f"{name}: {int(runs[0]):,} inputs, none failed" if runs else f"{name}: FAILED\n{done.stderr[-3000:]}")
    print(f"RESULT failures {failures}")
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
