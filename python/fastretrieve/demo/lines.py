"""The demo's lines of output: a topic, then the text."""

from rich.console import Console
from rich.markup import escape

WIDTH = 10


def say(console: Console, topic: str, text: str) -> None:
    """Print one line, uncut, so that it can be copied."""
    console.print(f"[bold cyan]{topic:<{WIDTH}}[/]{escape(text)}", soft_wrap=True)
