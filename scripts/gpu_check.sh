#!/usr/bin/env bash
# Everything a GPU can tell, in one command: tests, compute-sanitizer, kernels beside PyTorch, steps, the demo.
#
#   scripts/gpu_check.sh [--bundle DIR | --build DIR] [--out DIR] [--minutes 9]
#
# Offline; writes DIR/summary.md and DIR/summary.json (default: gpu-check). See scripts/gpu_check.py. Exit status: 0
# all passed, 1 a step failed or ran out of time, 2 bad usage, 3 no GPU here.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
command -v python3 >/dev/null || { echo "gpu_check: needs python3" >&2; exit 2; }
exec python3 -B "$here/gpu_check.py" "$@"
