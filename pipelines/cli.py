"""The command line: a command parses its options, calls one stage, prints one table.

Nothing heavy is imported until a command works: ``--help`` answers at once.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipelines.cli_check import check
from pipelines.cli_completion import completion
from pipelines.cli_ensembles import ensemble_commands
from pipelines.cli_estimates import estimate_commands, plan_options, show_plan
from pipelines.cli_handover import handover_commands
from pipelines.cli_integrity import integrity_commands
from pipelines.cli_models import model_commands
from pipelines.cli_options import (
    Command,
    competition_option,
    engine_options,
    ensemble_option,
    format_option,
    names_of,
    pairs_of,
    run_folder,
    run_option,
    set_option,
    task_option,
    tracker_option,
)
from pipelines.cli_report import report
from pipelines.cli_scoring import scoring_commands
from pipelines.cli_selftraining import selftraining_commands
from pipelines.cli_status import status
from pipelines.cli_translate import translate_commands
from pipelines.completion import (
    PLANS,
    TASKS,
    contests,
    list_of,
    one_of,
    or_file,
    recipes,
    submission_path,
    submissions,
    word_of,
)

if TYPE_CHECKING:
    from competition.errors import CompetitionError
    from pipelines.run_folder import RunFolder, RunSettings
    from submissions.leaderboard import Leaderboard

LEADING = ("task", "name", "metric", "f1", "f1_low", "f1_high", "difference", "dev_f1", "threshold", "positive_rate")
"""Columns of the leaderboard that a narrow terminal shows."""
DEFAULT_RECIPES = "lexical,lexical-linear,e5-bi,e5-tree,e5-tree-mlp"


def _named(error: Exception) -> "CompetitionError":
    """The error in a user's words; one that is nobody's but ours is raised again."""
    from pipelines.failures import FileAccessError, named

    known = named(error)
    if known is None and isinstance(error, OSError):
        known = FileAccessError(str(error), advice="look at the path and at who may read and write it")
    if known is None:
        raise error
    return known


ANYWHERE = ("--quiet", "--verbose")
GIVEN = (click.core.ParameterSource.COMMANDLINE, click.core.ParameterSource.ENVIRONMENT)


class Commands(click.Group):
    """The group; turns what a user can cause into a message and its exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        from competition.errors import CompetitionError
        from pipelines.failures import StoppedError, naming_sigterm
        from pipelines.secrets import redacted

        try:
            with naming_sigterm():
                return super().invoke(ctx)
        except CompetitionError as error:
            known = error
        except KeyboardInterrupt:
            known = StoppedError("stopped by Ctrl-C", advice="the same command goes on where this one stopped")
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            known = _named(error)
        click.echo(redacted(f"error: {known}"), err=True)
        return ctx.exit(known.exit_code)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """--quiet and --verbose count wherever they stand."""
        end = args.index("--") if "--" in args else len(args)
        front = [word for word in args[:end] if word in ANYWHERE]
        return super().parse_args(ctx, [*front, *(word for word in args[:end] if word not in ANYWHERE), *args[end:]])

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)  # in the order of the work, not of the alphabet


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--quiet", is_flag=True, help="Say only what went wrong.")
@click.option("--verbose", is_flag=True, help="Say more.")
@click.version_option(package_name="relstack")
def main(quiet: bool, verbose: bool) -> None:
    """From a search-relevance competition's raw files to a validated submission made by an ensemble.

    Data goes to stdout, narration to stderr. Exit codes: 0 done, 1 failed, 2 usage, 3 validation failed,
    75 worth retrying.
    """
    from pipelines.output import narrate

    narrate(quiet=quiet, verbose=verbose)


def settings_options(command: Command) -> Command:
    """The options that make a run: all of `RunSettings`."""
    options: list[Any] = [
        click.option(
            "--data", required=True, type=click.Path(path_type=Path), help="Folder with the competition's files."
        ),
        competition_option,
        click.option(
            "--tasks",
            help="Tasks, comma-separated; all of the competition if left out.",
            shell_complete=list_of(word_of(*TASKS)),
        ),
        click.option("--folds", type=click.IntRange(3, 100), default=5, show_default=True, help="Number of folds."),
        click.option(
            "--plan",
            default="auto",
            show_default=True,
            help="Fold plan: auto, category-group, query-group, column-group, purged, language-holdout, "
            "family-holdout, test-matched (per task: QC=purged,QI=query-group).",
            shell_complete=one_of(word_of(*PLANS)),
        ),
        click.option("--depth", default=3, show_default=True, help="Category levels that make a group."),
        click.option("--seed", default=0, show_default=True),
        click.option(
            "--cleaning",
            default="winner",
            show_default=True,
            help="Cleaning preset: none or winner.",
            shell_complete=one_of(word_of("none", "winner")),
        ),
        click.option(
            "--translations",
            type=click.Path(path_type=Path),
            help="CSV language,origin_query,translated_query with English translations.",
        ),
        click.option(
            "--relabel-unknown", is_flag=True, help="Queries marked en whose translation differs get the language unk."
        ),
        click.option("--limit", type=int, help="Use about this many training rows per task (whole queries)."),
        run_option,
    ]
    decorated: Any = command
    for option in reversed(options):
        decorated = option(decorated)
    return decorated  # type: ignore[no-any-return]


@main.command()
@click.argument("folder", type=click.Path(path_type=Path), required=False)
@click.option("--run", "run_dir", type=click.Path(path_type=Path), help="Write to the folder data/ of this run folder.")
@click.option("--train-rows", default=6000, show_default=True)
@click.option("--dev-rows", default=1500, show_default=True)
@click.option("--test-rows", default=1500, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--tasks", default="QC,QI", show_default=True)
@click.option(
    "--competition",
    help="Files of another competition: amazon-esci, home-depot, wdc-products (train and test).",
    shell_complete=one_of(contests),
)
@click.option("--answers", type=click.Path(path_type=Path), help="Write the hidden test labels to this CSV file.")
@format_option
@click.pass_context
def sample(
    ctx: click.Context,
    folder: Path | None,
    run_dir: Path | None,
    train_rows: int,
    dev_rows: int,
    test_rows: int,
    seed: int,
    tasks: str,
    competition: str | None,
    answers: Path | None,
    output: Any,
) -> None:
    """Write a made-up multilingual competition with a known signal to FOLDER, or to RUN/data."""
    import pandas as pd

    from competition.contest import BUILT_IN_CONTEST
    from competition.sample import write_sample
    from competition.sample_contests import write_contest_sample
    from pipelines.output import print_table

    if (folder is None) == (run_dir is None):
        raise click.UsageError("name a FOLDER, or --run DIR")
    data: Path = folder or run_dir / "data"  # type: ignore[operator]  # one of them is there
    if competition not in (None, BUILT_IN_CONTEST.name):
        asked = [name for name in ("dev_rows", "tasks", "answers") if ctx.get_parameter_source(name) in GIVEN]
        if asked:
            words = ", ".join(f"--{name.replace('_', '-')}" for name in asked)
            raise click.UsageError(f"{words}: the files of {competition} are one task's train and test")
        paths = write_contest_sample(competition, data, n_train=train_rows, n_test=test_rows, seed=seed)
        print_table(pd.DataFrame([{"path": str(path), "bytes": path.stat().st_size} for path in paths]), output)
        return
    summary = write_sample(
        data,
        n_train=train_rows,
        n_dev=dev_rows,
        n_test=test_rows,
        seed=seed,
        tasks=names_of(tasks),
        answers=answers,
    )
    print_table(pd.DataFrame([{**vars(file), "path": str(file.path)} for file in summary.files]), output)


main.add_command(check)


@main.command()
@settings_options
@format_option
@click.option("--shift", is_flag=True, help="Tell too what sets the rows to be judged apart from held-out rows.")
def split(run_dir: Path, output: Any, shift: bool, **options: Any) -> None:
    """Make a run folder: read, clean and translate the rows, and deal the folds, once."""
    from pipelines import prepare
    from pipelines.audit import adversarial_tables, fold_tables
    from pipelines.output import print_tables
    from pipelines.timing import timed

    run = run_folder(run_dir)
    with timed(run, "prepare"):
        prepare.prepare(run, _settings(**options, recipes="", overrides=()))
    with timed(run, "split"):
        prepare.split(run)
    print_tables({**fold_tables(run), **(adversarial_tables(run) if shift else {})}, output)


for _command in [
    *model_commands(),
    *ensemble_commands(),
    *selftraining_commands(),
    *translate_commands(),
    *estimate_commands(),
]:
    main.add_command(_command)


@main.command()
@run_option
@ensemble_option
@click.option("--split", type=click.Choice(["dev", "test"]), help="What to submit; test, or dev without a test.")
@click.option(
    "--name", default="final", show_default=True, help="Name of the submission.", shell_complete=one_of(submissions)
)
@click.option("--prior-matched", is_flag=True, help="Cut for the share of positives that the split's own scores tell.")
def submit(run_dir: Path, ensemble: str, split: str | None, name: str, prior_matched: bool) -> None:
    """Cut the scores at the threshold and write a validated submission."""
    _submit(run_folder(run_dir), ensemble, split, name, prior_matched=prior_matched)


@main.command()
@click.argument("path", type=click.Path(path_type=Path), shell_complete=or_file(submission_path))
@run_option
@click.option("--split", type=click.Choice(["dev", "test"]), help="The rows it is for; test, or dev without a test.")
@task_option
def validate(path: Path, run_dir: Path, split: str | None, task: str | None) -> None:
    """Check a submission (folder, zip, .txt or .csv) against the rows of a run: every id once, fields equal, 0/1."""
    from pipelines.comparing import validate_submission

    print(validate_submission(run_folder(run_dir), path, split=split, task=task))


@main.command()
@click.argument("first", type=click.Path(path_type=Path), shell_complete=or_file(submission_path))
@click.argument("second", type=click.Path(path_type=Path), shell_complete=or_file(submission_path))
@run_option
@click.option("--split", type=click.Choice(["dev", "test"]), help="The rows they are for.")
@task_option
@format_option
def compare(first: Path, second: Path, run_dir: Path, split: str | None, task: str | None, output: Any) -> None:
    """Where two submissions differ, in total and per language."""
    from pipelines.comparing import compare_submissions
    from pipelines.output import print_table

    print_table(compare_submissions(run_folder(run_dir), first, second, split=split, task=task), output)


@main.command()
@run_option
@click.option("--by", type=click.Choice(["model", "language"]), default="model", show_default=True)
@task_option
@format_option
def leaderboard(run_dir: Path, by: str, task: str | None, output: Any) -> None:
    """Every base learner and ensemble with its cross-fitted F1; --by language: F1 on the labelled dev file."""
    from pipelines.output import print_table, print_tables
    from pipelines.scoreboard import dev_table
    from pipelines.scoreboard import leaderboard as make_board

    run = run_folder(run_dir)
    names = [each.name for each in run.tasks_named(task)]
    if by == "language":
        print_tables({f"{name}: F1 on dev": dev_table(run, name) for name in names}, output)
        return
    board = make_board(run).of_tasks(names)
    if output == "json":
        print(board.to_json())
        return
    print_table(board.to_frame(), output, important=LEADING)


main.add_command(status)


main.add_command(report)


@main.command()
@settings_options
@click.option(
    "--recipes",
    default=DEFAULT_RECIPES,
    show_default=True,
    help="Base learners: names or .toml files.",
    shell_complete=or_file(list_of(recipes)),
)
@set_option
@engine_options
@tracker_option
@plan_options
@format_option
def run(
    run_dir: Path,
    engine: str,
    workers: int | None,
    cpus: int | None,
    memory: float | None,
    address: str | None,
    slurm: str | None,
    dry_run: bool,
    rates_from: tuple[Path, ...],
    gpus: str | None,
    output: Any,
    **options: Any,
) -> None:
    """Do everything: read, clean, split, train every base learner, stack, blend, submit, leaderboard, report."""
    from pipelines.engine import run_all
    from pipelines.engines.protocol import EngineOptions
    from pipelines.output import print_table

    folder, settings = run_folder(run_dir), _settings(**options)
    where = EngineOptions(workers, cpus, address, pairs_of(slurm or ""), memory)
    if dry_run:
        show_plan(folder, settings, output=output, rates_from=rates_from, gpus=gpus, engine=engine, workers=workers)
        return
    board = run_all(folder, settings, engine=engine, options=where)
    if output == "json":
        print(board.to_json())
    else:
        print_table(board.to_frame(), output, important=LEADING)
    _submit(folder, "best", None, "final", board=board)
    _report(folder)


for _command in [*scoring_commands(), *handover_commands(), *integrity_commands()]:
    main.add_command(_command)

main.add_command(completion)


def _submit(
    run: "RunFolder",
    ensemble: str,
    split: str | None,
    name: str,
    *,
    prior_matched: bool = False,
    board: "Leaderboard | None" = None,
) -> None:
    from pipelines.output import say
    from pipelines.submitting import submit as make_submission
    from pipelines.timing import timed

    with timed(run, "submit"):
        files = make_submission(run, choice=ensemble, split=split, name=name, prior_matched=prior_matched, board=board)
    say(f"validation {files.validation}")
    paths = [*files.texts.values(), *files.csvs.values(), *([files.zip] if files.zip else [])]
    say("\n".join(str(path) for path in paths))


def _report(run: "RunFolder") -> None:
    from pipelines.output import say
    from pipelines.report.writing import report as make_report
    from pipelines.timing import timed

    with timed(run, "report"):
        path = make_report(run)
    say(f"report {path}")


def _settings(**options: Any) -> "RunSettings":
    from pydantic import ValidationError

    from competition.errors import CompetitionError, Fault
    from pipelines.contests import asked_contest, tasks_of
    from pipelines.run_folder import RunSettings

    options["competition"] = asked_contest(options["competition"], options["data"])
    texts = {key: str(value.resolve()) for key, value in options.items() if isinstance(value, Path)}
    lists = {"tasks": tasks_of(options["competition"], options["tasks"]), "recipes": names_of(options["recipes"])}
    try:
        return RunSettings.model_validate({**options, **texts, **lists})
    except ValidationError as error:
        faults = [Fault(f"--{'.'.join(map(str, e['loc']))}", f"{e['msg']}, not {e['input']!r}") for e in error.errors()]
        raise CompetitionError(
            "these options cannot be", faults=faults, advice="relstack COMMAND --help lists what they may be"
        ) from error


if __name__ == "__main__":
    sys.exit(main())
