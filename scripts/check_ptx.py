#!/usr/bin/env python3
"""The compiler as a witness for the CUDA kernels; needs nvcc, no GPU.

Compiles each kernel file once and asks of every kernel:
  * a bound stated for it in tests/compile/bounds.txt, and registers and shared memory within it
  * no spills and no local memory
  * as many 16-byte loads and stores as stated there
  * no flush-to-zero arithmetic and no approximations, but for what a normal expf, tanhf, ... is made of:
    ex2.approx.ftz and rcp.approx.ftz, which scale around them
  * a name that is not mangled: a profiler shows what the source says

With --figures FILE, also: the table of kernels in that file says what the compiler says (scripts/kernel_figures.py);
--refresh writes it, e.g. after a kernel was changed:

    scripts/check_ptx.py --figures docs/KERNELS.md --refresh /usr/local/cuda/bin/nvcc

usage: check_ptx.py [--arch 90] [--bounds FILE] [--figures FILE [--refresh]] [--jobs N] [--list] NVCC [FILE.cu...]
"""
import argparse
import concurrent.futures
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True  # beside the scripts
import kernel_figures  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parent.parent
# As in kernels/cuda/CMakeLists.txt.
FLAGS = ["-std=c++20", "-O3", "-fmad=false", "-lineinfo", f"-I{ROOT}", f"-I{ROOT}/kernels/include"]

WIDE = r"(?:v4\.[a-z]+32|v2\.[a-z]+64|v8\.[a-z]+16)"
LOAD = re.compile(r"\bld(?:\.global)?(?:\.nc)?(?:\.L\w+)*\." + WIDE)  # pointers from a table are generic
STORE = re.compile(r"\bst(?:\.global)?(?:\.L\w+)*\." + WIDE)
RELAXED = re.compile(r"\b(?:(?:add|sub|mul|fma|mad|div|sqrt|rsqrt|cvt|min|max|abs|neg|setp)[a-z0-9.]*\.ftz[a-z0-9.]*"
                     r"|(?:div|sqrt|rsqrt|tanh|sin|cos|lg2)\.(?:approx|full)[a-z0-9.]*)")


class Bound:
    def __init__(self, line):
        words = line.split()
        if len(words) != 5:
            raise SystemExit(f"bounds: five columns wanted: {line}")
        self.text, self.pattern = words[0], re.compile(words[0])
        self.registers, self.shared, self.loads, self.stores = map(int, words[1:])
        self.kernels = []


class Kernel:
    def __init__(self, name):
        self.name = name
        self.registers = self.shared = self.loads = self.stores = 0
        self.local = ""
        self.relaxed = set()


def read_bounds(path):
    lines = (line.split("#")[0].strip() for line in path.read_text().splitlines())
    return [Bound(line) for line in lines if line]


def compile_file(nvcc, arch, source, work):
    """The kernels of one file; nvcc's own complaint where it does not compile."""
    ptx = work / (source.stem + ".ptx")
    ptxas = shutil.which("ptxas", path=str(pathlib.Path(nvcc).parent)) or "ptxas"
    for command in ([nvcc, *FLAGS, f"-arch=compute_{arch}", "-ptx", str(source), "-o", str(ptx)],
                    [ptxas, "-v", f"-arch=sm_{arch}", str(ptx), "-o", str(ptx.with_suffix(".cubin"))]):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"{source}: does not compile\n{done.stderr}")
    return kernels_of(ptx.read_text(), done.stderr)


def kernels_of(ptx, info):
    """Kernels from PTX and from what `ptxas -v` says."""
    kernels = {}
    for part in re.split(r"^(?:\.visible )?\.entry ", ptx, flags=re.M)[1:]:
        kernel = Kernel(re.match(r"\w+", part).group())
        kernel.loads, kernel.stores = len(LOAD.findall(part)), len(STORE.findall(part))
        kernel.relaxed = set(RELAXED.findall(part))
        kernels[kernel.name] = kernel
    for part in info.split("Compiling entry function '")[1:]:
        kernel = kernels[part[:part.index("'")]]
        kernel.registers = int(re.search(r"Used (\d+) registers", part).group(1))
        shared = re.search(r"(\d+) bytes smem", part)
        kernel.shared = int(shared.group(1)) if shared else 0
        local = re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", part)
        if any(int(count) for count in local.groups()):
            kernel.local = local.group()
    return list(kernels.values())


def judge(kernel, bounds):
    """What is wrong with a kernel; notes it down with its bound."""
    complaints = []
    if kernel.name.startswith("_Z"):
        complaints.append("a mangled name")
    if kernel.local:
        complaints.append("local memory: " + kernel.local)
    if kernel.relaxed:
        complaints.append("relaxed arithmetic: " + ", ".join(sorted(kernel.relaxed)))
    bound = next((b for b in bounds if b.pattern.fullmatch(kernel.name)), None)
    if bound is None:
        return complaints + ["no bound is stated for it"]
    bound.kernels.append(kernel)
    if kernel.registers > bound.registers:
        complaints.append(f"{kernel.registers} registers, {bound.registers} are stated")
    if kernel.shared > bound.shared:
        complaints.append(f"{kernel.shared} bytes of shared memory, {bound.shared} are stated")
    if kernel.loads < bound.loads:
        complaints.append(f"{kernel.loads} loads of 16 bytes, {bound.loads} are stated")
    if kernel.stores < bound.stores:
        complaints.append(f"{kernel.stores} stores of 16 bytes, {bound.stores} are stated")
    return complaints


def version_of(nvcc):
    told = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True).stdout
    return re.search(r"\bV([\d.]+)", told).group(1)


def examine_figures(arguments, kernels):
    """How many complaints there are about the table in arguments.figures; writes it if asked to."""
    text, version = arguments.figures.read_text(), version_of(arguments.nvcc)
    if arguments.refresh:
        text = kernel_figures.refresh(text, kernels, version, arguments.arch)
        arguments.figures.write_text(text)
    complaints, notes = kernel_figures.compare(text, kernels, version, arguments.arch)
    for complaint in complaints:
        print(f"FAILED: {arguments.figures.name}: {complaint}")
    for note in notes:
        print(f"note: {arguments.figures.name}: {note}")
    return len(complaints)


def print_table(bounds):
    print("kernels                                            count  registers  shared bytes  16-byte loads, stores")
    print("                                                          most  of    most     of   fewest of   fewest of")
    for b in bounds:
        if not b.kernels:
            continue
        most = [max(getattr(k, what) for k in b.kernels) for what in ("registers", "shared")]
        fewest = [min(getattr(k, what) for k in b.kernels) for what in ("loads", "stores")]
        print(f"{b.text:50} {len(b.kernels):5} {most[0]:5} {b.registers:4} {most[1]:7} {b.shared:6} "
              f"{fewest[0]:8} {b.loads:2} {fewest[1]:8} {b.stores:2}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("nvcc")
    parser.add_argument("files", nargs="*", type=pathlib.Path, help="default: kernels/cuda/*.cu")
    parser.add_argument("--arch", default="90")
    parser.add_argument("--bounds", type=pathlib.Path, default=ROOT / "tests/compile/bounds.txt")
    parser.add_argument("--figures", type=pathlib.Path, help="a table of kernels to hold to the compiler")
    parser.add_argument("--refresh", action="store_true", help="write the figures into that table")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--list", action="store_true", help="a line for each kernel")
    arguments = parser.parse_args()
    if arguments.refresh and not arguments.figures:
        parser.error("--refresh needs --figures")
    if arguments.figures and arguments.files:
        parser.error("--figures is about all kernels, not those of some files")
    files = arguments.files or sorted((ROOT / "kernels/cuda").glob("*.cu"))
    bounds = read_bounds(arguments.bounds)

    kernels, complaints = [], 0
    with tempfile.TemporaryDirectory() as work, concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        for found in pool.map(lambda f: compile_file(arguments.nvcc, arguments.arch, f, pathlib.Path(work)), files):
            kernels += found
    for kernel in kernels:
        if arguments.list:
            print(kernel.name, kernel.registers, kernel.shared, kernel.loads, kernel.stores)
        for complaint in judge(kernel, bounds):
            complaints += 1
            print(f"FAILED: {kernel.name}: {complaint}")
    print_table(bounds)
    if not arguments.files:
        for bound in bounds:
            if not bound.kernels:
                complaints += 1
                print(f"FAILED: {arguments.bounds.name}: no kernel is named {bound.text}, or an earlier line has them all")
    if arguments.figures:
        complaints += examine_figures(arguments, kernels)
    print(f"sm_{arguments.arch}: {len(kernels)} kernels, {complaints} complaints")
    return 1 if complaints or not kernels else 0


if __name__ == "__main__":
    sys.exit(main())
