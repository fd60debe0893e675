"""Put the files of a run together: one JSON, and a table with each time's share of its floor.

python benchmarks/gpu/report.py FOLDER --out gpu.json
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from sizes import CASES, DRY_CASES


def gathered(folder: Path) -> dict[str, Any]:
    """Everything that the processes of a run have written; a broken file is an error among them."""
    result: dict[str, Any] = {"machine": {}, "ceilings": {}, "checks": [], "times": []}
    result |= {"proofs": [], "errors": [], "parts": []}
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
    parts = folder / "parts.txt"
    if parts.exists():
        result["parts"] = parts.read_text().splitlines()
    floors = {case.name: case.floor_us(result["ceilings"]) for case in (*CASES, *DRY_CASES)}
    for line in result["times"]:
        line["floor_us"] = floors.get(line["case"])
        if line["floor_us"]:
            line["share_of_floor"] = line["floor_us"] / line["median_us"]
    return result


def table(result: dict[str, Any]) -> list[str]:
    """The times case by case, fastest first, then what did not go well."""
    lines = [f"{name}: {value}" for name, value in result["machine"].items()]
    lines += [f"{name}: {value}" for name, value in result["ceilings"].items()]
    equal = sum(check["equal"] for check in result["checks"])
    lines += [f"proof: {p['tier']} {p['verdict']}: {p['said']}" for p in result["proofs"]]
    lines.append(f"{equal} of {len(result['checks'])} checks equal the CPU in every bit")
    for case in dict.fromkeys(line["case"] for line in result["times"]):
        lines += ["", case]
        here = [line for line in result["times"] if line["case"] == case]
        for line in sorted(here, key=lambda line: line["median_us"]):
            share = f"{line['share_of_floor']:7.1%} of floor" if "share_of_floor" in line else ""
            recall = f"recall {line['recall']:.3f}" if "recall" in line else ""
            lines.append(f"  {line['who']:20} {line['median_us']:12.1f} us {share:18} {recall}")
    lines += ["", *(f"error: {e['part']}: {e['error']}" for e in result["errors"])]
    return lines


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    result = gathered(options.folder)
    options.out.write_text(json.dumps(result, indent=1))
    print("\n".join(table(result)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
