"""Commands that look after the files of a run: verify, gc, push, pull."""

from pathlib import Path
from typing import Any

import click

from pipelines.cli_options import format_option, run_folder


def integrity_commands() -> list[click.Command]:
    """The commands of this file."""
    return [verify]


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
