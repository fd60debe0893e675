#!/usr/bin/env bash
# Everything to learn from a GPU in one command, in under nine minutes and without a network:
#
#     benchmarks/gpu.sh               # build, test, sanitize, measure; writes $OUT/gpu.json (./out)
#     PEERS=DIR benchmarks/gpu.sh     # with FAISS, cuVS, FlashLib and KeOps from DIR/use_peers.sh
#     PROFILE=1 benchmarks/gpu.sh     # and a report of ncu for the scan of each tier
#
# A part that fails is recorded and does not stop the others. Needs python3 with torch, numpy, pytest,
# pybind11 and scikit-build-core; cmake, ninja and nvcc.
set -uo pipefail
cd "$(dirname "$(realpath "$0")")/.."
OUT=$(realpath -m "${OUT:-out}")
PYTHON=${PYTHON:-python3}
ARCHS=${FR_CUDA_ARCHS:-90a-real}
START=$SECONDS
mkdir -p "$OUT"
: >"$OUT/parts.txt"

# part NAME SECONDS COMMAND...: runs it, keeps its output and its verdict.
part() {
  local name=$1 limit=$2 begin=$SECONDS code=0
  shift 2
  timeout "$limit" "$@" >"$OUT/$name.log" 2>&1 || code=$?
  echo "$name $code $((SECONDS - begin))" | tee -a "$OUT/parts.txt"
  [ "$code" = 0 ] || tail -n 15 "$OUT/$name.log"
  return "$code"
}

build() {
  local site=$OUT/site
  rm -rf "$site"
  FR_CUDA=ON FR_CUDA_ARCHS=$ARCHS "$PYTHON" -m pip install -q --no-deps --no-build-isolation \
    --no-index --config-settings=build-dir="$OUT/build" --target "$site" .
}
export -f build
export OUT PYTHON ARCHS
export PYTHONPATH="$OUT/site${PYTHONPATH:+:$PYTHONPATH}"

part build 240 bash -c build || { echo "no build, nothing to measure"; exit 1; }
part rates_build 60 nvcc -std=c++17 -O3 -gencode=arch=compute_90a,code=sm_90a -Icsrc \
  benchmarks/gpu/rates.cu -o "$OUT/rates"
part check 60 "$PYTHON" benchmarks/gpu/run.py --check-only --out "$OUT/check.json"
part tests 120 "$PYTHON" -m pytest -q -p no:cacheprovider -m "not slow" \
  tests/test_cuda.py tests/test_cuda_plan.py
if command -v compute-sanitizer >/dev/null; then
  for tool in memcheck racecheck; do
    part "$tool" 60 compute-sanitizer --tool "$tool" --error-exitcode 9 "$PYTHON" \
      benchmarks/gpu/run.py --check-only --small --out "$OUT/$tool.json"
  done
fi
if [ -n "${PEERS:-}" ] && [ -f "$PEERS/use_peers.sh" ]; then
  set +u
  # shellcheck disable=SC1091
  source "$PEERS/use_peers.sh" || echo "the peers could not be put on the path"
  set -u
fi
LEFT=$((530 - (SECONDS - START)))
part measure "$((LEFT > 60 ? LEFT : 60))" "$PYTHON" benchmarks/gpu/run.py --rates "$OUT/rates" \
  --parts "$OUT/parts.txt" --seconds "$((LEFT > 80 ? LEFT - 30 : 50))" --out "$OUT/gpu.json"
tail -n 60 "$OUT/measure.log"
if [ -n "${PROFILE:-}" ] && command -v ncu >/dev/null; then
  part profile 120 ncu --clock-control none --set basic -k "regex:scan_" -c 12 "$PYTHON" \
    benchmarks/gpu/run.py --check-only --out "$OUT/profile.json"
fi
echo "$((SECONDS - START)) s in all; $OUT/gpu.json"
