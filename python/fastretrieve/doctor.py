"""``fastretrieve doctor``: what this machine and this build can do, for people and bug reports."""

import json
import platform
import re
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

import fastretrieve as fr
from fastretrieve import _core
from fastretrieve.benchmarking.environment import cpu_model, huge_pages, usable_cores
from fastretrieve.benchmarking.peers import version_of

DRIVER_FILE = Path("/proc/driver/nvidia/version")  # of Linux, while the driver is loaded
HUGE_PAGES_ADVICE = "a scan reads memory at up to 1.5x the rate with `madvise` or `always`"


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead.")] = False,
) -> None:
    """Say what this machine and this build can do.

    Example: fastretrieve doctor --json
    """
    facts = examine()
    if as_json:
        typer.echo(json.dumps(facts, indent=1))
        return
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, value in facts.items():
        table.add_row(f"[bold]{name.replace('_', ' ')}[/bold]", _as_text(value))
    console = Console(soft_wrap=True)
    console.print(table)
    for advice in advices(facts):
        console.print(f"[yellow]note:[/yellow] {advice}")


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
        "gpu_driver": gpu_driver(),
        "numpy": np.__version__,
        "torch": version_of("torch"),
    }


def gpu_driver() -> str:
    """The driver's version and the latest CUDA that it serves, as far as they can be found out."""
    if _core.cuda_state()[1]:
        return "none: the GPU is emulated"
    latest, built_with = (
        f"{v // 1000}.{v % 1000 // 10}" if v else "" for v in _core.cuda_versions()
    )
    text = DRIVER_FILE.read_text() if DRIVER_FILE.exists() else ""
    version = re.search(r"Kernel Module.*?\s(\d+(?:\.\d+)+)\s", text)
    found = [version[1]] if version else []
    found += [f"serves CUDA up to {latest}"] if latest else []
    found += [f"this build has {built_with}"] if latest and built_with else []
    return ", ".join(found) or "none"


def _gpu(name: str, major: int, minor: int, memory: int, multiprocessors: int) -> str:
    size = f"{memory / 2**30:.1f} GiB"
    return f"{name}: compute capability {major}.{minor}, {size}, {multiprocessors} multiprocessors"


def advices(facts: dict[str, object]) -> list[str]:
    """What the user could change for the better."""
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
