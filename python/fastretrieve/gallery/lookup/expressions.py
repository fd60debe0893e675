"""From a text to what it asks of the written words: ``boot NOT (child OR "rain coat")``, ``wint*``.

Any text asks for something. Words, phrases in quotes, ``AND``, ``OR``, ``NOT``, parentheses and a
``*`` at the end of a word are understood where they fit together; of any other text all words are
asked for, these among them. SQLite never sees the text: only words that ``spelling.py`` made of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple, TypeAlias

from fastretrieve.gallery.store.spelling import is_spaceless, words

Joined: TypeAlias = Literal["AND", "OR"]
FEWEST_LOOSE = 4  # characters of a script without spaces, from which on not all must follow
_PARTS = re.compile(r'"([^"]*)"(\*?)|([()])|([^\s()"]+)|(")')
_QUOTES = str.maketrans("“”„‟«»＂", '"' * 7)
_JOIN = "join"  # between neighbours; it binds more tightly than AND and OR
_TIGHTNESS = {"OR": 1, "AND": 2, _JOIN: 3, "NOT": 4}


class Asked(NamedTuple):
    """Words that follow each other."""

    words: tuple[str, ...]
    is_beginning: bool = False  # of which the last one is only begun
    is_quoted: bool = False

    @property
    def is_loose(self) -> bool:
        """Whether it is a long piece of a script without spaces: it may hold several words that
        stand in another order, or with others between them.
        """
        is_long = len(self.words) >= FEWEST_LOOSE and not self.is_quoted
        return is_long and all(map(is_spaceless, self.words))


Step = Asked | str  # a leaf, or "AND", "OR", "NOT" of what stands before it
Expression = list[Step]


def parsed(text: str, *, joined: Joined = "AND") -> Expression:
    """What a text asks for, operators behind what they work on. ``joined`` says how words that
    stand side by side belong together. Empty where the text has no words.

    >>> [str(step) if isinstance(step, str) else step.words[0] for step in parsed("boot NOT child")]
    ['boot', 'child', 'NOT', 'AND']
    >>> [step if isinstance(step, str) else step.words for step in parsed("red_boot AND")]
    [('red', 'boot'), ('and',), 'AND']
    """
    found = _expression(_symbols(text.translate(_QUOTES)), joined)
    if found is None:  # words between the quotes and brackets, and those that are no operators now
        found = _expression(iter(_leaves(text)), joined)
    return found or []


def _leaves(text: str) -> list[Step]:
    """Every word, as plain words."""
    parts = re.split(r'[\s()"]+', text.translate(_QUOTES))
    return [Asked(tuple(found)) for part in parts if (found := words(part))]


def _symbols(text: str) -> Iterator[Step]:
    """Leaves, operators and brackets; what holds no word is left out."""
    for quoted, star, bracket, part, lone in _PARTS.findall(text):
        if bracket or lone or part in ("AND", "OR", "NOT"):
            yield bracket or lone or part
        elif found := tuple(words(part or quoted)):
            yield Asked(found, bool(star) or part.endswith("*"), not part)


def _expression(symbols: Iterator[Step], joined: Joined) -> Expression | None:
    """Dijkstra's shunting yard: no depth of brackets takes a stack of calls. None where the symbols
    do not fit together.
    """
    done: Expression = []
    waiting: list[str] = []  # operators and open brackets
    is_begun = False  # whether something stands before, on which an operator could work

    def settle(tightness: int) -> None:
        while waiting and waiting[-1] != "(" and _TIGHTNESS[waiting[-1]] >= tightness:
            operator = waiting.pop()
            done.append(joined if operator == _JOIN else operator)

    for symbol in symbols:
        opens = isinstance(symbol, Asked) or symbol in ("NOT", "(")
        if opens and is_begun:
            # "red boot NOT child": what is excluded is excluded from all before it.
            operator = "AND" if symbol == "NOT" else _JOIN
            settle(_TIGHTNESS[operator])
            waiting.append(operator)
        elif opens == is_begun or symbol == '"':
            return None
        if isinstance(symbol, Asked):
            done.append(symbol)
        elif symbol == ")":
            settle(0)
            if not waiting:
                return None
            waiting.pop()
        else:
            settle(_TIGHTNESS[symbol]) if symbol in ("AND", "OR") else None
            waiting.append(symbol)
        is_begun = isinstance(symbol, Asked) or symbol == ")"
    settle(0)
    return done if is_begun and not waiting else None


def excluded(expression: Expression) -> list[bool]:
    """Which leaves of an expression stand under an odd number of NOTs, in order."""
    stack: list[list[int]] = []  # the leaves in each part that is not joined yet
    signs: list[bool] = []
    for step in expression:
        if isinstance(step, Asked):
            stack.append([len(signs)])
            signs.append(False)
        elif step == "NOT":
            for leaf in stack[-1]:
                signs[leaf] = not signs[leaf]
        else:
            last = stack.pop()
            stack[-1] += last
    return signs
