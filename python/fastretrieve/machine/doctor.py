"""``fastretrieve doctor``: what this machine and this build can do, for people and bug reports."""

import json
import platform
from collections.abc import Callable
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

import fastretrieve as fr
from fastretrieve import _core
from fastretrieve._backends import tiers
from fastretrieve._backends.device_memory import usable_device
from fastretrieve.benchmarking.environment import cpu_model, huge_pages, usable_cores
from fastretrieve.benchmarking.peers import version_of

HUGE_PAGES_ADVICE = "a scan reads memory at up to 1.5x the rate with `madvise` or `always`"


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead.")] = False,
    prove: Annotated[
        bool,
        typer.Option(
            "--prove", help="Compare each tier of each GPU with the CPU; the best equal one serves."
        ),
    ] = False,
) -> None:
    """Say what this machine and this build can do.

    Example: fastretrieve doctor --json
    """
    proofs = prove_devices(typer.echo if not as_json else lambda line: None) if prove else []
    facts = examine()
    if prove:
        facts["proofs"] = proofs
    if as_json:
        typer.echo(json.dumps(facts, indent=1))
    else:
        show(facts)
    if any(proof["verdict"] != tiers.EQUAL for proof in proofs):
        raise typer.Exit(1)


def show(facts: dict[str, object]) -> None:
    """Print the facts as a table, and advice."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, value in facts.items():
        if name == "proofs":  # said while they were made
            continue
        table.add_row(f"[bold]{name.replace('_', ' ')}[/bold]", _as_text(value))
    console = Console(soft_wrap=True)
    console.print(table)
    for advice in advices(facts):
        console.print(f"[yellow]note:[/yellow] {advice}")


def prove_devices(say: Callable[[str], object]) -> list[dict[str, object]]:
    """Let every tier of every GPU prove itself; return how each fared."""
    from fastretrieve.machine.proving import prove

    available, emulated, reason = _core.cuda_state()
    if not available:
        raise fr.BackendUnavailable(f"cuda: {reason}; there is nothing to prove")
    if not emulated:
        usable_device("cuda")  # an error says why torch has no GPU
    proofs: list[dict[str, object]] = []
    for device, (name, *_) in enumerate(_core.cuda_devices()):

        def one(trial: tiers.Trial, device: int = device, name: str = name) -> None:
            proofs.append({"device": f"cuda:{device}", "name": name, **trial._asdict()})
            say(f"cuda:{device} {name}: {trial.tier} {trial.verdict}: {trial.said}")

        prove(device, say=one)
    return proofs


def examine() -> dict[str, object]:
    """Every fact, ready for JSON. Imports no torch: its version is read from its metadata."""
    backends = {backend.name: backend._asdict() for backend in fr.backends()}
    return {
        "fastretrieve": version_of("fastretrieve"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": cpu_model(),
        "cores": usable_cores(),
        "threads": fr.num_threads(),
        "instruction_sets": _core.instruction_sets(),
        "instruction_set": backends["cpu"]["instruction_set"],
        "huge_pages": huge_pages(),
        "backends": backends,
        "cuda_architectures": [name for name in _core.cuda_architectures.split() if name != "none"],
        "gpus": [_gpu(*facts) for facts in _core.cuda_devices()],
        "gpu_tiers": [
            f"cuda:{device}: {choice.tier}: {choice.reason}"
            for device, choice in enumerate(map(tiers.chosen, range(len(_core.cuda_devices()))))
        ],
        "gpu_driver": gpu_driver(),
        "numpy": np.__version__,
        "torch": version_of("torch"),
    }


def gpu_driver() -> str:
    """The driver's version and the latest CUDA that it serves, as far as known."""
    if _core.cuda_state()[1]:
        return "none: the GPU is emulated"
    latest, built_with = (
        f"{v // 1000}.{v % 1000 // 10}" if v else "" for v in _core.cuda_versions()
    )
    version = tiers.driver_version()
    found = [version] if version else []
    found += [f"serves CUDA up to {latest}"] if latest else []
    found += [f"this build has {built_with}"] if latest and built_with else []
    return ", ".join(found) or "none"


def _gpu(name: str, major: int, minor: int, memory: int, multiprocessors: int) -> str:
    size = f"{memory / 2**30:.1f} GiB"
    return f"{name}: compute capability {major}.{minor}, {size}, {multiprocessors} multiprocessors"


def advices(facts: dict[str, object]) -> list[str]:
    """Advice: what the user could improve."""
    found = []
    if facts["huge_pages"] == "never":
        found.append(f"transparent huge pages are off; {HUGE_PAGES_ADVICE}")
    if facts["torch"] is None:
        found.append("torch is not installed; search works without it, encoders need it")
    return found


def _as_text(value: object) -> str:
    if isinstance(value, dict):
        return "\n".join(_backend(row) for row in value.values())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "none"
    return "not installed" if value is None else str(value)


def _backend(row: dict[str, object]) -> str:
    state = "available" if row["available"] else "not available"
    return f"{row['name']}: {state}, {row['reason']}"
