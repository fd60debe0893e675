"""The command ``fastretrieve``: a table of verbs, each imported only when it is called.

A verb is a function for typer or a whole ``typer.Typer`` in the module that owns the feature. Its
one line of help stands here, so that ``fastretrieve --help`` imports none of them.
"""

import importlib
import os
import sys
from typing import Any, NamedTuple

import typer
import typer.core


class Verb(NamedTuple):
    target: str  # "module:attribute"
    help: str


VERBS = {
    "demo": Verb(
        "fastretrieve.demo.command:demo", "Train on real pictures, search, draw what was found."
    ),
    "train": Verb("fastretrieve.training.commands:train", "Train an encoder on your images."),
    "index": Verb("fastretrieve.gallery.commands:index", "Make a gallery of images."),
    "add": Verb("fastretrieve.gallery.commands:add", "Add to a gallery; only what is new."),
    "update": Verb("fastretrieve.gallery.commands:update", "Bring a gallery up to its files."),
    "remove": Verb("fastretrieve.gallery.commands:remove", "Remove items from a gallery."),
    "forget": Verb("fastretrieve.gallery.commands:forget", "Erase items of a gallery for good."),
    "copy": Verb("fastretrieve.gallery.commands:copy", "Copy a gallery, also a live one."),
    "refit": Verb(
        "fastretrieve.gallery.commands:refit", "Fit the encoder of a gallery to what it holds."
    ),
    "search": Verb("fastretrieve.gallery.asking:search", "Search a gallery by an image."),
    "find": Verb("fastretrieve.gallery.asking:find", "Find items by words written about them."),
    "explain": Verb("fastretrieve.gallery.explaining:explain", "Say why an item matched."),
    "style": Verb("fastretrieve.gallery.styling:style", "Fit a style of queries to a gallery."),
    "duplicates": Verb("fastretrieve.gallery.asking:duplicates", "Find what is nearly the same."),
    "clusters": Verb(
        "fastretrieve.gallery.clustering_command:clusters", "Group a gallery by likeness."
    ),
    "evaluate": Verb("fastretrieve.gallery.asking:evaluate", "Say how well labels are found."),
    "info": Verb("fastretrieve.gallery.inspecting:info", "Say what a gallery holds; check it."),
    "export": Verb("fastretrieve.gallery.commands:export", "Write vectors and items."),
    "serve": Verb("fastretrieve.server.commands:serve", "Open a page to search with images."),
    "encoders": Verb("fastretrieve.encoders.commands:app", "List, check or start encoders."),
    "bench": Verb(
        "fastretrieve.benchmarking.command:bench", "Measure speed here, beside the peers."
    ),
    "doctor": Verb(
        "fastretrieve.machine.doctor:doctor", "Say what this machine and this build can do."
    ),
}


def load(name: str) -> Any:
    """Import the verb ``name`` and make its command."""
    module, _, attribute = VERBS[name].target.partition(":")
    verb = getattr(importlib.import_module(module), attribute)
    if not isinstance(verb, typer.Typer):
        function, verb = verb, typer.Typer(add_completion=False, rich_markup_mode="rich")
        verb.command(name, help=function.__doc__)(function)
    return typer.main.get_command(verb)


class LazyGroup(typer.core.TyperGroup):
    """Knows every verb's name and help, and the verb itself only when it runs."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] in VERBS:
            self.commands[args[0]] = load(args[0])
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=LazyGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Exact nearest neighbours, fast.",
)


def _placeholder() -> None:
    """Stands for a verb in the help until ``LazyGroup`` loads it."""


for _name, _verb in VERBS.items():
    app.command(_name, help=_verb.help)(_placeholder)


def _version(show: bool) -> None:
    if show:
        from importlib.metadata import version

        typer.echo(version("fastretrieve"))
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    """Exact nearest neighbours, fast."""


def main() -> None:
    """Run the command line. An error is one sentence; FASTRETRIEVE_DEBUG=1 shows where it arose."""
    try:
        app(prog_name="fastretrieve")
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        told = str(error)
        if isinstance(error, ImportError):
            from fastretrieve._common.needs import MissingPackage, sentence

            if not isinstance(error, MissingPackage):
                told = sentence(error) or ""
        if os.environ.get("FASTRETRIEVE_DEBUG") or not told:
            raise
        typer.echo(f"fastretrieve: {told}", err=True)
        sys.exit(1)
