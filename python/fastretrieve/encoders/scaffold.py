"""``fastretrieve encoders new NAME``: a complete package with an encoder, ready to be changed.

What it writes works and passes its own tests: a small convolutional autoencoder. The tutorial that
goes with it is ``docs/plugins.md``.
"""

from __future__ import annotations

import keyword
import re
from pathlib import Path

from fastretrieve.encoders.discovery import list_encoders
from fastretrieve.encoders.errors import EncoderError

_PYPROJECT = """\
[build-system]
requires = ["setuptools>=68"]
build-backend = "setuptools.build_meta"

[project]
name = "{distribution}"
version = "0.1.0"
description = "The encoder {name} for fastretrieve."
readme = "README.md"
requires-python = ">=3.10"
dependencies = ["fastretrieve", "torch"]

[project.optional-dependencies]
test = ["pytest>=8"]

# This line is the whole registration.
[project.entry-points."fastretrieve.encoders"]
{name} = "{package}:{cls}"

[tool.setuptools.packages.find]
where = ["src"]

[tool.pytest.ini_options]
testpaths = ["tests"]
pythonpath = ["src"]
"""

_README = """\
# {distribution}

The encoder `{name}` for fastretrieve.

```
pip install -e '.[test]'
pytest                                # every promise of the encoder protocol, one test each
fastretrieve encoders                 # lists {name}
fastretrieve train photos/ --encoder {name} --out my-{name}/
fastretrieve index photos.gallery photos/ --encoder my-{name}/
```

The network is in `src/{package}/__init__.py`: change `embed` and `loss`.
"""

_MODULE = '''\
"""The encoder ``{name}``: a small convolutional autoencoder; the vector is its bottleneck."""

from torch import Tensor, nn
from torch.nn import functional as F

from fastretrieve.encoders import Figure, TorchEncoder
from fastretrieve.encoders.base import seeded


class {cls}(TorchEncoder):
    name = "{name}"  # the same as in pyproject.toml
    capabilities = frozenset({{"trainable"}})
    progress_figure = Figure("loss", "lower")  # what must improve when it learns

    def __init__(self, *, dim: int = 64, image_size: int = 32, channels: int = 3) -> None:
        # config is what load() calls this constructor with.
        config = {{"dim": dim, "image_size": image_size, "channels": channels}}
        super().__init__(dim=dim, config=config)
        height, width = (side // 4 for side in self.image_size)
        with seeded(0):  # random weights, without touching the global random state
            self.encoder = nn.Sequential(
                nn.Conv2d(self.channels, 16, 3, stride=2, padding=1),
                nn.ReLU(),
                nn.Conv2d(16, 32, 3, stride=2, padding=1),
                nn.ReLU(),
                nn.AdaptiveAvgPool2d((height, width)),
                nn.Flatten(),
                nn.Linear(32 * height * width, dim),
            )
            self.decoder = nn.Sequential(
                nn.Linear(dim, 32 * height * width),
                nn.Unflatten(1, (32, height, width)),
                nn.ConvTranspose2d(32, 16, 4, stride=2, padding=1),
                nn.ReLU(),
                nn.ConvTranspose2d(16, self.channels, 4, stride=2, padding=1),
            )

    def embed(self, batch: Tensor) -> Tensor:
        """The vectors [n, dim] of images [n, channels, height, width] in [0, 1]."""
        return self.encoder(batch)

    def loss(self, batch: Tensor, labels: Tensor | None = None) -> Tensor:
        """What training minimises. This one needs no labels."""
        batch = self.on_device(batch)
        drawn = self.decoder(self.embed(batch))
        return F.mse_loss(F.interpolate(drawn, size=self.image_size), batch)
'''

_TEST = '''\
"""The encoder keeps every promise of the protocol, and fastretrieve finds it."""

from importlib.metadata import PackageNotFoundError, distribution

import pytest

from fastretrieve.encoders import create_encoder
from fastretrieve.testing import parametrize_checks
from {package} import {cls}


@parametrize_checks({cls})
def test_protocol(check):
    check()


def test_fastretrieve_finds_it():
    try:
        distribution("{distribution}")
    except PackageNotFoundError:
        pytest.skip("not installed yet: pip install -e .")
    assert type(create_encoder("{name}")) is {cls}
'''


def write_package(name: str, folder: Path | None = None) -> Path:
    """Write the package for an encoder ``name`` and return its folder.

    >>> import tempfile
    >>> made = write_package("sketch", Path(tempfile.mkdtemp()) / "new")
    >>> sorted(path.name for path in made.rglob("*.py"))
    ['__init__.py', 'test_encoder.py']
    """
    if not re.fullmatch(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*", name) or keyword.iskeyword(name):
        raise EncoderError(
            f"{name!r} cannot be an encoder's name; use lower-case letters, digits and hyphens, "
            "such as 'my-encoder'"
        )
    if taken := [plugin for plugin in list_encoders() if plugin.name == name]:
        raise EncoderError(
            f"{taken[0].distribution} already provides an encoder {name!r}; choose another name"
        )
    words = re.split(r"[-_]", name)
    distribution = "fastretrieve-" + "-".join(words)
    values = {
        "name": name,
        "distribution": distribution,
        "package": distribution.replace("-", "_"),
        "cls": "".join(word.capitalize() for word in words) + "Encoder",
    }
    target = folder or Path(distribution)
    if target.exists() and any(target.iterdir()):
        raise EncoderError(f"{target} exists and is not empty; choose another folder")
    contents = {
        "pyproject.toml": _PYPROJECT,
        "README.md": _README,
        f"src/{values['package']}/__init__.py": _MODULE,
        "tests/test_encoder.py": _TEST,
    }
    for path, template in contents.items():
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        (target / path).write_text(template.format(**values), "utf-8")
    return target
