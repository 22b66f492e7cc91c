#!/usr/bin/env python3
"""scripts/check_ptx.py must complain about bad_kernels.cu, and about nothing else in it.

usage: test_witness.py NVCC
"""
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
SCRIPT = HERE.parent.parent / "scripts" / "check_ptx.py"

WANTED = {
    "narrow_f32": ["0 loads of 16 bytes", "0 stores of 16 bytes"],
    "local_f32": ["local memory"],
    "spilled_f32": ["local memory"],
    "shared_f32": ["8192 bytes of shared memory, 1024 are stated"],
    "relaxed_f32": ["relaxed arithmetic: div.approx"],
    "_Z11mangled_f32PK6float4PS_": ["a mangled name"],
    "unknown": ["no bound is stated"],
}

command = [SCRIPT, "--bounds", HERE / "bad_bounds.txt", sys.argv[1], HERE / "bad_kernels.cu"]
done = subprocess.run(command, capture_output=True, text=True)
print(done.stdout, done.stderr)
complaints = [line.split(": ", 2)[1:] for line in done.stdout.splitlines() if line.startswith("FAILED: ")]
wrong = [] if done.returncode == 1 else [f"exit status {done.returncode}, not 1"]
for kernel, parts in WANTED.items():
    wrong += [f"no complaint about {kernel}: {part}" for part in parts
              if not any(k == kernel and part in text for k, text in complaints)]
wrong += [f"unexpected: {k}: {text}" for k, text in complaints if not any(part in text for part in WANTED.get(k, []))
          and "registers" not in text]
if not any("tanh.approx" in text for _, text in complaints):
    wrong.append("tanh.approx went unnoticed")
for line in wrong:
    print("WRONG:", line)
sys.exit(1 if wrong else 0)
