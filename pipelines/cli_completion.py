"""The command that prints what makes a shell complete our names."""

import click

NAME = "relstack"
VARIABLE = "_RELSTACK_COMPLETE"
INSTALL = {
    "bash": "relstack completion bash > ~/.relstack.bash && echo '. ~/.relstack.bash' >> ~/.bashrc",
    "zsh": "relstack completion zsh > ~/.relstack.zsh && echo '. ~/.relstack.zsh' >> ~/.zshrc",
    "fish": "relstack completion fish > ~/.config/fish/completions/relstack.fish",
}


@click.command()
@click.argument("shell", type=click.Choice(list(INSTALL)))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a shell; its last line says how to install it.

    It knows commands, options, recipes, and a run's base learners, folds, ensembles, tasks, submissions and students
    once --run stands on the line.
    """
    from click.shell_completion import get_completion_class

    shell_class = get_completion_class(shell)
    if shell_class is None:
        raise click.UsageError(f"click completes nothing in {shell}")
    script = shell_class(ctx.find_root().command, {}, NAME, VARIABLE).source()
    # click's script for fish cuts a value at its first comma, and our lists are comma-separated
    script = script.replace('string split "," $completion', 'string split --max 1 "," $completion')
    click.echo(f"{script.rstrip()}\n# install: {INSTALL[shell]}")
