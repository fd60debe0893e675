"""A tier of the CUDA scan serves once it has proved itself on the device, and not before."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import cuda_backends
import fastretrieve as fr
from cuda_backends import NEEDS_CUDA
from fastretrieve import _core, cli
from fastretrieve._backends import runtime, tiers
from fastretrieve._backends.tiers import Choice, Trial
from fastretrieve.machine import proving

EMULATED = pytest.mark.skipif(
    not cuda_backends.emulated(), reason="faults are planted in an emulated build"
)
HERE = "NVIDIA H100 80GB HBM3"

# A tier's own process, with few cases, and with something planted for the tier `mma`.
PROCESS = """
import os, sys, time
from fastretrieve._backends import cuda
from fastretrieve.machine import proving
few = [case for case in proving.cases() if case.dim in (33, 48)]
proving.cases = lambda: iter(few)
search = cuda.CudaBackend.search
def broken(self, *arguments, **options):
    found = search(self, *arguments, **options)
    if sys.argv[2] == "mma":
        {planted}
    return found
cuda.CudaBackend.search = broken
sys.exit(proving.main(sys.argv[1:]))
"""
NOTHING = "pass"
ONE_BIT = "found[0].view('int64')[-1, -1] ^= 1"
DIES = "os.abort()"
HANGS = "time.sleep(600)"
RAISES = "raise RuntimeError('CUDA error: an illegal memory access was encountered')"


def process(planted: str) -> proving.Command:
    code = PROCESS.format(planted=planted)
    return lambda device, tier: [sys.executable, "-c", code, str(device), tier]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A cache without records, and no tier forced."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    monkeypatch.delenv("FASTRETRIEVE_CUDA_TIER", raising=False)
    tiers.proved.cache_clear()
    yield
    tiers.proved.cache_clear()


@pytest.fixture
def hopper(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine has a device of compute capability 9.0 and a build for it; nothing runs there."""
    monkeypatch.setattr(_core, "cuda_devices", lambda: [(HERE, 9, 0, 85_000_000_000, 132)])
    monkeypatch.setattr(_core, "cuda_best_tier", lambda major: "wgmma")
    monkeypatch.setattr(_core, "cuda_versions", lambda: (13000, 13000))


def trials(*verdicts: str) -> list[Trial]:
    """How the tiers fared, the plainest first."""
    return [Trial(t, v, "said", 1.0) for t, v in zip(tiers.TIERS, verdicts, strict=False)]


# --- the record -----------------------------------------------------------------------------------


def test_nothing_is_proved_at_first(hopper: None) -> None:
    choice = tiers.chosen(0)
    assert choice == Choice(
        "dp4a",
        "mma and wgmma are not proved on this device; `fastretrieve doctor --prove` tries them",
    )


@pytest.mark.parametrize(
    ("verdicts", "tier", "said"),
    [
        (("equal", "equal", "equal"), "wgmma", "it equalled the CPU on this device on 2026-11-21"),
        (("equal", "equal", "differs"), "mma", "on 2026-11-21, but wgmma differs"),
        (("equal", "ended with exit code -6", "equal"), "wgmma", "but mma ended with exit code -6"),
        (("equal", "differs", "differs"), "dp4a", "but mma differs and wgmma differs"),
        (("differs", "equal", "differs"), "mma", "but dp4a differs and wgmma differs"),
        (("ended with exit code 1",) * 3, "dp4a", "no tier has equalled the CPU on this device"),
    ],
)
def test_the_best_equal_tier_is_chosen(
    verdicts: tuple[str, ...], tier: str, said: str, hopper: None
) -> None:
    tiers.record(0, trials(*verdicts), "2026-11-21")
    choice = tiers.chosen(0)
    assert choice.tier == tier
    assert said in choice.reason
    assert choice.usable


def test_wrong_answers_of_the_plainest_tier_close_the_device(hopper: None) -> None:
    tiers.record(0, trials("differs", "differs", "was still running after 3 s"), "2026-11-21")
    choice = tiers.chosen(0)
    assert not choice.usable
    assert choice.reason.endswith("dp4a differs, mma differs, wgmma was still running after 3 s")


@pytest.mark.parametrize("what", ["device", "compute_capability", "driver", "fastretrieve", "core"])
def test_a_record_of_something_else_does_not_count(
    what: str, hopper: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiers.record(0, trials("equal", "equal"), "2026-11-21")
    assert tiers.chosen(0).tier == "mma"
    here = tiers.identity(0)
    monkeypatch.setattr(tiers, "identity", lambda device: here | {what: "another"})
    tiers.proved.cache_clear()
    assert tiers.chosen(0).tier == "dp4a"
    tiers.record(0, trials("equal", "differs", "equal"), "2026-11-22")  # beside the first
    assert tiers.chosen(0).tier == "wgmma"
    monkeypatch.setattr(tiers, "identity", lambda device: here)
    tiers.proved.cache_clear()
    assert tiers.chosen(0).tier == "mma"


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "7", '{"records": 3}', '{"records": [{}]}', '{"records": [[1]]}', "\0"]
)
def test_a_file_that_cannot_be_read_is_as_none(text: str, hopper: None) -> None:
    tiers.record_file().parent.mkdir(parents=True)
    tiers.record_file().write_text(text)
    assert tiers.chosen(0).tier == "dp4a"
    tiers.record(0, trials("equal", "equal"), "2026-11-21")  # and is replaced
    assert tiers.chosen(0).tier == "mma"


def test_a_record_that_lacks_something_is_as_none(hopper: None) -> None:
    tiers.record_file().parent.mkdir(parents=True)
    for more in ({}, {"trials": []}, {"when": "today", "trials": [["mma"]]}):
        records = {"records": [{"identity": tiers.identity(0)} | more]}
        tiers.record_file().write_text(json.dumps(records))
        tiers.proved.cache_clear()
        assert tiers.chosen(0).tier == "dp4a"
        assert "are not proved" in tiers.chosen(0).reason


def test_a_record_keeps_the_latest_of_many(hopper: None, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tiers.identity(0)
    for i in range(tiers.MOST_RECORDS + 5):
        monkeypatch.setattr(tiers, "identity", lambda device, i=i: here | {"core": str(i)})
        tiers.record(0, trials("equal"), "2026-11-21")
    kept = json.loads(tiers.record_file().read_text())["records"]
    assert [record["identity"]["core"] for record in kept] == [
        str(i) for i in range(5, tiers.MOST_RECORDS + 5)
    ]


def test_the_environment_forces_a_tier(hopper: None, monkeypatch: pytest.MonkeyPatch) -> None:
    tiers.record(0, trials("equal", "equal"), "2026-11-21")
    monkeypatch.setenv("FASTRETRIEVE_CUDA_TIER", "wgmma")
    assert tiers.chosen(0) == Choice("wgmma", "FASTRETRIEVE_CUDA_TIER asks for it")


def test_without_a_home_nothing_is_proved(hopper: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    assert tiers.chosen(0).tier == "dp4a"


# --- the trials -----------------------------------------------------------------------------------


@EMULATED
def test_tiers_that_equal_the_cpu_are_recorded_and_serve() -> None:
    said: list[Trial] = []
    assert fr.Index(4, device="cuda")._form.backend.name == "dp4a"
    found = proving.prove(0, say=said.append, command=process(NOTHING))
    assert found == said
    assert [(trial.tier, trial.verdict) for trial in found] == [
        ("dp4a", "equal"), ("mma", "equal"), ("wgmma", "equal")
    ]  # fmt: skip
    runtime._made_cuda_backend.cache_clear()
    assert fr.Index(4, device="cuda")._form.backend.name == "wgmma"
    row = next(backend for backend in fr.backends() if backend.name == "cuda")
    assert row.instruction_set == "wgmma"
    assert "scans with wgmma: it equalled the CPU on this device on 20" in row.reason


@EMULATED
@pytest.mark.parametrize(
    ("planted", "limit", "verdict", "said"),
    [
        (ONE_BIT, 300, "differs", r"x 33 float32, .*, batch 1, k=1: query 0, place 0: id "),
        (DIES, 300, "ended with exit code -6", r"^at 1233 x 33 float32, .*batch 1, k=1"),
        (RAISES, 300, "ended with exit code 1", "an illegal memory access was encountered"),
        (HANGS, 15, "was still running after 15 s", r"^at 1233 x 33 float32, .*batch 1, k=1$"),
    ],
)
def test_a_broken_tier_is_named_and_does_not_serve(
    planted: str, limit: float, verdict: str, said: str
) -> None:
    trial = proving.tried(0, "mma", command=process(planted), limit=limit)
    assert trial.verdict == verdict, trial
    assert re.search(said, trial.said), trial
    tiers.record(0, [Trial("dp4a", "equal", "", 1.0), trial], "2026-11-21")
    choice = tiers.chosen(0)
    assert choice.tier == "dp4a"
    assert f"but mma {verdict}" in choice.reason


def test_a_process_that_cannot_start_is_no_proof() -> None:
    trial = proving.tried(
        0, "mma", command=lambda d, t: [sys.executable, "-c", "import no_such_module"], limit=60
    )
    assert trial.verdict == "ended with exit code 1"
    assert "before its first search: ModuleNotFoundError" in trial.said


@EMULATED
def test_a_device_with_wrong_answers_is_refused() -> None:
    tiers.record(0, trials("differs", "differs", "differs"), "2026-11-21")
    runtime._made_cuda_backend.cache_clear()
    with pytest.raises(fr.BackendUnavailable, match="cuda: no tier has equalled the CPU on this"):
        fr.Index(4, device="cuda")


def test_every_kind_of_case_is_searched_and_compared() -> None:
    cases = list(proving.cases())
    assert {case.metric for case in cases} == {"cosine", "ip", "l2", "sqeuclidean"}
    assert {case.kind for case in cases} == set(proving.KINDS)
    assert {case.dtype for case in cases} == {"float32", "float16", "bfloat16"}
    assert {32, 64, 128, 768} <= {case.dim for case in cases}
    assert any(case.n_rows % 64 for case in cases)
    batches = {batch for case in cases for batch, _ in case.searches}
    assert {1, 8, 64, 300} <= batches
    assert {k for case in cases for _, k in case.searches} == {1, 10, 100}


def test_a_difference_is_told_to_the_bit() -> None:
    scores, ids = np.array([[1.0, 2.0]]), np.array([[5, 6]])
    wanted = fr.Hits(scores, ids)
    assert proving.difference(fr.Hits(scores.copy(), ids.copy()), wanted) == ""
    other = np.array([[1.0, np.nextafter(2.0, 3.0)]])
    said = proving.difference(fr.Hits(other, ids), wanted)
    assert said.startswith("query 0, place 1: id 6 with ")
    assert said.endswith("; 1 places differ")
    assert proving.difference(fr.Hits(scores, ids[:, ::-1]), wanted) != ""
    nothing = fr.Hits(np.array([[np.nan]]), np.array([[-1]]))
    assert proving.difference(nothing, nothing) == ""


# --- the command ----------------------------------------------------------------------------------


@EMULATED
def test_doctor_proves_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proving, "own_process", process(ONE_BIT))
    shown = CliRunner().invoke(cli.app, ["doctor", "--prove"])
    assert shown.exit_code == 1  # a tier differs
    assert "cuda:0 CPU emulation: dp4a equal: " in shown.output
    assert "cuda:0 CPU emulation: mma differs: " in shown.output
    assert "wgmma: it equalled the CPU on this device" in shown.output
    facts = json.loads(CliRunner().invoke(cli.app, ["doctor", "--json"]).output)
    assert facts["gpu_tiers"][0].startswith("cuda:0: wgmma: it equalled")


@pytest.mark.skipif(not cuda_backends.reason(), reason="there is a CUDA backend")
def test_without_a_device_there_is_nothing_to_prove() -> None:
    shown = CliRunner().invoke(cli.app, ["doctor", "--prove"])
    assert isinstance(shown.exception, fr.BackendUnavailable)
    assert "there is nothing to prove" in str(shown.exception)


@NEEDS_CUDA
@pytest.mark.slow
def test_every_tier_proves_itself_here() -> None:
    """As the command does it: all cases that this device is fast enough for, in own processes."""
    found = proving.prove(0, say=lambda trial: None)
    assert [trial.verdict for trial in found] == ["equal"] * len(cuda_backends.PRESENT), found
