"""Damage galleries for as long as you like: ``python tests/fuzz/fuzz_gallery.py --minutes 10``.

Prints what it found and exits with 1 at the first call that neither works nor is refused with an
error of the house, or hangs; the files of that gallery are then in ``gallery``, where
``tests/test_gallery_received.py`` tries them ever after. ``--keep`` adds the files of one gallery
for every kind of error that is not there yet.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from pathlib import Path

from campaign import Campaign  # first: it says where the modules below are

import gallery_fuzz


def kind(outcome: str) -> str:
    """An outcome without its paths, numbers and quotations."""
    return re.sub(r"/\S*/|'.*|\[.*|\d+(\.\d+)?", "#", outcome)[:70]


def main() -> int:
    """Fuzz until the time is over; 1 where something else than an answer came."""
    campaign = Campaign(__doc__, kind, "galleries")
    campaign.start()
    with tempfile.TemporaryDirectory() as top:
        seed, received, used = gallery_fuzz.seed(Path(top)), Path(top, "received"), Path(top, "g")
        while campaign.goes_on():
            gallery_fuzz.damaged(seed, used, campaign.chance)
            shutil.rmtree(received, ignore_errors=True)
            shutil.copytree(used, received)
            found = gallery_fuzz.outcomes(used)
            bad = [outcome for outcome in found if not gallery_fuzz.is_an_answer(outcome)]
            if bad:
                gallery_fuzz.keep(received, seed, campaign.crash_name())
                return campaign.fault(bad)
            new = [each for each in found if kind(each) not in campaign.kinds]
            if campaign.count(*found):
                gallery_fuzz.keep(received, seed, campaign.file_name(new[0]))
    return campaign.over()


if __name__ == "__main__":
    sys.exit(main())
