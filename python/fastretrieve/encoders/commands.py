"""``fastretrieve encoders``: list them, check one, write a package for a new one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fastretrieve.encoders.discovery import Plugin, list_encoders
from fastretrieve.encoders.errors import EncoderError
from fastretrieve.encoders.registry import check_plugins
from fastretrieve.encoders.scaffold import write_package

app = typer.Typer(
    help="List the installed encoders, check one, or start a new one.\n\n"
    "Example: fastretrieve encoders --check",
    invoke_without_command=True,
    add_completion=False,
    rich_markup_mode="rich",
)

_COLOURS = {"available": "green", "broken": "red", "disabled": "dim", "ambiguous": "yellow"}
_OUTCOMES = {"passed": "green", "failed": "red", "not declared": "dim"}


@app.callback()
def show(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Import each one, in a process of its own.")
    ] = False,
) -> None:
    """List the installed encoders; none is imported unless --check is given.

    Example: fastretrieve encoders --check
    """
    if context.invoked_subcommand is not None:
        return
    plugins = check_plugins() if check else list_encoders()
    if as_json:
        typer.echo(json.dumps([plugin._asdict() for plugin in plugins], indent=2))
    else:
        _console().print(_listing(plugins))


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="The encoder's name, such as my-encoder.")],
    folder: Annotated[Path | None, typer.Option(help="Where to write the package.")] = None,
) -> None:
    """Write a complete package with a new encoder: pyproject, module and tests.

    Example: fastretrieve encoders new my-encoder
    """
    try:
        made = write_package(name, folder)
    except EncoderError as error:
        raise _failure(str(error)) from error
    typer.echo(f"Wrote {made}. Next:")
    typer.echo(f"  pip install -e '{made}[test]' && pytest {made}")


@app.command("check")
def check_one(
    encoder: Annotated[str, typer.Argument(help="A name, or ./my.py:MyEncoder.")],
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Check an encoder against every promise of the protocol; exit status 1 if it breaks one.

    Example: fastretrieve encoders check ./my.py:MyEncoder
    """
    from fastretrieve.encoders.checking.suite import run_checks
    from fastretrieve.encoders.registry import create_encoder

    try:
        create_encoder(encoder)
    except EncoderError as error:
        raise _failure(str(error)) from error
    results = run_checks(encoder)
    if as_json:
        typer.echo(json.dumps([result._asdict() for result in results], indent=2))
    else:
        table = Table("check", "outcome", "reason", box=None)
        for result in results:
            outcome = f"[{_OUTCOMES[result.outcome]}]{result.outcome}[/]"
            table.add_row(result.check, outcome, escape(result.reason))
        _console().print(table)
    if any(result.outcome == "failed" for result in results):
        raise typer.Exit(1)


def _listing(plugins: list[Plugin]) -> Table:
    table = Table("encoder", "from", "state", "reason", box=None)
    for plugin in plugins:
        state = f"[{_COLOURS[plugin.status]}]{plugin.status}[/]"
        source = f"{plugin.distribution} {plugin.version}"
        table.add_row(escape(plugin.name), escape(source), state, escape(plugin.reason))
    return table


def _console() -> Console:
    console = Console()
    # In a pipe, rich would cut reasons at 80 columns.
    return console if console.is_terminal else Console(width=1000)


def _failure(message: str) -> typer.Exit:
    typer.echo(f"Error: {message}", err=True)
    return typer.Exit(1)
