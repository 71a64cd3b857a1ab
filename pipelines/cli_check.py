"""The command that looks at a competition's files before anything is made of them."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipelines.cli_options import competition_option, format_option, run_folder

if TYPE_CHECKING:
    from pipelines.check import Page


@click.command()
@click.option("--data", type=click.Path(path_type=Path), help="Folder with the competition's files.")
@click.option("--run", "run_dir", type=click.Path(path_type=Path), help="A run folder: check the files it was made of.")
@competition_option
@click.option("--tasks", help="Tasks, comma-separated; all of the competition if left out.")
@click.option(
    "--translations",
    type=click.Path(path_type=Path),
    help="CSV language,origin_query,translated_query: leaks of queries are looked for in English too.",
)
@click.option("--details", is_flag=True, help="Print the table behind every verdict too (JSON and CSV have them all).")
@format_option
@click.pass_context
def check(
    ctx: click.Context,
    data: Path | None,
    run_dir: Path | None,
    competition: str | None,
    tasks: str | None,
    translations: Path | None,
    details: bool,
    output: Any,
) -> None:
    """One page on a competition's files: a verdict per point, every fault with its line. Exit code 3 with faults."""
    from competition.errors import CompetitionError
    from pipelines.check import check as look
    from pipelines.contests import asked_contest, named_contest, tasks_of
    from pipelines.prepare import read_translations

    if (data is None) == (run_dir is None):
        raise click.UsageError("name --data DIR, or --run DIR")
    competition = asked_contest(competition, data)
    if run_dir is not None:
        run = run_folder(run_dir)
        settings = run.settings()
        data = Path(settings.data)
        translations = translations or (Path(settings.translations) if settings.translations else None)
        competition = str(run.contest_file) if settings.competition else None
    english = read_translations(translations) if translations else None
    names, contest = tasks_of(competition, tasks), named_contest(competition)
    page = look(data, names, translations=english, contest=contest)  # type: ignore[arg-type]  # one of them is there
    _print(page, output, details=details)
    if page.has_faults:
        ctx.exit(CompetitionError.exit_code)


def _print(page: "Page", output: Any, *, details: bool) -> None:
    from competition.errors import MAX_FAULTS_SHOWN
    from pipelines.output import print_table, print_tables, print_wrapped

    if output != "table":
        print_tables({"verdicts": page.verdicts, "faults": page.faults, **page.tables}, output)
        return
    print_wrapped(page.verdicts, title="verdicts")
    if len(page.faults):
        click.echo()
        print_wrapped(page.faults.head(MAX_FAULTS_SHOWN), title=f"faults: {len(page.faults):,}")
        if len(page.faults) > MAX_FAULTS_SHOWN:
            click.echo(f"... and {len(page.faults) - MAX_FAULTS_SHOWN:,} more; --format json has them all")
    if details:
        for title, table in page.tables.items():
            click.echo()
            if "where" in table:
                print_wrapped(table, title=title)
            else:
                print_table(table, output, title=title)
