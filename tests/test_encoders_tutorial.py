"""The code of ``docs/plugins.md`` runs, and its encoders pass the checks."""

import re
from pathlib import Path

import numpy as np
import pytest

from fastretrieve.encoders import create_encoder
from fastretrieve.testing import check_encoder, check_names

TUTORIAL = (Path(__file__).resolve().parent.parent / "docs" / "plugins.md").read_text("utf-8")
BLOCKS = re.findall(r"```python\n# (\w+\.py)\n(.*?)```", TUTORIAL, re.DOTALL)


@pytest.mark.parametrize(
    ("name", "cls"), [("my.py", "MeanColour"), ("net.py", "TinyEncoder")], ids=["my", "net"]
)
@pytest.mark.slow
def test_the_encoders_of_the_tutorial_pass(tmp_path, name, cls):
    (tmp_path / name).write_text(dict(BLOCKS)[name])
    check_encoder(f"{tmp_path}/{name}:{cls}")


def test_the_first_encoder_says_what_it_says_by_its_path(tmp_path):
    (tmp_path / "my.py").write_text(dict(BLOCKS)["my.py"])
    encoder = create_encoder(f"{tmp_path}/my.py:MeanColour", grid=2)
    red = np.zeros((10, 10, 3), np.uint8)
    red[:, :, 0] = 255
    assert encoder.encode(encoder.preprocess([red])).tolist() == [[1.0] * 4 + [0.0] * 8]


def test_every_check_is_in_the_table():
    table = TUTORIAL[TUTORIAL.index("| check |") : TUTORIAL.index("## Capabilities")]
    for name in check_names():
        assert f"`{name}`" in table
