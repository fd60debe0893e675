"""The demo's lines: a word that says what it is about, then what there is to say."""

from rich.console import Console
from rich.markup import escape

WIDTH = 10


def say(console: Console, topic: str, text: str) -> None:
    """One line; it is not cut, so that what stands there can be copied."""
    console.print(f"[bold cyan]{topic:<{WIDTH}}[/]{escape(text)}", soft_wrap=True)
