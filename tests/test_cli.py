"""The command line as people and programs meet it."""

import json
import subprocess
import sys
from importlib.metadata import entry_points, version
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fastretrieve import cli

RUNNER = CliRunner()


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The installed package in a process of its own, 100 columns wide and without colour."""
    import os

    env = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb", **environment}
    command = [sys.executable, "-m", "fastretrieve", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=env, check=False)


def test_the_entry_point_is_the_module() -> None:
    (script,) = entry_points(group="console_scripts", name="fastretrieve")
    assert script.load() is cli.main


def test_help_names_every_verb() -> None:
    text = run("--help").stdout
    for name, verb in cli.VERBS.items():
        assert name in text
        assert verb.help[:30] in text


def test_help_imports_no_verb_no_numpy_and_no_torch() -> None:
    code = (
        "import sys\n"
        "sys.argv = ['fastretrieve', '--help']\n"
        "from fastretrieve.cli import main\n"
        "try:\n"
        "    main()\n"
        "except SystemExit:\n"
        "    print('LOADED', *sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout.rpartition("LOADED")[2].split()
    assert "typer" in loaded
    assert not {"numpy", "torch", "PIL"} & set(loaded)
    ours = {module for module in loaded if module.startswith("fastretrieve")}
    assert ours == {"fastretrieve", "fastretrieve.cli"}


@pytest.mark.parametrize("name", cli.VERBS)
def test_every_verb_loads_and_its_help_shows_an_example(name: str) -> None:
    shown = RUNNER.invoke(cli.app, [name, "--help"])
    assert shown.exit_code == 0
    assert f"fastretrieve {name}" in shown.output


def test_a_typing_error_gets_a_suggestion() -> None:
    done = run("benhc")
    assert done.returncode == 2
    assert "Did you mean 'bench'" in done.stderr


def test_no_verb_shows_the_help() -> None:
    done = run()
    assert "doctor" in done.stdout + done.stderr


def test_version() -> None:
    assert run("--version").stdout.strip() == version("fastretrieve")


def test_an_error_the_user_can_mend_is_one_sentence() -> None:
    done = run("doctor", FASTRETRIEVE_ISA="abacus")
    assert done.returncode == 1
    assert done.stderr.startswith("fastretrieve: ")
    assert "abacus" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_traceback_can_be_asked_for() -> None:
    done = run("doctor", FASTRETRIEVE_ISA="abacus", FASTRETRIEVE_DEBUG="1")
    assert "Traceback" in done.stderr


def test_doctor_as_json() -> None:
    facts = json.loads(run("doctor", "--json").stdout)
    assert facts["fastretrieve"] == version("fastretrieve")
    assert facts["instruction_set"] in facts["instruction_sets"]
    assert facts["instruction_sets"][-1] == "scalar"
    assert facts["threads"] >= 1
    assert set(facts["backends"]) >= {"cpu", "cuda"}
    assert {"huge_pages", "numpy", "torch", "cuda_architectures", "cpu"} <= set(facts)


def test_doctor_obeys_the_forced_instruction_set() -> None:
    facts = json.loads(run("doctor", "--json", FASTRETRIEVE_ISA="scalar").stdout)
    assert facts["instruction_set"] == "scalar"


def test_doctor_for_people_gives_reasons_and_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    from fastretrieve.machine import doctor

    monkeypatch.setattr(doctor, "huge_pages", lambda: "never")
    shown = RUNNER.invoke(cli.app, ["doctor"])
    assert shown.exit_code == 0
    assert "cuda: " in shown.output
    assert "transparent huge pages are off" in shown.output


def test_doctor_imports_no_torch() -> None:
    code = (
        "import sys; from fastretrieve.machine.doctor import examine; "
        "examine(); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "torch" not in done.stdout.split()


def test_bench_writes_its_figures(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    done = run("bench", "--quick", "--case", "tiny", "--seconds", "0.02", "--json", str(path))
    assert done.returncode == 0, done.stderr
    assert "exact" in done.stdout
    data = json.loads(path.read_text())
    (search,) = data["results"]
    assert search["n_rows"] == 1000
    assert search["contenders"][0]["median_ms"] > 0
    assert data["bars"] == []  # the promises are about full sizes


def test_bench_refuses_an_unknown_case_and_names_the_known() -> None:
    done = run("bench", "--case", "gausian")
    assert done.returncode == 2
    assert "gaussian" in done.stderr


def test_bench_exits_with_1_on_a_wrong_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    from fastretrieve.benchmarking import oracle

    def refuse(*_: object) -> None:
        raise oracle.WrongAnswer("rank 3 differs")

    monkeypatch.setattr(oracle, "check_equal", refuse)
    shown = RUNNER.invoke(cli.app, ["bench", "--quick", "--case", "tiny"])
    assert shown.exit_code == 1
    assert "wrong answer: rank 3 differs" in shown.output
