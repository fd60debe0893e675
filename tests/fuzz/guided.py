"""The file reader under a fuzzer that sees which lines run: atheris, with libFuzzer's options.

    pip install atheris
    python tests/fuzz/guided.py -max_total_time=600 tests/fuzz/corpus

Half of what it makes up gets a header whose checksum fits, so that what lies behind is reached.
``fuzz_storage.py`` needs no atheris and damages whole files in ways that it knows. Keep no more of
what it adds to the corpus than differs: ``-merge=1 new-folder tests/fuzz/corpus``.
"""

from __future__ import annotations

import inspect
import random
import sys
import tempfile
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parent.parent))
import storage_fuzz
from fastretrieve._files import indexfile, tensorfile
from fastretrieve._files import saving as storage

PATH = Path(tempfile.mkdtemp()) / "damaged"
SEEDS = storage_fuzz.seeds(PATH.parent)


def mutated(data: bytes, max_size: int, seed: int) -> bytes:
    """What comes next: libFuzzer's own idea, or one of ours."""
    chance = random.Random(seed)
    if len(data) < 9 or chance.random() < 0.02:
        data = chance.choice(SEEDS)
    if chance.random() < 0.5:
        return storage_fuzz.damaged(data, chance)[:max_size]
    changed = atheris.Mutate(data, min(len(data) + 64, max_size))
    return storage_fuzz.fitted(changed)[:max_size] if chance.random() < 0.5 else changed


def one(data: bytes) -> None:
    """An index that can be used, or an error that says what is wrong."""
    outcome = storage_fuzz.survives(data, PATH)
    if not storage_fuzz.is_an_answer(outcome):
        raise AssertionError(outcome)


def watch() -> None:
    """Let the fuzzer see the lines of the reader; an editable install hides imports from it."""
    for owner in (tensorfile, indexfile, indexfile.IndexFacts, storage):
        for thing in vars(owner).values():
            if inspect.isfunction(thing):
                atheris.instrument_func(thing)


if __name__ == "__main__":
    watch()
    atheris.Setup(sys.argv, one, custom_mutator=mutated)
    atheris.Fuzz()
