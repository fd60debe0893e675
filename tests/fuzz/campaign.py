"""What the fuzz scripts share: their options, their clock, and the count of what came out."""

from __future__ import annotations

import argparse
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))  # where the makers of damage are


class Campaign:
    """One run of a fuzz script: by a seed, until its time is over.

    Args:
        about: The script's description, for ``--help``.
        kind: Maps an outcome to its kind, without what differs from file to file.
        things: What is damaged, in the plural, for the report.
    """

    def __init__(self, about: str | None, kind: Callable[[str], str], things: str) -> None:
        self.parser = argparse.ArgumentParser(
            description=about, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        self.parser.add_argument("--minutes", type=float, default=1)
        self.parser.add_argument("--seed", type=int, default=0)
        self.parser.add_argument("--keep", action="store_true")
        self.kind, self.things = kind, things
        self.kinds, self.n_tried, self.note = Counter[str](), 0, ""

    def start(self) -> argparse.Namespace:
        """Read the options and start the clock."""
        self.options = self.parser.parse_args()
        self.chance = random.Random(self.options.seed)
        self.end = time.monotonic() + 60 * self.options.minutes
        return self.options

    def goes_on(self) -> bool:
        """Whether there is time for one more."""
        return time.monotonic() < self.end

    def count(self, *outcomes: str) -> bool:
        """Count what one trial gave; True where one is new and ``--keep`` asks to keep it."""
        found = {self.kind(outcome) for outcome in outcomes}
        is_new = any(kind not in self.kinds for kind in found)
        self.kinds.update(found)
        self.n_tried += 1
        return is_new and bool(self.options.keep)

    def file_name(self, outcome: str) -> str:
        """The name under which an outcome's cause is kept."""
        return re.sub(r"[^a-z]+", "-", self.kind(outcome).lower()).strip("-")[:48]

    def crash_name(self) -> str:
        """The name under which the cause of a fault is kept."""
        return f"crash-{self.options.seed}-{self.n_tried}"

    def fault(self, outcome: object) -> int:
        """Tell what went wrong; the script's exit status."""
        print(f"after {self.n_tried} {self.things}: {self.crash_name()}: {outcome}")
        return 1

    def over(self) -> int:
        """Tell what came out, the most frequent first; the script's exit status."""
        print(f"{self.n_tried} {self.things}, {len(self.kinds)} kinds of outcome{self.note}:")
        for kind, times in self.kinds.most_common(40):
            print(f"{times:8}  {kind}")
        return 0
