"""Plant faults in a copy of the native code, one at a time, and see whether the tests notice.

    python tests/planted.py            # all of them: about a quarter of an hour on two cores
    python tests/planted.py slack      # those whose name holds "slack"

Every fault is a slip that somebody could make. It is built into a copy, never into the checkout,
and the table that comes out is in docs/exactness.md. ``test_planted.py`` keeps the faults in step
with the sources: each line must still be there to be broken.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
SUITES = ("test_search.py", "test_bounds.py")
SCREEN_SUITES = (
    "test_screen.py",
    "test_screen.py::test_what_is_ruled_out_cannot_reach_the_threshold",
    "test_screen_ranges.py",
)
SKIPPED = "million"  # starts a process of its own, with the installed package


class Fault(NamedTuple):
    path: str  # below csrc
    right: str
    wrong: str


FAULTS: dict[str, Fault] = {
    "order: ties go to the larger id": Fault("core/order.hpp", "a.id < b.id", "a.id > b.id"),
    "screen: the query's error is forgotten": Fault(
        "cpu/screen/panel.cpp", "(reach + screen_.error + head.error)", "(reach + screen_.error)"
    ),
    "screen: the error of rows is forgotten": Fault(
        "cpu/screen/panel.cpp", "(reach + screen_.error + head.error)", "(reach + head.error)"
    ),
    "screen: the length of a row's tail is rounded down": Fault(
        "cpu/screen/project.cpp",
        "const double length = std::sqrt(",
        "const double length = (role == Role::row ? 0.7 : 1) * std::sqrt(",
    ),
    "screen: a row that its codes do not describe is dropped": Fault(
        "cpu/screen/build.cpp", ": kAlways;", ": kNever;"
    ),
    "screen: a box leaves out the last row": Fault(
        "cpu/screen/build.cpp",
        "    box.hold(args.order[at]);",
        "    if (row + 1 < kStripRows) box.hold(args.order[at]);",
    ),
    "screen: a query has the threshold of another": Fault(
        "cpu/screen/walk.cpp",
        "aims_[static_cast<size_t>(queries[static_cast<size_t>(i)])].start",
        "aims_[static_cast<size_t>(i)].start",
    ),
    "screen: the nearest leaves are searched twice": Fault(
        "cpu/screen/walk.cpp", "near_[q] & ~(1u << (*next[q] - first))", "near_[q] & ~0u"
    ),
    "screen: what was found stays when the search falls back": Fault(
        "cpu/screen/scan.hpp", "      survivors.restart();\n", ""
    ),
    "screen: rows in no leaf are left out": Fault(
        "cpu/screen/scan.hpp",
        "survivors.scan(by_leaves_ ? rest_ : all_,",
        "if (!by_leaves_) survivors.scan(all_,",
    ),
    "screen: removed rows are found in leaves": Fault(
        "cpu/screen/walk.cpp",
        "if (!row_allowed(problem_.segments[at.segment], panel_.first() + query, at.row))",
        "if (false)",
    ),
    "screen: leaves are as near as their codes": Fault(
        "cpu/screen/panel.cpp",
        "const double off = z[d] - screen_.step * (codes[d] - kCodeOffset);",
        "const double off = std::rint(z[d] / screen_.step) - (codes[d] - kCodeOffset);",
    ),
    "screen: what was not read is taken for farther than it is": Fault(
        "core/screen.hpp", "return distance * (1 - 0x1p-36);", "return distance * 4 + 1;"
    ),
    "screen: the basis is taken for a rotation": Fault(
        "core/screen.cpp", "map.excess = defect(map.basis, n, dim, map.tail);", "map.excess = 0;"
    ),
    "screen: a range forgets the rows that wait": Fault(
        "cpu/range.hpp",
        "    if (pending_[static_cast<size_t>(query)].size() >= kMaxPending) settle(query);",
        "    if (pending_[static_cast<size_t>(query)].size() >= kMaxPending)\n"
        "      pending_[static_cast<size_t>(query)].clear();",
    ),
    "screen: a pair comes from both of its rows": Fault(
        "cpu/range.hpp", "|| !behind(query, segment, row)) return;", ") return;"
    ),
    "screen: inner products are lifted by another row's length": Fault(
        "cpu/screen/project.cpp",
        "std::sqrt(std::max(rest, 0.0))",
        "std::sqrt(std::max(rest / 4, 0.0))",
    ),
    "order: lanes are added in another order": Fault(
        "cpu/avx512/kernels.cpp",
        "((l[0] + l[1]) + (l[2] + l[3]))",
        "((l[0] + l[2]) + (l[1] + l[3]))",
    ),
    "order: squared differences are fused": Fault(
        "cpu/generic/rows.inl",
        "add(sums[r], multiply(difference, difference))",
        "add_product(difference, difference, sums[r])",
    ),
    "bound: the query's error is forgotten": Fault(
        "core/bound.hpp",
        " + q.error * double{x.norm};\n  if (!(radius < kInfinity)) return {",
        ";\n  if (!(radius < kInfinity)) return {",
    ),
    "bound: the quick test has no radius": Fault(
        "core/bound.hpp", "upper = product + radius;", "upper = product;"
    ),
    "bound: the quick test forgets the row's error": Fault(
        "core/bound.hpp", "cut.distance + q.error + double{x.error}", "cut.distance + q.error"
    ),
    "bound: a zero row has the cosine of its distance": Fault(
        "core/bound.hpp", "if (!(most < kInfinity) || x.norm == 0)", "if (!(most < kInfinity))"
    ),
    "bound: a strip has the squares of its last row": Fault(
        "cpu/encode.cpp", "most = std::max(most, ", "most = std::max(0.0, "
    ),
    "threshold: the heap of promises loses its order": Fault(
        "cpu/collector.cpp",
        "promises_[child + 1] < promises_[child]",
        "promises_[child + 1] > promises_[child]",
    ),
    "threshold: survivors not scored first are lost": Fault(
        "cpu/collector.cpp", "survivors_ = std::move(later);", "(void)later;"
    ),
    "bound: the row's error is forgotten in the triangle": Fault(
        "core/bound.hpp", "const double reach = q.error + double{x.error}", "double reach = q.error"
    ),
    "bound: norms of any size are in range": Fault(
        "core/bound.hpp",
        "return norm == 0 || (norm >= kMinNorm && norm <= kMaxNorm)",
        "return norm >= 0",
    ),
    "bound: the radius is half its size for distances": Fault(
        "core/bound.hpp", "centre + 2 * radius + slack}", "centre + radius + slack}"
    ),
    "bound: the root of the error is forgotten": Fault(
        "cpu/encode.cpp", "std::sqrt(q.error_square)", "q.error_square"
    ),
    "slack: rows have none": Fault(
        "core/bound.hpp", "m.error * (1 + kSlack) + kSlack * larger", "m.error"
    ),
    "slack: distances have none in the interval": Fault(
        "core/bound.hpp", "kDistanceSlack * (q.square + x_square)", "0 * x_square"
    ),
    "slack: distances have none in the filter": Fault(
        "core/bound.hpp",
        "constexpr double kDistanceSlack = 0x1p-19;",
        "constexpr double kDistanceSlack = 0;",
    ),
    "slack: similarities by distance have none": Fault(
        "core/bound.hpp",
        "constexpr double kSimilaritySlack = 0x1p-30;",
        "constexpr double kSimilaritySlack = 0;",
    ),
    "slack: the triangle has none": Fault(
        "core/bound.hpp", "kSlack * (q.code_square + norm_square)", "0 * norm_square"
    ),
    "filter: NaN is dropped": Fault("cpu/avx512/scan.cpp", "_CMP_NLT_UQ", "_CMP_GE_OQ"),
    "filter: the panel has the ratio of its last query": Fault(
        "cpu/panel.cpp",
        "ratio = std::max(ratio, error_ratio(bound(q)))",
        "ratio = error_ratio(bound(q))",
    ),
    "filter: the norm of the query is forgotten": Fault(
        "core/bound.hpp", "round_up(q.norm / q.scale)", "round_up(1 / q.scale)"
    ),
    "threshold: a root is not squared": Fault(
        "core/bound.hpp", "-(score * score) * (1 + 0x1p-50)", "-score"
    ),
    "threshold: only k - 1 rows reach it": Fault(
        "cpu/collector.cpp",
        "if (promises_.size() == k) raise",
        "if (promises_.size() + 1 >= k) raise",
    ),
    "threshold: a row that only reaches it is dropped": Fault(
        "cpu/collector.hpp",
        "if (interval.upper < threshold_) return",
        "if (interval.upper <= threshold_) return",
    ),
    "threshold: rows out of range supply one": Fault(
        "core/bound.hpp", "return {-kInfinity, kInfinity};", "return {0, kInfinity};"
    ),
    "tiling: sampled strips are scanned twice": Fault(
        "cpu/topk.cpp", "if (sampled != sampling) return;", "if (sampling && !sampled) return;"
    ),
    "tiling: every slice of dimensions starts anew": Fault(
        "cpu/avx512/dots.inl", "begin == 0 ? _mm512_set1", "begin >= 0 ? _mm512_set1"
    ),
    "tiling: a task leaves out its last strip": Fault(
        "cpu/tasks.hpp",
        "std::min((index + 1) * chunk, panels.n_strips)",
        "std::min((index + 1) * chunk - (index > 0), panels.n_strips)",
    ),
    "tails: the first row behind the strips is left out": Fault(
        "cpu/strip_walk.hpp",
        "for (int64_t row = segment.n_strips * kStripRows; row",
        "for (int64_t row = segment.n_strips * kStripRows + (segment.n_strips > 2); row",
    ),
    "tails: one element too many is read": Fault(
        "cpu/avx512/kernels.cpp", "(1u << n) - 1u", "(2u << n) - 1u"
    ),
    "merge: rows scored by another thread are lost": Fault(
        "cpu/collector.cpp",
        "scored_.insert(scored_.end(), other.scored_.begin(), other.scored_.end());",
        "(void)other;",
    ),
    "merge: the best k are k - 1": Fault(
        "cpu/collector.cpp",
        "scored_.resize(static_cast<size_t>(k_));",
        "scored_.resize(static_cast<size_t>(k_ > 1 ? k_ - 1 : 1));",
    ),
    "masks: removed rows are found in strips": Fault(
        "cpu/strip_reader.cpp",
        "const uint64_t live = segment.live ? segment.live[strip] : ~uint64_t{0};",
        "const uint64_t live = ~uint64_t{0};",
    ),
    "masks: a strip that lacks a row is passed over": Fault(
        "cpu/allowed.hpp", "word(at) == 0", "~word(at) != 0"
    ),
    "masks: a query has the booleans of the first": Fault(
        "cpu/strip_reader.cpp", "where_bytes_ + query * args_.where_stride", "where_bytes_"
    ),
    "masks: a query has the mask of the first": Fault(
        "cpu/generic/hits.inl", "strip.where[query * strip.where_stride]", "strip.where[0]"
    ),
}

# pytest in a process that finds the copy and not the installed package.
RUN = """
import sys
sys.meta_path = [f for f in sys.meta_path if "Redirecting" not in type(f).__name__]
sys.path.insert(0, sys.argv[1])
import pytest
options = ["-x", "-q", "-p", "no:cacheprovider", "-k", "not " + sys.argv[2]]
sys.exit(pytest.main([*options, *sys.argv[3:]]))
"""


def copy_checkout(work: Path) -> None:
    for name in ("csrc", "cmake", "python", "tests"):
        shutil.copytree(ROOT / name, work / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("CMakeLists.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, work / name)


def build(work: Path) -> None:
    out = work / "build"
    if not out.exists():
        options = [
            "-DCMAKE_BUILD_TYPE=Release",
            "-DFR_CUDA=OFF",
            f"-DPython_EXECUTABLE={sys.executable}",
        ]
        pybind = subprocess.run(
            [sys.executable, "-m", "pybind11", "--cmakedir"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        subprocess.run(
            ["cmake", "-S", work, "-B", out, f"-Dpybind11_DIR={pybind}", *options],
            check=True,
            capture_output=True,
        )
    subprocess.run(["cmake", "--build", out, "-j2"], check=True, capture_output=True)
    (module,) = out.glob("_core.*.so")
    target = work / "python" / "fastretrieve" / module.name
    target.unlink(missing_ok=True)
    shutil.copy(module, target)


def verdict(work: Path, suite: str) -> str:
    """Which test noticed, or "-"."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, work / "python", SKIPPED, work / "tests" / suite],
        cwd=work,
        capture_output=True,
        text=True,
    )
    if done.returncode == 0:
        return "-"
    failed = re.search(r"^FAILED \S+?::(\w+)", done.stdout, re.MULTILINE)
    return failed[1] if failed else f"the interpreter stopped ({done.returncode})"


def main() -> int:
    chosen = [name for name in FAULTS if all(word in name for word in sys.argv[1:])]
    missed = 0
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        copy_checkout(work)
        build(work)
        for suite in (*SUITES, *SCREEN_SUITES):
            assert verdict(work, suite) == "-", f"{suite} fails without any fault"
        for name in chosen:
            fault = FAULTS[name]
            path = work / "csrc" / fault.path
            text = path.read_text()
            path.write_text(text.replace(fault.right, fault.wrong))
            build(work)
            suites = SCREEN_SUITES if name.startswith("screen") else SUITES
            found = [verdict(work, suite) for suite in suites]
            path.write_text(text)
            missed += set(found) == {"-"}
            print("|", " | ".join([name, *found]), "|", flush=True)
    print(f"{len(chosen) - missed} of {len(chosen)} faults were caught")
    return missed


if __name__ == "__main__":
    sys.exit(main())
