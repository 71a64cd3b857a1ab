"""Commands that look after the files of a run: verify, gc, push, pull, unpack."""

from pathlib import Path
from typing import Any

import click

from pipelines.cli_options import format_option, names_of, run_folder


def integrity_commands() -> list[click.Command]:
    """The commands of this file."""
    return [verify, gc, push, pull, unpack]


RUN = click.argument("run_dir", metavar="RUN", type=click.Path(path_type=Path))


@click.command()
@RUN
@format_option
def verify(run_dir: Path, output: Any) -> None:
    """Hash every artefact of a run again and trace it back to the competition's files. Exit code 3 with faults."""
    from pipelines.output import print_table, print_tables
    from pipelines.verifying import short_lineage
    from pipelines.verifying import verify as look

    found = look(run_folder(run_dir))
    if output == "table":
        print_table(found.artefacts, output, title="artefacts")
        print()
        print_table(short_lineage(found.lineage), output, title="lineage")
    else:
        print_tables({"artefacts": found.artefacts, "lineage": found.lineage, "faults": found.fault_table()}, output)
    found.refuse_faults()


@click.command()
@RUN
@click.option("--weights", is_flag=True, help="Weights of base learners that no submission is made of, too.")
@click.option("--cache", is_flag=True, help="Tables of features, and what the user's cache holds of other runs, too.")
@click.option("--yes", is_flag=True, help="Delete them; without it they are only listed.")
@format_option
def gc(run_dir: Path, weights: bool, cache: bool, yes: bool, output: Any) -> None:
    """List what nothing needs, with the reason and its bytes; --yes deletes it. What a process works on stays."""
    import pandas as pd

    from pipelines.freeing import free, freeable
    from pipelines.output import print_table, say

    found = freeable(run_folder(run_dir), weights=weights, cache=cache)
    n_bytes = {each.path: each.n_bytes for each in found}
    lines = [(str(each.path), each.reason, n_bytes[each.path]) for each in found]
    print_table(pd.DataFrame(lines, columns=["path", "reason", "bytes"]), output, whole=("path",))
    if yes:
        gone = free(found)
        freed = sum(n_bytes[each.path] for each in gone)
        say(f"deleted {len(gone)} of {len(found)}, {freed:,} bytes")
    else:
        say(f"{sum(n_bytes.values()):,} bytes; nothing was deleted, --yes does it")


URL = click.argument("url", metavar="URL")
ONLY = click.option("--only", default="", help="Names, comma-separated: rows,folds,parts/QC/e5-bi; all if left out.")


@click.command()
@RUN
@URL
@ONLY
@format_option
def push(run_dir: Path, url: str, only: str, output: Any) -> None:
    """Send the finished artefacts of a run to a store: s3://bucket/run, file:///folder, any that fsspec opens."""
    from pipelines.output import print_table
    from pipelines.remote import push as send

    print_table(send(run_folder(run_dir), url, only=names_of(only)), output)


@click.command()
@URL
@RUN
@ONLY
@format_option
def pull(url: str, run_dir: Path, only: str, output: Any) -> None:
    """Fetch the finished artefacts of a run from a store; all are hashed before they count."""
    from pipelines.output import print_table
    from pipelines.remote import pull as fetch

    print_table(fetch(url, run_folder(run_dir), only=names_of(only)), output)


@click.command()
@click.argument("archive", type=click.Path(path_type=Path))
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--max-gb", type=click.FloatRange(min=0, min_open=True), default=200, show_default=True)
def unpack(archive: Path, folder: Path, max_gb: float) -> None:
    """Unpack a zip, tar or tar.gz that somebody sent, a run or a contest's files, into a new FOLDER.

    Nothing is written where a member points outside the folder, is a link or device, stands there twice, or where all
    unpacks to more than --max-gb.
    """
    from competition.archives import extract
    from pipelines.output import say

    files = extract(archive, folder, max_bytes=int(max_gb * 10**9))
    say(f"{len(files):,} files, {sum(file.stat().st_size for file in files):,} bytes")
    print(folder)
