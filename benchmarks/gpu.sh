#!/bin/sh
# All that a GPU is needed for, in at most 8 minutes: tests marked cuda, how busy it is kept, peak memory, a base in 4 bits.
#   sh benchmarks/gpu.sh            on a CUDA device
#   DEVICE=cpu sh benchmarks/gpu.sh a dry run: small sizes, which tells that every command runs, and no speed
# A part that fails or takes too long is named at the end, and the others run; the status is then 1.
# OUT: folder of the results, build/gpu by default. LLM: alias, id or path. PYTHON: of the environment.
set -eu
cd "$(dirname "$0")/.."
DEVICE=${DEVICE:-cuda} OUT=${OUT:-build/gpu} LLM=${LLM:-smollm2-135m} PYTHON=${PYTHON:-.venv/bin/python}
mkdir -p "$OUT"
failed=
# kept FILE SECONDS COMMAND...: the output to a file and the terminal, within so many seconds; 0: as long as it takes.
kept() {
  file=$OUT/$1 limit=$2; shift 2
  status=0
  timeout "$limit" "$@" > "$file" || status=$?
  cat "$file"
  if [ "$status" -ne 0 ]; then failed="$failed ${file##*/} (status $status)"; fi
}
if [ "$DEVICE" = cuda ]; then
  "$PYTHON" -c 'import sys, torch; sys.exit(None if torch.cuda.is_available() else "no CUDA device; DEVICE=cpu makes a dry run")'
  nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv > "$OUT/card.csv"
  # 480 seconds in all; tests/test_gpu_script.py adds them up.
  kept tests.txt 120 "$PYTHON" -m pytest -m cuda tests/test_cuda.py
  kept speed.jsonl 120 "$PYTHON" benchmarks/device_speed.py --llm "$LLM"
  kept compiled.jsonl 90 "$PYTHON" benchmarks/device_speed.py --compile
  kept seeds.jsonl 50 "$PYTHON" benchmarks/seeds.py --device cuda --students sasrec --steps 200
  if "$PYTHON" -c 'import bitsandbytes' 2> /dev/null; then
    kept speed_4bit.jsonl 100 "$PYTHON" benchmarks/device_speed.py --llm "$LLM" --load-in-4bit
  else
    echo "no bitsandbytes: the base in 4 bits is left out" | tee "$OUT/speed_4bit.jsonl"
  fi
else
  kept tests.txt 0 "$PYTHON" -m pytest tests/test_cuda.py -k cpu
  kept speed.jsonl 0 "$PYTHON" benchmarks/device_speed.py --device cpu --tiny
  kept compiled.jsonl 0 "$PYTHON" benchmarks/device_speed.py --device cpu --tiny --compile
  kept seeds.jsonl 0 "$PYTHON" benchmarks/seeds.py --device cpu --students sasrec --seeds 3 --steps 3
  echo "dry run on the CPU: nothing ran on CUDA"
fi
if [ -n "$failed" ]; then
  echo "failed:$failed" >&2
  exit 1
fi
