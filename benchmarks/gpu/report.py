"""Put the files of a call together: one JSON, a table beside the floors, and the logs.

python benchmarks/gpu/report.py FOLDER --out gpu-first.json --table table.txt --logs logs.tar.gz

It runs after every result and imports no torch. A reader of a file sees the old one or the new one,
never a part.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import sys
import tarfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from sizes import CASES, DRY_CASES

FORMAT = 1
MOST_LOG_BYTES, MOST_LOGS = 128 << 10, 80  # the last bytes of each log
MOST_FAILURES, MOST_ERRORS = 30, 60
OUTCOME = re.compile(r"^(tests/\S+::.*?) (PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS)\b", re.MULTILINE)


def gathered(folder: Path) -> dict[str, Any]:
    """The results of all parts of a call; a broken file is an error among them."""
    result: dict[str, Any] = {"format": FORMAT, **plan(folder), "parts": parts(folder)}
    result |= {"machine": facts(folder), "ceilings": {}, "proofs": [], "checks": [], "times": []}
    result |= {"kernels": [], "errors": []}
    for path in sorted(folder.glob("*.json")):
        try:
            found = json.loads(path.read_text())
        except ValueError as error:
            result["errors"].append({"part": path.name, "error": str(error)})
            continue
        for name, value in found.items():
            if isinstance(value, dict):
                result[name] = result.get(name, {}) | value
            else:
                result.setdefault(name, []).extend(value)
    del result["errors"][MOST_ERRORS:]
    if tests := outcomes(folder / "tests.log"):
        result["tests"] = tests
    floors = {case.name: case.floor_us(result["ceilings"]) for case in (*CASES["all"], *DRY_CASES)}
    for line in result["times"]:
        line["floor_us"] = floors.get(line["case"])
        if line["floor_us"]:
            line["share_of_floor"] = line["floor_us"] / line["median_us"]
    return result


def lines_of(path: Path) -> list[str]:
    return path.read_text(errors="replace").splitlines() if path.exists() else []


def plan(folder: Path) -> dict[str, Any]:
    """The phases that the call was to have, and how far each came."""
    call, phases, *_ = (*lines_of(folder / "plan.txt"), "", "")
    states = dict.fromkeys(phases.split(), "not reached")
    finished = False
    for line in lines_of(folder / "phases.txt"):
        word, _, phase = line.partition(" ")
        finished |= word == "finished"
        if phase in states:
            states[phase] = "unfinished" if word == "begin" else "ended"
    return {"call": call, "finished": finished, "phases": states}


def parts(folder: Path) -> list[dict[str, Any]]:
    """The verdict of each process."""
    rows = [line.split("\t") for line in lines_of(folder / "parts.tsv")]
    return [
        {"part": row[0], "verdict": row[1], "seconds": int(row[2])} for row in rows if len(row) == 3
    ]


def facts(folder: Path) -> dict[str, str]:
    """What the script found out about the machine and the sources."""
    rows = (line.partition("\t") for line in lines_of(folder / "facts.tsv"))
    return {name: value for name, _, value in rows}


def outcomes(log: Path) -> dict[str, Any]:
    """How many tests passed, failed or were skipped, by pytest's lines. Those of a run that was
    killed count too, and the test that ran then is named.
    """
    if not log.exists():
        return {}
    text = log.read_text(errors="replace")
    counts: dict[str, Any] = {}
    failures = []
    for name, outcome in OUTCOME.findall(text):
        counts[outcome.lower()] = counts.get(outcome.lower(), 0) + 1
        if outcome in ("FAILED", "ERROR"):
            failures.append(name)
    running = re.search(r"^(tests/\S+::.*?) *\Z", text, re.MULTILINE)
    unfinished = {"unfinished": running[1]} if running and not OUTCOME.match(running[0]) else {}
    return counts | {"failures": failures[:MOST_FAILURES]} | unfinished


def table(result: dict[str, Any]) -> list[str]:
    """The times case by case, fastest first, and whatever did not go well."""
    lines = [f"{name}: {value}" for name, value in result["machine"].items()]
    lines += [f"{name}: {value}" for name, value in result["ceilings"].items()]
    lines += [f"proof: {p['tier']} {p['verdict']}: {p['said']}" for p in result["proofs"]]
    if result["checks"]:
        equal = sum(check["equal"] for check in result["checks"])
        lines.append(f"{equal} of {len(result['checks'])} checks equal the CPU in every bit")
    lines += [f"tests: {json.dumps(result['tests'])}"] if "tests" in result else []
    for case in dict.fromkeys(line["case"] for line in result["times"]):
        lines += ["", case]
        here = [line for line in result["times"] if line["case"] == case]
        for line in sorted(here, key=lambda line: line["median_us"]):
            share = f"{line['share_of_floor']:7.1%} of floor" if "share_of_floor" in line else ""
            recall = f"recall {line['recall']:.3f}" if "recall" in line else ""
            lines.append(f"  {line['who']:20} {line['median_us']:12.1f} us {share:18} {recall}")
    for case, tier in dict.fromkeys((line["case"], line["tier"]) for line in result["kernels"]):
        lines += ["", f"{case}, kernels of {tier}"]
        for line in result["kernels"]:
            if (line["case"], line["tier"]) == (case, tier):
                lines.append(
                    f"  {line['kernel']:48.48} {line['us']:12.1f} us {line['share']:7.1%}"
                    f" {line['launches']:6.1f} launches"
                )
    lines += ["", *(f"error: {e['part']}: {e['error']}" for e in result["errors"])]
    lines += [
        f"{p['part']}: {p['verdict']}, {p['seconds']} s"
        for p in result["parts"]
        if p["verdict"] != "done"
    ]
    missing = [f"{name}: {state}" for name, state in result["phases"].items() if state != "ended"]
    return [*lines, *missing]


def replaced(path: Path, content: bytes) -> None:
    part = path.with_name(path.name + ".part")
    part.write_bytes(content)
    os.replace(part, path)


def write(result: dict[str, Any], out: Path) -> None:
    replaced(out, json.dumps(result, indent=1).encode())


def pack_logs(folder: Path, out: Path) -> None:
    """The ends of the latest logs."""
    logs = sorted(folder.glob("*.log"), key=lambda path: path.stat().st_mtime)[-MOST_LOGS:]
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for log in logs:
            with log.open("rb") as file:
                file.seek(max(0, log.stat().st_size - MOST_LOG_BYTES))
                content = file.read(MOST_LOG_BYTES)
            entry = tarfile.TarInfo(log.name)
            entry.size, entry.mtime = len(content), int(log.stat().st_mtime)
            archive.addfile(entry, io.BytesIO(content))
    replaced(out, packed.getvalue())


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--table", type=Path)
    parser.add_argument("--logs", type=Path)
    options = parser.parse_args(arguments)
    result = gathered(options.folder)
    write(result, options.out)
    if options.table:
        replaced(options.table, "".join(f"{line}\n" for line in table(result)).encode())
    if options.logs:
        pack_logs(options.folder, options.logs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
