"""Commands that score pairs which no file of the run has: score (files, streams) and serve (requests)."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipelines.cli_options import Command, one_task_option, run_folder, run_option
from pipelines.completion import ensembles, one_of, or_file, students, tasks, trained, translation_recipes

if TYPE_CHECKING:
    from pipelines.pair_scorer import PairScorer
    from pipelines.run_folder import RunFolder


def scoring_commands() -> list[click.Command]:
    """The commands of this file."""
    return [score, serve]


def scorer_options(command: Command) -> Command:
    """--ensemble, --student, --translate, --table, --glossary, --set: what scores, and how queries are translated."""
    file = click.Path(path_type=Path)
    options = [
        click.option(
            "--ensemble",
            help="An ensemble or base learner; the best of the leaderboard if left out.",
            shell_complete=one_of(ensembles, trained),
        ),
        click.option(
            "--student", help="A distilled student instead: one small model.", shell_complete=one_of(students)
        ),
        click.option(
            "--translate",
            "recipe",
            metavar="RECIPE",
            help="Translate queries that the run does not know.",
            shell_complete=or_file(one_of(translation_recipes)),
        ),
        click.option("--table", "tables", multiple=True, type=file, help="CSV of translations for the recipe."),
        click.option("--glossary", "glossaries", multiple=True, type=file, help="Glossary for the recipe."),
    ]
    decorated: Any = command
    for option in reversed(options):
        decorated = option(decorated)
    return decorated  # type: ignore[no-any-return]


@click.command()
@click.argument("source", metavar="FILE|-", type=click.Path(path_type=Path))
@run_option
@one_task_option
@scorer_options
@click.option("--out", type=click.Path(path_type=Path), help="The file to write, whole or not at all; stdout if not.")
@click.option("--format", "output", type=click.Choice(["jsonl", "csv", "tsv", "parquet"]), help="Of the scores.")
@click.option(
    "--input-format", type=click.Choice(["jsonl", "csv", "tsv", "parquet"]), help="Of the pairs; by its suffix."
)
@click.option("--batch", default=4096, show_default=True, type=click.IntRange(1), help="Pairs in memory at a time.")
@click.pass_context
def score(
    ctx: click.Context,
    /,
    source: Path,
    run_dir: Path,
    task: str,
    out: Path | None,
    output: str | None,
    input_format: str | None,
    batch: int,
    **scorer: Any,
) -> None:
    """Score pairs of any number (JSON Lines, CSV, TSV or Parquet): query, target; id, language, query_en if there.

    The contest's own columns and files will do, as for `predict`. Writes id, score (probability of label 1) and
    decision in the order of the pairs; a pair without an id gets its line number. A file is checked before anything is
    scored. Of standard input (-) to standard output, the scores of the batches before a faulty line stand, and every
    faulty line is named in the end.
    """
    from pipelines.pair_files import FORMATS, Source, refuse_out, score_file
    from pipelines.predict import task_of

    pairs = Source.of(None if str(source) == "-" else source, format=input_format)
    chosen = output or FORMATS.get("" if out is None else out.suffix, "jsonl")
    if chosen == "parquet" and out is None:
        raise click.UsageError("Parquet is written to a file: name it with --out")
    run = run_folder(run_dir)
    refuse_out(out)
    pairs.look(task_of(run, task))
    model = _scorer(run, task, **scorer)
    try:
        score_file(model, pairs, out=out, writes=chosen, batch=batch)
    except BrokenPipeError:  # whoever read has read enough
        sys.stdout = open("/dev/null", "w")  # noqa: PTH123, SIM115  # else Python complains when it ends
        ctx.exit(1)


@click.command()
@run_option
@click.option(
    "--task",
    "names",
    multiple=True,
    help="A task; several times for several; all of the run if left out.",
    shell_complete=one_of(tasks),
)
@scorer_options
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen: this machine alone.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="0: any free one.")
@click.option("--max-pairs", default=256, show_default=True, type=click.IntRange(1), help="Pairs in one request.")
@click.option("--max-text", default=2000, show_default=True, type=click.IntRange(1), help="Characters of a text.")
@click.option("--max-batch", default=256, show_default=True, type=click.IntRange(1), help="Pairs scored together.")
@click.option("--wait-ms", default=5.0, show_default=True, type=click.FloatRange(0), help="How long a batch fills.")
@click.option("--max-waiting", default=4096, show_default=True, type=click.IntRange(1), help="Pairs that may wait.")
def serve(run_dir: Path, names: tuple[str, ...], host: str, port: int, **options: Any) -> None:
    """Answer requests: POST /score with pairs, GET /health, /metrics (Prometheus) and /docs. Needs relstack[serve].

    It listens on this machine alone unless --host says otherwise; it knows no users and no encryption: put a proxy
    before it. Requests that come within a few milliseconds are scored together. SIGTERM ends it once those that wait
    are answered.
    """
    from pipelines.serving import Limits, bound, listen, make_app

    limits = Limits(
        **{name: options.pop(name) for name in ("max_pairs", "max_text", "max_batch", "wait_ms", "max_waiting")}
    )
    run = run_folder(run_dir)
    chosen = names or tuple(task.name for task in run.tasks())
    with bound(host, port) as ours:
        app = make_app({name: _scorer(run, name, **options) for name in chosen}, limits)
        listen(app, ours)


def _scorer(
    run: "RunFolder",
    task: str,
    *,
    ensemble: str | None,
    student: str | None,
    recipe: str | None,
    tables: tuple[Path, ...],
    glossaries: tuple[Path, ...],
) -> "PairScorer":
    from pipelines.pair_scorer import BEST, load_ensemble, load_student
    from pipelines.translation.work import Translating, own_resources

    if ensemble and student:
        raise click.UsageError("name --ensemble or --student, not both")
    resources = own_resources(tables=tables, glossaries=glossaries)
    translating = Translating(recipe, resources=resources) if recipe else None
    if student:
        return load_student(run, task, student, translating=translating)
    return load_ensemble(run, task, ensemble or BEST, translating=translating)
