"""Commands about languages: translate, augment, languages."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipelines.cli_options import (
    Command,
    competition_option,
    format_option,
    names_of,
    run_folder,
    run_option,
    set_option,
)

if TYPE_CHECKING:
    import pandas as pd

    from pipelines.translation.work import Translating

FILE = click.Path(path_type=Path, dir_okay=False)


def translate_commands() -> list[click.Command]:
    """The commands of this file, in the order of the work."""
    return [languages, translate, augment]


def _decorated(command: Command, options: list[Any]) -> Command:
    decorated: Any = command
    for option in reversed(options):
        decorated = option(decorated)
    return decorated  # type: ignore[no-any-return]


def source_options(command: Command) -> Command:
    """--data DIR or --run DIR, --tasks."""
    options = [
        click.option("--data", type=click.Path(path_type=Path), help="Folder with the competition's files."),
        click.option("--run", "run_dir", type=click.Path(path_type=Path), help="A run folder instead."),
        competition_option,
        click.option("--tasks", help="Tasks of --data, comma-separated; all of the competition if left out."),
    ]
    return _decorated(command, options)


def work_options(command: Command) -> Command:
    """What translates, and how the work is shared out."""
    count = click.IntRange(min=1)
    options = [
        click.option(
            "--recipe", default="offline", show_default=True, help="Translation recipe: a name or a .toml file."
        ),
        click.option(
            "--glossary", "glossaries", multiple=True, type=FILE, help="TSV with a column per language. Repeatable."
        ),
        click.option(
            "--table",
            "tables",
            multiple=True,
            type=FILE,
            help="CSV language,origin_query,translated_query. Repeatable.",
        ),
        click.option("--workers", type=count, default=1, show_default=True, help="Processes that share the work."),
        click.option(
            "--device", default="auto", show_default=True, help="cpu, cuda, cuda:1; auto takes what is there."
        ),
        click.option("--block", type=count, default=500, show_default=True, help="Texts that a kill can cost."),
        set_option,
    ]
    return _decorated(command, options)


@click.command()
@source_options
@work_options
@click.option("--out", type=FILE, help="CSV to write, for --translations; with --run the run's own if left out.")
@click.option(
    "--english", is_flag=True, help="Translate queries marked en too, which finds those that are not English."
)
@click.option("--reference", type=FILE, help="CSV of human translations: chrF per language.")
@format_option
def translate(
    data: Path | None,
    run_dir: Path | None,
    competition: str | None,
    tasks: str | None,
    out: Path | None,
    english: bool,
    reference: Path | None,
    output: Any,
    **options: Any,
) -> None:
    """Translate every distinct query to English, once: cached for all runs, and resumed after a kill.

    The same command at the same time in several terminals, or on machines that share the cache, shares the work.
    """
    from pipelines.output import print_table
    from pipelines.prepare import read_translations
    from pipelines.translation.stage import translate_queries, translate_run, translation_table, write_translations

    if run_dir is None and out is None:
        raise click.UsageError("name --out FILE for the translations of --data")
    references = read_translations(reference) if reference else None
    work = _work(**options)
    if run_dir is not None and out is None:
        _one_of(data, run_dir)
        translated = translate_run(run_folder(run_dir), work, english=english)
    else:
        translated = translate_queries(
            _queries(data, run_dir, competition=competition, tasks=tasks), work, english=english
        )
        write_translations(translated, out)  # type: ignore[arg-type]  # it is there, or the run's own is meant
    print_table(translation_table(translated, references), output)


@click.command()
@run_option
@click.option("--task", required=True, help="QC or QI.")
@work_options
@click.option("--into", help="Languages, comma-separated; those that only dev and test have if left out.")
@click.option("--back", help="Back-translation by way of these languages, comma-separated, instead.")
@click.option(
    "--rows", type=click.IntRange(min=1), help="About so many rows per language; as train's languages have if left out."
)
@click.option("--seed", default=0, show_default=True)
@click.option("--name", help="Name of the rows; the translation recipe's if left out.")
@format_option
def augment(
    run_dir: Path,
    task: str,
    into: str | None,
    back: str | None,
    rows: int | None,
    seed: int,
    name: str | None,
    output: Any,
    **options: Any,
) -> None:
    """Make extra training rows by translation: into languages that train lacks, or there and back.

    Each new row names its parent, whose label, target and fold it has.
    """
    from pipelines.output import print_table
    from pipelines.translation.augment import Augmenting, augment_run

    if into and back:
        raise click.UsageError("name --into, or --back")
    work = _work(**options)
    asked = Augmenting(names_of(into or ""), names_of(back or ""), rows, seed)
    print_table(augment_run(run_folder(run_dir), task, work, asked, name=name), output)


@click.command()
@source_options
@click.option("--engine", type=click.Choice(["lingua", "langid"]), default="lingua", show_default=True)
@format_option
def languages(
    data: Path | None, run_dir: Path | None, competition: str | None, tasks: str | None, engine: Any, output: Any
) -> None:
    """Per language: which language and script the queries look like, and how surely."""
    from pipelines.language_id import language_table
    from pipelines.output import print_table

    print_table(language_table(_queries(data, run_dir, competition=competition, tasks=tasks), engine=engine), output)


def _work(
    *,
    recipe: str,
    glossaries: tuple[Path, ...],
    tables: tuple[Path, ...],
    workers: int,
    device: str,
    block: int,
    overrides: tuple[str, ...],
) -> "Translating":
    from pipelines.translation.work import Translating, own_resources

    resources = own_resources(tables=tables, glossaries=glossaries, device=device)
    return Translating(recipe, overrides, resources, block=block, workers=workers)


def _queries(data: Path | None, run_dir: Path | None, *, competition: str | None, tasks: str | None) -> "pd.DataFrame":
    from pipelines.contests import asked_contest, named_contest, tasks_of
    from pipelines.translation.stage import queries_of_data, queries_of_run

    _one_of(data, run_dir)
    if data is None:
        return queries_of_run(run_folder(run_dir))  # type: ignore[arg-type]
    asked = asked_contest(competition, data)
    return queries_of_data(data, tasks_of(asked, tasks), contest=named_contest(asked))


def _one_of(data: Path | None, run_dir: Path | None) -> None:
    if (data is None) == (run_dir is None):
        raise click.UsageError("name --data DIR, or --run DIR")
