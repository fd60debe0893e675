#!/usr/bin/env bash
# The evidence that a GPU gives in a few minutes, without a network. Three calls of one command each:
#
#     benchmarks/gpu.sh                               # first: 330 s at most
#     SITE=out/site.tar.gz benchmarks/gpu.sh second   # 270 s at most, with the build of the first
#     SITE=out/site.tar.gz benchmarks/gpu.sh third    # 240 s at most, if time is left
#     benchmarks/gpu.sh build tests                   # or single phases
#
# A call runs its phases in the order of their worth and stops at its limit (LIMIT seconds):
#
#   first   build     nvcc for this GPU (FR_CUDA_ARCHS, 90a-real); SITE replaces it
#           prove     every tier against the CPU, bit for bit, all tiers at the same time
#           ours      five cases on tiers mma and wgmma, answers checked first
#           ceilings  read and copy bandwidth, int8 rate, on random data
#           kernels   the time of each kernel in a search
#           peers     torch in bfloat16, and FlashLib if it is installed or PEERS has its wheel
#   second  ceilings  again, because another machine may serve the second call
#           tests     the tests of the CUDA backend, those marked gpu first
#           rest      the remaining cases, and tier dp4a
#           check     larger indexes against the CPU, bit for bit
#           others    the remaining peers: PEERS=DIR with use_peers.sh puts them on the path
#   third   sanitize  memcheck, racecheck and initcheck over small searches
#           profile   ncu over the scans of small searches
#
# Each part of a phase is a process with a limit. The report is rewritten after every result, so a
# call that is stopped leaves what it found; the report names the phases that are missing.
#
# In OUT (./out): gpu-CALL.json, ready for benchmarks/results; table.txt; logs.tar.gz; and
# site.tar.gz, the build and the verdicts on its tiers, which SITE takes. No file exceeds 16 MiB.
# COMMIT names the commit where there is no git. Needs python3 with torch, numpy, pip, pybind11,
# scikit-build-core and pytest; cmake, ninja and nvcc.
set -uo pipefail
cd "$(dirname "$(realpath "$0")")/.." || exit
declare -A PHASES_OF=([first]="build prove ours ceilings kernels peers"
  [second]="build ceilings tests rest check others" [third]="build sanitize profile")
declare -A LIMIT_OF=([first]=330 [second]=270 [third]=240 [chosen]=560)
KNOWN="build prove ours ceilings kernels peers tests rest check others sanitize profile"
CALL=${1:-first}
if [ -n "${PHASES_OF[$CALL]:-}" ] && [ $# -le 1 ]; then
  read -ra PHASES <<<"${PHASES_OF[$CALL]}"
else
  CALL=chosen PHASES=("$@")
  for phase in "${PHASES[@]}"; do
    [[ " $KNOWN " = *" $phase "* ]] || { echo "no phase '$phase': $KNOWN"; exit 2; }
  done
  [ "${PHASES[0]}" = build ] || PHASES=(build "${PHASES[@]}")
fi

OUT=$(realpath -m "${OUT:-out}")
WORK=$(realpath -m "${WORK:-build/gpu}")
SITE=${SITE:+$(realpath -m "$SITE")} # site.tar.gz of another call, or a folder with fastretrieve
FOUND=$WORK/found                    # of this call
PYTHON=${PYTHON:-python3}
ARCHS=${FR_CUDA_ARCHS:-90a-real}
TIERS=${TIERS:-dp4a mma wgmma}
FAST_TIERS=${FAST_TIERS:-mma wgmma}
LIMIT=${LIMIT:-${LIMIT_OF[$CALL]}}
LEAST=${LEAST:-10}                # seconds: with less, no part begins
END=$((SECONDS + LIMIT - 5))      # the rest is for a part that has to be killed, and the report
MOST_BYTES=${MOST_BYTES:-16000000} # of a file in OUT
DRY=(${DRY:+--dry-run})           # set: every phase with tiny sizes, in an emulated build
REPORT=$OUT/gpu-$CALL.json
RUN=("$PYTHON" benchmarks/gpu/run.py)
child="" rates="" running=start
export FR_CUDA=${FR_CUDA:-ON}
export PATH=$PATH:${CUDA_HOME:-/usr/local/cuda}/bin # nvcc, ncu and compute-sanitizer may be there only
export XDG_CACHE_HOME=$WORK/caches                  # the verdicts on this build, not the user's
export PYTHONUNBUFFERED=1

note() { printf '%s\t%s\t%s\n' "$@" >>"$FOUND/parts.tsv"; }

report() {
  "$PYTHON" benchmarks/gpu/report.py "$FOUND" --out "$REPORT" --table "$OUT/table.txt" \
    --logs "$OUT/logs.tar.gz"
}

# part NAME SECONDS COMMAND...: runs it, keeps its output and its verdict. It gets the time that is
# left if that is less.
part() {
  local name=$1 limit=$2 begin=$SECONDS code=0 left=$((END - SECONDS)) verdict
  shift 2
  if [ "$left" -lt "$LEAST" ]; then
    skip "$name" "no time was left"
    return 1
  fi
  running=$name
  timeout -k 3 "$((left < limit ? left : limit))" "$@" >"$FOUND/$name.log" 2>&1 </dev/null &
  child=$!
  wait "$child" || code=$?
  child=""
  case $code in
    0) verdict="done" ;;
    124 | 137) verdict="killed at its limit" ;;
    *) verdict="exit $code" ;;
  esac
  note "$name" "$verdict" $((SECONDS - begin))
  echo "$name: $verdict after $((SECONDS - begin)) s"
  [ "$code" = 0 ] || tail -n 8 "$FOUND/$name.log"
  report
  return "$code"
}

skip() {
  note "$1" "skipped: $2" 0
  echo "$1: skipped: $2"
}

has() { command -v "$1" >/dev/null || { skip "$1" "$1 is not installed"; false; }; }

# Ends the running part and leaves the report; what a signal stops is not over.
stop() {
  trap '' TERM INT HUP
  [ -z "$child$rates" ] || kill $child $rates 2>/dev/null
  wait
  note "$running" "stopped by a signal" 0
  report
  exit 143
}

sources() {
  {
    find csrc python cmake CMakeLists.txt pyproject.toml -type f ! -name '*.pyc' ! -name '_core*.so' \
      -print0 | LC_ALL=C sort -z | xargs -0 sha256sum
    echo "$ARCHS $FR_CUDA"
  } | sha256sum | cut -c 1-16
}

fact() { printf '%s\t%s\n' "$1" "${2:-unknown}" >>"$FOUND/facts.tsv"; }

facts() {
  local device driver rest
  IFS=, read -r device driver rest < <(timeout 20 nvidia-smi \
    --query-gpu=name,driver_version,memory.total,compute_cap --format=csv,noheader 2>/dev/null)
  fact device "$device"
  fact driver "${driver# }"
  fact memory_and_capability "${rest# }"
  fact commit "${COMMIT:-$(git describe --always --dirty=+changes --abbrev=40 --exclude='*' 2>/dev/null)}"
  fact sources "$(sources)"
  fact date "$(date -u +%Y-%m-%dT%H:%M:%SZ)"
  fact nvcc "$(nvcc --version 2>/dev/null | sed -n 's/.*release \([0-9.]*\).*/\1/p')"
  fact architectures_asked "$ARCHS"
}

build() {
  local site=$WORK/site stamp=$WORK/built now
  now=$(sources)
  if [ -d "$SITE" ]; then
    site=$SITE
  elif [ -n "$SITE" ]; then
    tar -C "$WORK" -xzf "$SITE" || return 1
    [ "$(cat "$stamp")" = "$now" ] || skip build-of-these-sources "SITE has a build of other sources"
  elif [ "$now" != "$(cat "$stamp" 2>/dev/null)" ]; then
    rm -rf "$site" "$stamp" "$WORK/rates"
    build_rates &
    rates=$!
    part build 240 "$PYTHON" -m pip install -q --no-deps --no-build-isolation --no-index \
      --config-settings=build-dir="$WORK/cmake" --config-settings=cmake.define.FR_CUDA="$FR_CUDA" \
      --config-settings=cmake.define.FR_CUDA_ARCHS="$ARCHS" --target "$site" . || return 1
    echo "$now" >"$stamp"
  fi
  fact built_from "$(cat "$stamp" 2>/dev/null)"
  export PYTHONPATH=$site${PYTHONPATH:+:$PYTHONPATH}
  keep_site
}

# Beside the build, which does not use all cores.
build_rates() {
  command -v nvcc >/dev/null || exit
  local arch=${ARCHS%%[-;]*}
  exec timeout 90 nvcc -std=c++17 -O3 "-gencode=arch=compute_$arch,code=sm_$arch" -Icsrc \
    benchmarks/gpu/rates.cu -o "$WORK/rates" >"$FOUND/rates-build.log" 2>&1
}

keep_site() {
  local kept=() name
  for name in site built rates caches/fastretrieve; do
    [ ! -e "$WORK/$name" ] || kept+=("$name")
  done
  [ -d "$WORK/site" ] && [ -z "$SITE" ] || return 0
  tar -C "$WORK" --exclude=__pycache__ -czf "$OUT/site.tar.gz.part" "${kept[@]}"
  if [ "$(stat -c %s "$OUT/site.tar.gz.part")" -gt "$MOST_BYTES" ]; then
    rm "$OUT/site.tar.gz.part"
    skip site.tar.gz "it exceeds $MOST_BYTES bytes"
  else
    mv "$OUT/site.tar.gz.part" "$OUT/site.tar.gz"
  fi
}

# run NAME SECONDS WHAT...: a part of run.py, whose work ends shortly before it would be killed.
run() {
  local name=$1 limit=$2 left=$((END - SECONDS))
  shift 2
  part "$name" "$limit" "${RUN[@]}" "$@" --out "$FOUND/$name.json" --report "$REPORT" \
    --seconds "$(((left < limit ? left : limit) - 5))" "${DRY[@]}"
}

prove() {
  run prove 100 prove
  keep_site # with the verdicts
}

ours() {
  local tier
  for tier in $FAST_TIERS; do run "ours-$tier" 50 ours --tier "$tier" --cases first; done
}

ceilings() {
  local program=()
  [ -z "$rates" ] || wait "$rates"
  rates=""
  [ ! -x "$WORK/rates" ] || program=(--rates "$WORK/rates")
  run ceilings 45 ceilings "${program[@]}"
}

kernels() {
  local tier
  for tier in $FAST_TIERS; do run "kernels-$tier" 40 kernels --tier "$tier" --cases first; done
}

peers() {
  if [ -n "${PEERS:-}" ] && compgen -G "$PEERS/flashlib*.whl" >/dev/null; then
    part flashlib-install 20 "$PYTHON" -m pip install -q --no-index --no-deps --no-compile \
      --target "$WORK/flashlib" "$PEERS"/flashlib*.whl
    PYTHONPATH=${PYTHONPATH:+$PYTHONPATH:}$WORK/flashlib
  fi
  run peer-torch-bfloat16 40 peer --peer "torch bfloat16" --cases first
  run peer-flashlib-bfloat16 60 peer --peer "flashlib bfloat16" --cases first
}

tests() {
  part tests 150 "$PYTHON" -m pytest -v -W default -m "not slow" -p no:cacheprovider \
    -o faulthandler_timeout=60 --maxfail 30 --tb short tests/test_cuda_hardware.py \
    tests/test_cuda_arrays.py tests/test_cuda_index.py tests/test_cuda_ops.py tests/test_cuda.py \
    tests/test_cuda_plan.py tests/test_cuda_proving.py
}

rest() {
  local tier
  for tier in $FAST_TIERS; do run "rest-$tier" 60 ours --tier "$tier" --cases rest; done
  run rest-dp4a 60 ours --tier dp4a --cases all
}

check() {
  local tier
  for tier in $TIERS; do run "check-$tier" 60 check --tier "$tier"; done
}

others() {
  local peer
  if [ -f "${PEERS:-}/use_peers.sh" ]; then
    set +u
    # shellcheck disable=SC1091
    source "$PEERS/use_peers.sh" || echo "the peers could not be put on the path"
    set -u
  fi
  while read -r peer; do
    run "other-${peer// /-}" 60 peer --peer "$peer" --cases all
  done < <("$PYTHON" benchmarks/gpu/run.py names --out "$FOUND/names.json")
}

sanitize() {
  local tool tier
  has compute-sanitizer || return
  for tool in memcheck racecheck initcheck; do
    for tier in $TIERS; do
      part "$tool-$tier" 60 compute-sanitizer --tool "$tool" --error-exitcode 9 "${RUN[@]}" check \
        --small --tier "$tier" --out "$FOUND/$tool-$tier.json" "${DRY[@]}"
    done
  done
}

profile() {
  local tier
  has ncu || return
  for tier in $TIERS; do
    part "profile-$tier" 60 ncu --clock-control none --set basic -k "regex:scan_" -c 8 "${RUN[@]}" \
      check --small --tier "$tier" --out "$FOUND/profile-$tier.json" "${DRY[@]}"
  done
}

rm -rf "$FOUND" "$REPORT" # a report is of one call
mkdir -p "$OUT" "$FOUND"
trap stop TERM INT HUP
printf '%s\n' "$CALL" "${PHASES[*]}" >"$FOUND/plan.txt"
facts
built=yes
for phase in "${PHASES[@]}"; do
  echo "begin $phase" >>"$FOUND/phases.txt"
  report
  if [ "$phase" = build ]; then
    build || built=no
  elif [ "$built" = no ] && [[ " ceilings peers others " != *" $phase "* ]]; then
    skip "$phase" "there is no build"
  else
    "$phase"
  fi
  echo "end $phase" >>"$FOUND/phases.txt"
done
echo finished >>"$FOUND/phases.txt"
report
cat "$OUT/table.txt"
echo "$SECONDS s in all; $REPORT"
[ "$built" = yes ]
