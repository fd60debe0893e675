#!/usr/bin/env bash
# Everything to learn from a GPU, without a network:
#
#     benchmarks/gpu.sh                         # all phases, in this order, as far as LIMIT seconds go
#     benchmarks/gpu.sh build check tests       # some of them: each call fits ten minutes
#     benchmarks/gpu.sh sanitize profile
#     benchmarks/gpu.sh ceilings ours
#     PEERS=DIR benchmarks/gpu.sh peers         # with FAISS, cuVS, FlashLib, KeOps of DIR/use_peers.sh
#
#   build     nvcc for this GPU (FR_CUDA_ARCHS, 90a-real), into build/gpu, kept while sources stay
#   check     every tier against the CPU, bit for bit; `fastretrieve doctor --prove` first
#   tests     the tests of the CUDA backend, those marked gpu included
#   sanitize  memcheck, racecheck and initcheck over small searches
#   ceilings  copy and read bandwidth, int8 rate, launch latency
#   ours      every tier at every size, ids checked first
#   peers     who else is there, on the same tensors
#   profile   ncu's report of the scans
#
# Each part is a process of its own with a limit: one that fails or hangs loses nothing of the others.
# What they found is in $OUT (./out): gpu.json, table.txt and logs.tar.gz. Needs python3 with torch,
# numpy, pytest, pybind11 and scikit-build-core; cmake, ninja and nvcc.
set -uo pipefail
cd "$(dirname "$(realpath "$0")")/.." || exit
OUT=$(realpath -m "${OUT:-out}")
WORK=$(realpath -m "${WORK:-build/gpu}")
SITE=${SITE:-} # a folder with a built fastretrieve: then nothing is built
FOUND=$WORK/found # kept between calls, so that the report has all phases
PYTHON=${PYTHON:-python3}
ARCHS=${FR_CUDA_ARCHS:-90a-real}
TIERS=${TIERS:-dp4a mma wgmma}
LIMIT=${LIMIT:-560}
DRY=(${DRY:+--dry-run}) # set: every phase with tiny sizes, in an emulated build
PHASES=(build check tests sanitize ceilings ours peers profile)
START=$SECONDS
RUN=("$PYTHON" benchmarks/gpu/run.py)
mkdir -p "$OUT" "$FOUND"
export XDG_CACHE_HOME=$WORK/caches # which tiers are proved: a record of these builds, not of the user's
export PYTHONPATH="${SITE:-$WORK/site}${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1

# part NAME SECONDS COMMAND...: runs it, keeps its output and its verdict. It gets what is left of the
# time where that is less.
part() {
  local name=$1 limit=$2 begin=$SECONDS code=0 left=$((LIMIT - (SECONDS - START)))
  shift 2
  if [ "$left" -lt 10 ]; then
    echo "$name: no time was left" | tee -a "$FOUND/parts.txt"
    return 1
  fi
  timeout -k 5 "$((left < limit ? left : limit))" "$@" >"$FOUND/$name.log" 2>&1 || code=$?
  echo "$name: exit $code after $((SECONDS - begin)) s" | tee -a "$FOUND/parts.txt"
  [ "$code" = 0 ] || tail -n 8 "$FOUND/$name.log"
  return "$code"
}

has() { command -v "$1" >/dev/null || { echo "$1: not here" | tee -a "$FOUND/parts.txt"; false; }; }

sources() {
  find csrc python cmake CMakeLists.txt pyproject.toml -type f ! -name '*.pyc' ! -name '_core*.so' -print0 |
    sort -z | xargs -0 sha256sum | sha256sum
  echo "$ARCHS $FR_CUDA"
}

build() {
  export FR_CUDA=${FR_CUDA:-ON}
  local stamp=$WORK/built
  if [ -z "$SITE" ] && [ "$(sources)" != "$(cat "$stamp" 2>/dev/null)" ]; then
    rm -rf "$WORK/site" "$stamp" "$FOUND" # what was found is of other sources
    mkdir -p "$FOUND"
    part build 330 "$PYTHON" -m pip install -q --no-deps --no-build-isolation --no-index \
      --config-settings=build-dir="$WORK/cmake" --config-settings=cmake.define.FR_CUDA="$FR_CUDA" \
      --config-settings=cmake.define.FR_CUDA_ARCHS="$ARCHS" --target "$WORK/site" . || return 1
    sources >"$stamp"
  fi
  if [ "$FR_CUDA" = ON ] && has nvcc && [ benchmarks/gpu/rates.cu -nt "$WORK/rates" ]; then
    part rates_build 90 nvcc -std=c++17 -O3 -gencode=arch=compute_90a,code=sm_90a -Icsrc \
      benchmarks/gpu/rates.cu -o "$WORK/rates"
  fi
}

check() {
  local tier
  part prove 240 "${RUN[@]}" prove --seconds 230 --out "$FOUND/prove.json" "${DRY[@]}"
  for tier in $TIERS; do
    part "check-$tier" 100 "${RUN[@]}" check --tier "$tier" --out "$FOUND/check-$tier.json" "${DRY[@]}"
  done
}

tests() {
  part tests 300 "$PYTHON" -m pytest -q -p no:cacheprovider tests/test_cuda.py tests/test_cuda_arrays.py \
    tests/test_cuda_hardware.py tests/test_cuda_index.py tests/test_cuda_ops.py tests/test_cuda_plan.py \
    tests/test_cuda_proving.py
}

sanitize() {
  local tool tier
  has compute-sanitizer || return
  for tool in memcheck racecheck initcheck; do
    for tier in $TIERS; do
      part "$tool-$tier" 90 compute-sanitizer --tool "$tool" --error-exitcode 9 "${RUN[@]}" check \
        --small --tier "$tier" --out "$FOUND/$tool-$tier.json" "${DRY[@]}"
    done
  done
}

ceilings() {
  local rates=()
  [ -x "$WORK/rates" ] && rates=(--rates "$WORK/rates")
  part ceilings 60 "${RUN[@]}" ceilings "${rates[@]}" --out "$FOUND/ceilings.json" "${DRY[@]}"
}

ours() {
  local tier
  for tier in $TIERS; do
    part "ours-$tier" 180 "${RUN[@]}" ours --tier "$tier" --seconds 170 --out "$FOUND/ours-$tier.json" "${DRY[@]}"
  done
}

peers() {
  if [ -n "${PEERS:-}" ] && [ -f "$PEERS/use_peers.sh" ]; then
    set +u
    # shellcheck disable=SC1091
    source "$PEERS/use_peers.sh" || echo "the peers could not be put on the path"
    set -u
  fi
  local peer
  while read -r peer; do
    part "peer-${peer// /-}" 120 "${RUN[@]}" peer --peer "$peer" --seconds 110 \
      --out "$FOUND/peer-${peer// /-}.json" "${DRY[@]}" </dev/null
  done < <("$PYTHON" -c 'import sys; sys.path.insert(0, "benchmarks/gpu"); import peers; print(*peers.PEERS, sep="\n")')
}

profile() {
  local tier
  has ncu || return
  for tier in $TIERS; do
    part "profile-$tier" 100 ncu --clock-control none --set basic -k "regex:scan_" -c 8 "${RUN[@]}" check \
      --small --tier "$tier" --out "$FOUND/profile-$tier.json" "${DRY[@]}"
  done
}

chosen=("${@:-${PHASES[@]}}")
for phase in "${chosen[@]}"; do
  [[ " ${PHASES[*]} " = *" $phase "* ]] || { echo "no phase '$phase': ${PHASES[*]}"; exit 2; }
done
build || { echo "no build, nothing to measure"; exit 1; }
for phase in "${chosen[@]}"; do
  [ "$phase" = build ] || "$phase"
done
"$PYTHON" benchmarks/gpu/report.py "$FOUND" --out "$OUT/gpu.json" | tee "$OUT/table.txt"
tar -C "$WORK" -czf "$OUT/logs.tar.gz" found
echo "$((SECONDS - START)) s in all; $OUT/gpu.json"
