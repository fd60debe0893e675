"""Damage galleries for as long as you like: ``python tests/fuzz/fuzz_gallery.py --minutes 10``.

Prints what it found and exits with 1 at the first call that neither works nor is refused with an
error of the house, or hangs; the files of that gallery are then in ``gallery``, where
``tests/test_gallery_received.py`` tries them ever after. ``--keep`` adds the files of one gallery
for every kind of error that is not there yet.
"""

from __future__ import annotations

import argparse
import random
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
import gallery_fuzz


def kind(outcome: str) -> str:
    """An outcome without its paths, numbers and quotations."""
    return re.sub(r"/\S*/|'.*|\[.*|\d+(\.\d+)?", "#", outcome)[:70]


def main() -> int:
    """Fuzz until the time is over; 1 where something else than an answer came."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args()
    chance, kinds, n = random.Random(options.seed), Counter[str](), 0
    end = time.monotonic() + 60 * options.minutes
    with tempfile.TemporaryDirectory() as top:
        seed = gallery_fuzz.seed(Path(top))
        while time.monotonic() < end:
            gallery_fuzz.damaged(seed, Path(top, "g"), chance)
            shutil.rmtree(Path(top, "as it was"), ignore_errors=True)
            shutil.copytree(Path(top, "g"), Path(top, "as it was"))
            n += 1
            found = gallery_fuzz.outcomes(Path(top, "g"))
            bad = [outcome for outcome in found if not gallery_fuzz.is_an_answer(outcome)]
            new = [each for each in found if not kinds[kind(each)]]
            kinds.update(set(map(kind, found)))
            if bad:
                gallery_fuzz.keep(Path(top, "as it was"), seed, f"crash-{options.seed}-{n}")
                print(f"after {n} galleries: {bad}")
                return 1
            if options.keep and new:
                name = re.sub(r"[^a-z]+", "-", kind(new[0]).lower()).strip("-")[:48]
                gallery_fuzz.keep(Path(top, "as it was"), seed, name)
    print(f"{n} galleries, {len(kinds)} kinds of outcome:")
    for outcome, times in kinds.most_common():
        print(f"{times:8}  {outcome}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
