"""Shell completion: which names fit an option of a command.

It runs at every press of the tab key, so it reads names of folders and imports nothing heavy. Paths of a run folder are
spelled here besides `pipelines.run_folder`, which would bring pandas along; a test compares the two.
"""

import re
from collections.abc import Callable, Iterable
from pathlib import Path

import click
from click.shell_completion import CompletionItem

Source = Callable[[click.Context], Iterable[str]]
Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]

PACKAGE = Path(__file__).parent
TASKS = ("QC", "QI")
TRACKERS = ("trackio", "mlflow", "wandb")
PLANS = (
    "auto",
    "category-group",
    "query-group",
    "column-group",
    "purged",
    "language-holdout",
    "family-holdout",
    "test-matched",
)
SAFE = re.compile(r"[\w][\w.+-]*")
COMBINERS = (
    "best-single",
    "mean",
    "rank-mean",
    "logit-mean",
    "hard-vote",
    "greedy",
    "convex",
    "logistic",
    "logistic-by-language",
    "stack",
    "blend",
)


def one_of(*sources: Source) -> Completer:
    """What completes an option that takes one name: those of all sources that begin with what is typed."""

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(name) for name in _known(ctx, sources) if name.startswith(incomplete)]

    return complete


def list_of(*sources: Source) -> Completer:
    """What completes the last name of a comma-separated list; names before it are not offered again."""

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        before, comma, last = incomplete.rpartition(",")
        taken = before.split(",")
        fitting = [name for name in _known(ctx, sources) if name.startswith(last) and name not in taken]
        return [CompletionItem(before + comma + name) for name in fitting]

    return complete


def or_file(completer: Completer) -> Completer:
    """What completes an option that takes a name or a path: files, where no name fits."""

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return completer(ctx, param, incomplete) or [CompletionItem(incomplete, type="file")]

    return complete


def word_of(*words: str) -> Source:
    """A source that offers the same words in every run."""
    return lambda ctx: words


def recipes(ctx: click.Context) -> list[str]:
    """Recipes that come with relstack."""
    return _stems(PACKAGE / "recipes")


def translation_recipes(ctx: click.Context) -> list[str]:
    """Translation recipes that come with relstack."""
    return _stems(PACKAGE / "translation" / "recipes")


def tasks(ctx: click.Context) -> list[str]:
    """Tasks of the run, or the built-in ones."""
    return _folders(ctx, "rows") or list(TASKS)


def trained(ctx: click.Context) -> list[str]:
    """Base learners that have parts in the run."""
    return _of_task(ctx, "parts")


def ensembles(ctx: click.Context) -> list[str]:
    """Ensembles of the run."""
    return _of_task(ctx, "ensembles")


def students(ctx: click.Context) -> list[str]:
    """Distilled students of the run."""
    return _of_task(ctx, "students")


def pretrained(ctx: click.Context) -> list[str]:
    """Weights that `relstack pretrain` made in the run."""
    return _of_task(ctx, "pretrained")


def submissions(ctx: click.Context) -> list[str]:
    """Submissions of the run."""
    return _folders(ctx, "submissions")


def contests(ctx: click.Context) -> list[str]:
    """Contests that come with relstack."""
    return _stems(PACKAGE.parent / "competition" / "contests")


def folds(ctx: click.Context) -> list[str]:
    """Folds of the run, counted from 0; of five without a run."""
    return [str(fold) for fold in range(_n_folds(ctx))]


def submission_path(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Paths of the run's submissions."""
    run = _run(ctx)
    paths = [str(run / "submissions" / name) for name in submissions(ctx)] if run else []
    return [CompletionItem(path) for path in paths if path.startswith(incomplete)]


def _known(ctx: click.Context, sources: Iterable[Source]) -> list[str]:
    """Names of all sources, each once, none that a shell could take for more than a name."""
    names = dict.fromkeys(name for source in sources for name in source(ctx))
    return [name for name in names if SAFE.fullmatch(name)]


def _run(ctx: click.Context) -> Path | None:
    """The run folder, where the command line names it so far."""
    root = ctx.params.get("run_dir")
    return Path(root) if root else None


def _of_task(ctx: click.Context, kind: str) -> list[str]:
    """Names of ``RUN/kind/TASK/*``, of all tasks where the command line names none."""
    run, task = _run(ctx), ctx.params.get("task")
    if run is None:
        return []
    chosen = [task] if task else _folders(ctx, kind)
    return sorted({name for each in chosen for name in _listed(run / kind / each)})


def _folders(ctx: click.Context, kind: str) -> list[str]:
    run = _run(ctx)
    return _listed(run / kind) if run else []


def _listed(folder: Path) -> list[str]:
    """Names of the folders in `folder` but the hidden ones; none where it cannot be read."""
    try:
        return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError:
        return []


def _stems(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.toml"))


def _n_folds(ctx: click.Context) -> int:
    import tomllib

    run = _run(ctx)
    try:
        settings = tomllib.loads((run / "run.toml").read_text(encoding="utf-8")) if run else {}
    except (OSError, ValueError):
        settings = {}
    found = settings.get("folds", 5)
    return found if isinstance(found, int) and 0 < found <= 100 else 5
