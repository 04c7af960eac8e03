#!/bin/sh
# All that a GPU is needed for, in under 8 minutes: tests marked cuda, how busy it is kept, peak memory, a base in 4 bits.
#   sh benchmarks/gpu.sh            on a CUDA device
#   DEVICE=cpu sh benchmarks/gpu.sh a dry run: small sizes, which tells that every command runs, and no speed
# OUT: folder of the results, build/gpu by default. LLM: alias, id or path. PYTHON: of the environment.
set -eu
cd "$(dirname "$0")/.."
DEVICE=${DEVICE:-cuda} OUT=${OUT:-build/gpu} LLM=${LLM:-smollm2-135m} PYTHON=${PYTHON:-.venv/bin/python}
mkdir -p "$OUT"
# Its output to a file and the terminal, its failure to the script.
kept() { file=$OUT/$1; shift; "$@" > "$file" || { cat "$file"; exit 1; }; cat "$file"; }
if [ "$DEVICE" = cuda ]; then
  "$PYTHON" -c 'import sys, torch; sys.exit(None if torch.cuda.is_available() else "no CUDA device; DEVICE=cpu makes a dry run")'
  nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv > "$OUT/card.csv"
  kept tests.txt timeout 150 "$PYTHON" -m pytest -m cuda tests/test_cuda.py
  kept speed.jsonl timeout 150 "$PYTHON" benchmarks/device_speed.py --llm "$LLM"
  kept compiled.jsonl timeout 120 "$PYTHON" benchmarks/device_speed.py --compile
  kept seeds.jsonl timeout 60 "$PYTHON" benchmarks/seeds.py --device cuda --students sasrec --steps 200
  if "$PYTHON" -c 'import bitsandbytes' 2> /dev/null; then
    kept speed_4bit.jsonl timeout 120 "$PYTHON" benchmarks/device_speed.py --llm "$LLM" --load-in-4bit
  else
    echo "no bitsandbytes: the base in 4 bits is left out" | tee "$OUT/speed_4bit.jsonl"
  fi
else
  kept tests.txt "$PYTHON" -m pytest tests/test_cuda.py -k cpu
  kept speed.jsonl "$PYTHON" benchmarks/device_speed.py --device cpu --tiny
  kept compiled.jsonl "$PYTHON" benchmarks/device_speed.py --device cpu --tiny --compile
  kept seeds.jsonl "$PYTHON" benchmarks/seeds.py --device cpu --students sasrec --seeds 3 --steps 3
  echo "dry run on the CPU: nothing ran on CUDA"
fi
