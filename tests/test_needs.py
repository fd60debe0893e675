"""Where a package is missing, one line says what to install, and it is never fastretrieve."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fastretrieve._common.needs import NEEDS, MissingPackage, remedy, wanting

REMEDY = "pip install torch pillow safetensors"
BLOCKED = """
import contextlib, io, json, sys
blocked, works = sys.argv[1], json.loads(sys.argv[2])
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == blocked:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocker())
from fastretrieve.cli import main
told = []
for work in works:
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        try:
            if isinstance(work, str):
                exec(work, {})
            else:
                sys.argv = ["fastretrieve", *work]
                main()
            told.append("nothing")
        except SystemExit as error:
            told.append(f"exit {error.code}: {said.getvalue().strip()}")
        except Exception as error:
            told.append(f"{type(error).__name__}: {error}")
print(json.dumps(told))
"""

VERBS = [["train", "x", "--out", "y"], ["train", "--help"], ["encoders", "check", "pixels"]]
CALLS = [
    "import fastretrieve as fr; fr.train",
    "from fastretrieve.training import train",
    "from fastretrieve.testing import check_encoder; check_encoder('pixels')",
]
OF_TORCH = [
    "import fastretrieve as fr; fr.create_encoder('cnn')",
    "import fastretrieve as fr; fr.create_encoder('module:a.b')",
    "from fastretrieve.encoders import TorchEncoder",
    "from fastretrieve.encoders import as_encoder\n"
    "class Net:\n"
    "    def forward(self): pass\n"
    "as_encoder(Net())",
]
OF_PILLOW = [
    ["index", "g", "."],
    ["search", "g", "q.png"],
    ["info", "g"],
    ["serve", "g"],
    "import fastretrieve as fr; fr.create_encoder('pixels')",
    "import fastretrieve as fr; fr.Gallery",
    "import fastretrieve as fr; fr.open_dataset",
    "import fastretrieve as fr; fr.evaluate",
    "from fastretrieve.encoders import image_batch",
]
OF_SAFETENSORS = [
    "import fastretrieve as fr; fr.Gallery.create('g', encoder='pixels')",
    "import fastretrieve as fr; fr.create_encoder('pixels', image_size=4).save('e')",
]
WORK = {
    "torch": [*VERBS, *CALLS, *OF_TORCH],
    "PIL": [*VERBS, *CALLS, *OF_PILLOW],
    "safetensors": [*VERBS, *CALLS, *OF_SAFETENSORS],
}


@pytest.mark.parametrize("module", WORK)
def test_what_is_missing_is_said_in_one_line(module: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED, module, json.dumps(WORK[module])],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    package = NEEDS["networks"][module]
    for work, told in zip(WORK[module], json.loads(done.stdout), strict=True):
        assert told.endswith(f"needs {package}, which is not installed; {REMEDY}"), (work, told)
        assert "\n" not in told, (work, told)
        assert told.startswith("exit 1: ") or isinstance(work, str), (work, told)
    assert "Traceback" not in done.stderr


def test_no_remedy_installs_fastretrieve() -> None:
    package = Path(__file__).parent.parent / "python" / "fastretrieve"
    for path in package.rglob("*.py"):
        assert not re.search(r"pip install[^\n]*fastretrieve", path.read_text()), path
    for feature in NEEDS:
        assert "fastretrieve" not in remedy(feature)


def test_another_failure_of_an_import_stays_what_it_is() -> None:
    with pytest.raises(ImportError, match="nobody_has_this") as caught, wanting("networks", "it"):
        raise ModuleNotFoundError("No module named 'nobody_has_this'", name="nobody_has_this")
    assert not isinstance(caught.value, MissingPackage)


def test_the_innermost_feature_speaks() -> None:
    with (
        pytest.raises(MissingPackage, match="video needs av"),
        wanting("networks", "outer"),
        wanting("video", "video"),
    ):
        raise ModuleNotFoundError("No module named 'av'", name="av")
