"""What ``fastretrieve doctor`` says of GPUs and their driver, with and without them."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastretrieve import _core
from fastretrieve._backends import tiers
from fastretrieve.machine import doctor

OPEN_MODULE = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build\n"
CLOSED_MODULE = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.163.01  Tue Apr  8 2025\nGCC\n"


@pytest.mark.parametrize(
    ("text", "versions", "said"),
    [
        (OPEN_MODULE, (13000, 13000), "580.65.06, serves CUDA up to 13.0, this build has 13.0"),
        (CLOSED_MODULE, (12080, 13000), "550.163.01, serves CUDA up to 12.8, this build has 13.0"),
        (OPEN_MODULE, (0, 0), "580.65.06"),  # a build without CUDA
        (None, (0, 13000), "none"),
        ("something else\n", (0, 0), "none"),
    ],
)
def test_the_driver(
    text: str | None,
    versions: tuple[int, int],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    if text is not None:
        (tmp_path / "version").write_text(text)
    monkeypatch.setattr(tiers, "DRIVER_FILE", tmp_path / "version")
    monkeypatch.setattr(_core, "cuda_state", lambda: (True, False, ""))
    monkeypatch.setattr(_core, "cuda_versions", lambda: versions)
    assert doctor.gpu_driver() == said


def test_gpus_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = ("NVIDIA H100 80GB HBM3", 9, 0, 85_000_000_000, 132)
    monkeypatch.setattr(_core, "cuda_devices", lambda: [gpu])
    monkeypatch.setattr(tiers, "chosen", lambda device: tiers.Choice("mma", "it equalled the CPU"))
    said = "NVIDIA H100 80GB HBM3: compute capability 9.0, 79.2 GiB, 132 multiprocessors"
    facts = doctor.examine()
    assert facts["gpus"] == [said]
    assert facts["gpu_tiers"] == ["cuda:0: mma: it equalled the CPU"]


def test_this_machine_is_described_as_it_is() -> None:
    available, emulated, _ = _core.cuda_state()
    facts = doctor.examine()
    assert bool(facts["gpus"]) == available
    assert (facts["gpu_driver"] == "none: the GPU is emulated") == emulated
