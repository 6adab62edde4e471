#!/usr/bin/env bash
# Everything about TensorRT that only a machine with it can show: builds fp32, fp16 and int8 engines at three sizes,
# compares their pictures with ONNX Runtime in fp32, measures them beside trtexec, and writes
# benchmarks/results/tensorrt-GPU.json. For JetPack 6 and later and for x86 alike; docs/jetson.md says how to prepare.
#
#   tools/tensorrt_check.sh [--dry-run] [--model lite|full] [--data DIR] [--low-memory] [--work DIR]
#
#   --dry-run     print the commands, run none
#   --model       which network (lite)
#   --data        folder with real pairs (ir/, vis/) to calibrate int8 with; without it int8 uses generated pairs
#   --low-memory  for boards of 4 to 8 GB
#   --work        where graphs, engines and the timing cache go (out/tensorrt)
#   PYTHON        the interpreter (python3)
#   TRTEXEC       NVIDIA's program; found on PATH and where JetPack and the Debian packages put it
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
dry_run=false
model=lite
work=out/tensorrt
calibrate=()
build=()
while (($#)); do
  case $1 in
    --dry-run) dry_run=true ;;
    --model) model=${2:?--model needs a name} && shift ;;
    --data) calibrate=(--data "${2:?--data needs a folder}") && shift ;;
    --low-memory) build=(--low-memory) ;;
    --work) work=${2:?--work needs a folder} && shift ;;
    -h | --help) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" && exit 0 ;;
    *) echo "error: unknown option $1; see $0 --help" >&2 && exit 2 ;;
  esac
  shift
done

run() {
  printf '+'
  printf ' %q' "$@"
  printf '\n'
  $dry_run || "$@"
}

find_trtexec() {
  local candidate
  for candidate in "${TRTEXEC:-}" "$(command -v trtexec || true)" /usr/src/tensorrt/bin/trtexec; do
    if [[ -n $candidate && -x $candidate ]]; then
      echo "$candidate"
      return
    fi
  done
}

trtexec=$(find_trtexec)
beside=()
if [[ -n $trtexec ]]; then
  beside=(--trtexec "$trtexec")
else
  echo "no trtexec was found; speeds are measured without it (TRTEXEC=/path/to/trtexec)" >&2
fi
gpu=unknown
if ! $dry_run; then
  "$python" -c 'from pyldfusion.tensorrt_api import import_tensorrt; print("TensorRT", import_tensorrt().__version__)'
  gpu=$("$python" -c 'import re; from pyldfusion import hardware
print(re.sub(r"\W+", "-", hardware.cuda_name(0)).strip("-").lower() or "unknown")')
  mkdir -p "$work"
fi
# A Jetson at its highest clocks, where that is allowed; the mode it is in is part of the output.
if command -v nvpmodel > /dev/null; then
  run nvpmodel -q
  [[ $(id -u) != 0 ]] || run jetson_clocks
fi

engines=()
for precision in fp32 fp16 int8; do
  graph=$work/$model-$precision.onnx
  extra=()
  [[ $precision != int8 ]] || extra=("${calibrate[@]}")
  run "$python" -m export "$model" --format onnx --precision "$precision" "${extra[@]}" -o "$graph"
  for size in "256 320" "480 640" "768 1024"; do
    read -r height width <<< "$size"
    engine=$work/$model-$precision-1x${height}x$width.engine
    run "$python" -m export.tensorrt "$graph" -o "$engine" --imgsz "$height" "$width" --batch 1 \
      --timing-cache "$work/timing.cache" --force "${build[@]}"
    engines+=("$engine")
  done
done
run "$python" -m benchmarks tensorrt "${engines[@]}" --reference "$work/$model-fp32.onnx" "${beside[@]}" \
  -o "benchmarks/results/tensorrt-$gpu.json"
