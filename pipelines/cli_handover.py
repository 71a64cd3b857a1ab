"""Commands that hand a run over: card, export, apply, upload."""

from pathlib import Path

import click

from pipelines.cli_options import ensemble_option, run_folder, run_option, submission_option


def handover_commands() -> list[click.Command]:
    """The commands of this file, in the order of the work."""
    return [card, export, apply, upload]


@click.command()
@run_option
@submission_option
@click.option("--out", type=click.Path(path_type=Path), help="A new folder; RUN/cards/SUBMISSION if left out.")
@click.option("--dataset", "datasets", multiple=True, help="A data set on the hub that the card names. Repeatable.")
def card(run_dir: Path, submission: str, out: Path | None, datasets: tuple[str, ...]) -> None:
    """Write a model card of a submission, and beside it what makes the same submission again: reproduce.sh."""
    from pipelines.handover.card import card as write_card

    print(write_card(run_folder(run_dir), submission=submission, out=out, datasets=datasets))


@click.command()
@run_option
@click.option("--out", required=True, type=click.Path(path_type=Path), help="A new folder, or FILE.zip.")
@ensemble_option
@click.option("--max-mb", type=click.FloatRange(min=0, min_open=True), help="What the contest allows, in MB unpacked.")
def export(run_dir: Path, out: Path, ensemble: str, max_mb: float | None) -> None:
    """Write the contest's code package: weights, scripts/predict.sh, scripts/train.sh, requirements, the source.

    Its predict.sh gives the run's own submission where it is given the run's own files.
    """
    from pipelines.handover.exporting import export as write_package

    limit = None if max_mb is None else int(max_mb * 10**6)
    print(write_package(run_folder(run_dir), out, choice=ensemble, max_bytes=limit))


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="A new folder for the submission.")
@click.option("--split", type=click.Choice(["dev", "test"]), help="What to score; test, or dev without a test.")
def apply(model: Path, data: Path, out: Path, split: str | None) -> None:
    """Score the contest's files in DATA with an exported MODEL, and write the validated submission."""
    from pipelines.handover.model import apply as score_files

    files = score_files(model, data, out, split=split)
    click.echo(f"validation {files.validation}", err=True)
    print(files.folder)


@click.command()
@run_option
@submission_option
@click.option("--to", "address", required=True, metavar="HOST:CONTEST", help="kaggle:CONTEST.")
@click.option("--file", help="One of the submission's files; its CSV if there is one task, else the zip.")
@click.option("--message", default="", help="What the host keeps beside it; the submission's name if left out.")
@click.option("--max-mb", type=click.FloatRange(min=0, min_open=True), default=100, show_default=True)
@click.option("--dry-run", is_flag=True, help="Check everything, send nothing.")
def upload(
    run_dir: Path, submission: str, address: str, file: str | None, message: str, max_mb: float, dry_run: bool
) -> None:
    """Send a submission to a contest's host; rows, format, size, earlier uploads and what is left today are checked.

    Credentials are those of the host's own package. Exit code 75: the host does not answer, try again.
    """
    from pipelines.handover.hosts import host_of
    from pipelines.handover.uploading import check_upload
    from pipelines.handover.uploading import upload as send

    run, (host, competition) = run_folder(run_dir), host_of(address)
    limit = int(max_mb * 10**6)
    checked = check_upload(run, host, competition, submission=submission, file=file, max_bytes=limit)
    click.echo(str(checked), err=True)
    if dry_run:
        click.echo("nothing was sent", err=True)
        return
    print(send(run, host, competition, checked=checked, message=message or submission).said)
