#!/usr/bin/env python3
"""Everything a GPU can tell about gradflow, in one command that ends well within ten minutes.

Parts, in this order, each of which gets its share of the time that is left: the tests with REQUIRE_GPU=1, many at once, and whole
networks against NumPy and PyTorch (tests); training steps with and without recording and probes, beside PyTorch eager (steps); every
kernel beside PyTorch, eager and torch.compile, a family at a time in turn (kernels); the demo (demo); compute-sanitizer's four
tools on the kernel tests (sanitizers); the training steps by torch.compile, which takes what time there is (compile). --parts
tests,steps runs some of them, which then have all the time. What fails or does not end in time is reported as such and
stops nothing else. Writes summary.json, summary.md, kernels.csv and kernels.svg, anew after everything that was learnt, so that whoever
ends this early has what came before; log.txt; and the demo's report.html. A figure that was not measured is empty there. The clocks and
settings of the device are read, never changed.

Programs come from --bundle (scripts/gpu_bundle.sh) or from --build (default: build). What PyTorch cannot do here
stays empty; without compute-sanitizer or NumPy those steps are skipped, and say so.
"""
import argparse
import concurrent.futures
import ctypes
import datetime
import glob
import importlib.util
import json
import os
import platform
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import traceback

import gpu_kernels
import gpu_steps
import gpu_summary
import gpu_tests
from gpu_steps import last_line

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)

# What a part gets of the time that is left, beside those still to come; what it leaves over is theirs.
PARTS = {"tests": 90, "steps": 130, "kernels": 110, "demo": 45, "sanitizers": 65, "compile": 100}
TEST_PROGRAMS = ["test_kernels", "test_layers", "test_engine"]


def allowance(left, part, wanted):
    """Seconds for one part: its share of what is left for it and the wanted ones behind it."""
    order = list(PARTS)
    rest = [p for p in order[order.index(part):] if p in wanted]
    return left * PARTS[part] / sum(PARTS[p] for p in rest)


def gpu_count(library):
    """(number of devices, why there is none). Asks the driver itself; no tool needs to be installed."""
    try:
        cuda = ctypes.CDLL(library)
    except OSError as error:
        return 0, f"no NVIDIA driver ({error})"
    status = cuda.cuInit(0)
    if status:
        return 0, f"the NVIDIA driver finds no device (cuInit: error {status})"
    count = ctypes.c_int(0)
    status = cuda.cuDeviceGetCount(ctypes.byref(count))
    return (count.value, "") if not status and count.value else (0, f"the driver reports no device (error {status})")


def nvidia_smi():
    """What nvidia-smi says of the first device, or an empty dictionary."""
    fields = ["name", "driver_version", "memory.total", "pstate", "clocks.sm", "clocks.mem", "clocks.max.sm", "clocks.max.mem",
              "temperature.gpu", "power.draw", "power.limit"]
    try:
        out = subprocess.run(["nvidia-smi", "--query-gpu=" + ",".join(fields), "--format=csv,noheader", "--id=0"], timeout=20,
                             stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    return dict(zip(fields, [value.strip() for value in out.partition("\n")[0].split(",")]))


def library_folders():
    """Where libraries of the CUDA toolkit may lie. Those that Python packages bring come first: PyTorch is compared with, and has them."""
    packages = [os.path.join(path, *where) for path in sys.path if path
                for where in (("nvidia", "*", "lib"), ("nvidia", "*", "lib", "x86_64"), ("torch", "lib"))]
    found = []
    for pattern in (*packages, "/usr/local/cuda*/lib64", "/usr/local/cuda*/lib", "/usr/local/cuda*/targets/x86_64-linux/lib",
                    "/usr/lib/x86_64-linux-gnu", os.path.join(sys.prefix, "lib")):
        for folder in sorted(glob.glob(pattern)):
            if folder not in found and any(glob.glob(os.path.join(folder, name)) for name in ("libcublas.so.*", "libcudnn.so.*")):
                found.append(folder)
    return found


# Libraries that cuDNN wants, too, with the names of the versions that they define.
SHARED = {"libstdc++.so.6": rb"\b(?:GLIBCXX|CXXABI)_[0-9.]+\b", "libgcc_s.so.1": rb"\bGCC_[0-9.]+\b", "libz.so.1": rb"\bZLIB_[0-9.]+\b"}


def symbol_versions(path, pattern):
    with open(path, "rb") as file:
        return set(re.findall(pattern, file.read()))


def leave_to_the_system(carried, folders=("/usr/lib/x86_64-linux-gnu", "/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib")):
    """Removes the SHARED libraries from what was carried where this machine's own know every version that they know: what is loaded
    into the same process here may want newer ones than those that were carried."""
    for name, pattern in SHARED.items():
        ours = os.path.join(carried, name)
        own = [path for path in (os.path.join(folder, name) for folder in folders) if os.path.exists(path)]
        if own and os.path.exists(ours) and symbol_versions(ours, pattern) <= symbol_versions(own[0], pattern):
            os.remove(ours)


class Check:
    def __init__(self, out, seconds):
        self.out = out
        self.end = self.part_end = time.monotonic() + seconds
        self.log = open(os.path.join(out, "log.txt"), "w", encoding="utf-8")
        self.summary = {"schema": "gradflow-gpu-check/1", "steps": []}

    def left(self):
        """Seconds of the part that is running."""
        return min(self.end, self.part_end) - time.monotonic()

    def begin(self, part, wanted):
        now = time.monotonic()
        self.part_end = now + allowance(max(self.end - now, 0), part, wanted)

    def say(self, text):
        print(text, flush=True)
        self.note(text + "\n")

    def note(self, text):
        self.log.write(text)
        self.log.flush()

    def save(self):
        """Writes what is known so far: whoever ends this program finds it."""
        try:
            gpu_summary.write(self.summary, self.out)
        except Exception as error:  # a summary that cannot be written must not end the measurements
            print(f"the summary was not written: {error!r}", flush=True)

    def start(self, command, env):
        """The process, with its output in a file: a pipe that grandchildren hold open would have to be waited for."""
        output = tempfile.TemporaryFile()
        try:
            process = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        except OSError:
            output.close()
            raise
        process.output = output
        return process

    def wait(self, process, seconds, grace=0):
        """(exit status, or None where time ran out; output). Ends what is left of the process' group, which it asks to end `grace` seconds
        before."""
        try:
            status = process.wait(timeout=max(seconds, 0.1))
        except subprocess.TimeoutExpired:
            status = None
            if grace:
                os.killpg(process.pid, signal.SIGINT)
                try:
                    process.wait(timeout=grace)
                except subprocess.TimeoutExpired:
                    pass
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()
        process.output.seek(0)
        output = process.output.read().decode(errors="replace")
        process.output.close()
        self.note(f"\n$ {shlex.join(process.args)[:2000]}\n{output[-20000:]}")
        return status, output

    def record(self, name, status, started, limit, detail=""):
        step = {"name": name, "status": status, "seconds": round(time.monotonic() - started, 2), "limit_seconds": limit, "detail": detail}
        self.summary["steps"].append(step)
        self.say(f"{status:8} {name} ({step['seconds']:.1f} s){': ' + detail if detail else ''}")
        self.save()
        return step

    def step(self, name, command, limit, env, explain=lambda status, output: "", fault=lambda output: "", grace=0):
        """Runs one command as one step; returns (passed, output). `fault` finds what an exit status of 0 does not tell."""
        started = time.monotonic()
        allowed = min(limit, self.left())
        if allowed < 1:
            self.record(name, "skipped", started, limit, "no time was left")
            return False, ""
        try:
            status, output = self.wait(self.start(command, env), allowed - grace, grace)
        except OSError as error:
            self.record(name, "failed", started, limit, str(error))
            return False, ""
        if status is None:
            self.record(name, "timeout", started, limit, f"ended after {allowed:.0f} s")
            return False, output
        detail = explain(status, output)
        wrong = "" if status else fault(output)
        if wrong:
            self.record(name, "failed", started, limit, wrong)
            return False, output
        if status and not detail:
            detail = last_line(output)
        self.record(name, "failed" if status else "passed", started, limit, (f"exit {status}; " if status else "") + detail)
        return status == 0, output

    def skip(self, name, why):
        self.record(name, "skipped", time.monotonic(), 0, why)


def write_launcher(path, program, env):
    """A program that runs `program` with the libraries that `env` names."""
    with open(path, "w", encoding="utf-8") as file:
        file.write(f"#!/bin/sh\nLD_LIBRARY_PATH={shlex.quote(env['LD_LIBRARY_PATH'])}\nexport LD_LIBRARY_PATH\n"
                   f"exec {shlex.quote(os.path.abspath(program))} \"$@\"\n")
    os.chmod(path, 0o755)
    return path


def compare_networks(check, script, launcher, torch_env):
    """(step's status, detail) of a script that compares whole networks; it says FAULT or TOO MUCH where they differ."""
    command = [sys.executable, "-B", os.path.join(ROOT, script[0]), *script[1:], "--program", launcher, "--device", "cuda"]
    try:
        status, output = check.wait(check.start(command, dict(torch_env, OMP_NUM_THREADS="4")), min(90, check.left()))
    except OSError as error:
        return "failed", str(error)
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    wrong = [(lines[i - 1] + ": " if "TOO MUCH" in line and i else "") + line for i, line in enumerate(lines) if re.search("FAULT|TOO MUCH", line)]
    compared = sum("loss differs by" in line for line in lines)
    said = f"{compared} networks compared" if compared else last_line(output)
    if status is None:
        return "timeout", "; ".join(["did not end in time", *([said] if compared else []), *wrong[:3]])[:800]
    return ("failed" if status else "passed"), "; ".join([*([f"exit {status}"] if status else []), *wrong[:3], said if status in (0, 1) else last_line(output)])[:800]


def run_tests(check, programs, env, torch_env, folder, bundled, only):
    """Nothing here measures time: test programs and comparisons share the processor's cores."""
    required = dict(env, REQUIRE_GPU="1", OMP_NUM_THREADS="2")
    if only:
        gpu_tests.run(check, programs, required, bundled, only)
        return
    # The interpreter of these scripts keeps its own libraries; the program gets those of the bundle.
    launcher = write_launcher(os.path.join(folder, "gradflow.sh"), programs["gradflow"], env)
    wants = {"networks against NumPy": (["tests/golden/check_tensors.py"], "numpy"),
             "networks against PyTorch": (["scripts/compare_torch.py", "--no-speed"], "torch"),
             "events in TensorBoard": (["scripts/check_tensorboard.py"], "tensorboard")}
    started, limit, running = time.monotonic(), round(check.left()), {}
    with concurrent.futures.ThreadPoolExecutor(len(wants)) as pool:
        for name, (script, module) in wants.items():
            if importlib.util.find_spec(module) is not None:
                running[name] = pool.submit(compare_networks, check, script, launcher, torch_env)
        gpu_tests.run(check, programs, required, bundled)
        for name, (_, module) in wants.items():
            if name in running:
                check.record(name, running[name].result()[0], started, limit, running[name].result()[1])
            else:
                check.skip(name, f"no {module}")


def run_demo(check, programs, env, folder):
    started, report = time.monotonic(), os.path.join(folder, "report")
    # Asked to end, it writes what it has.
    passed, output = check.step("demo", [programs["gradflow"], "demo", "--device", "cuda", "--out", report], 120, env, grace=4)
    check.summary["demo"] = {"passed": passed, "seconds": round(time.monotonic() - started, 2)}
    page = os.path.join(report, "report.html")
    if os.path.isfile(page):
        shutil.copy(page, os.path.join(check.out, "report.html"))
    for line in [line for line in output.splitlines() if " networks in " in line or "Interrupted" in line]:
        check.say("         " + line.strip())
    check.save()


def unpack(bundle, folder):
    with tarfile.open(os.path.join(bundle, "programs.tar.xz")) as archive:
        archive.extractall(folder, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    leave_to_the_system(os.path.join(folder, "lib"))
    return {name: os.path.join(folder, "bin", name) for name in ("gradflow", *TEST_PROGRAMS)}


def revision_of(bundle):
    if bundle:
        with open(os.path.join(bundle, "revision.txt"), encoding="utf-8") as file:
            return file.read().strip()
    git = subprocess.run(["git", "-C", ROOT, "describe", "--always", "--dirty", "--abbrev=12"], stdout=subprocess.PIPE,
                         stderr=subprocess.DEVNULL, text=True, check=False)
    return git.stdout.strip() or "unknown"


def options(arguments):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--bundle", metavar="DIR", help="what scripts/gpu_bundle.sh wrote")
    where.add_argument("--build", metavar="DIR", default=None, help="a finished build with tests (default: build)")
    parser.add_argument("--out", metavar="DIR", default="gpu-check", help="where the summary goes (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=9.0, help="in all (default: %(default)s)")
    parser.add_argument("--parts", metavar="PART,...", default=",".join(PARTS), help="default: %(default)s")
    parser.add_argument("--tests", metavar="FILTER", help="of part tests, these alone (as --gtest_filter takes them), without comparing networks")
    parser.add_argument("--libcuda", default="libcuda.so.1", help="the driver's library (default: %(default)s)")
    o = parser.parse_args(arguments)
    if not 0 < o.minutes <= 1000:
        parser.error("--minutes: more than 0")
    o.parts = o.parts.split(",")
    for part in o.parts:
        if part not in PARTS:
            parser.error(f"--parts: {part!r} is none of {', '.join(PARTS)}")
    if o.bundle and not os.path.isfile(os.path.join(o.bundle, "programs.tar.xz")):
        parser.error(f"no programs.tar.xz in {o.bundle}: make it with scripts/gpu_bundle.sh")
    return o


def main(arguments):
    o = options(arguments)
    count, why = gpu_count(o.libcuda)
    if count == 0:
        print(f"gpu_check: no GPU here: {why}. Nothing was run.", file=sys.stderr)
        return 3
    if not o.bundle:
        o.build = o.build or os.path.join(ROOT, "build")
        if not os.path.isfile(os.path.join(o.build, "gradflow")):
            print(f"gpu_check: no program in {o.build}: build it, or carry a bundle (scripts/gpu_bundle.sh)", file=sys.stderr)
            return 2
    os.makedirs(o.out, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        check = Check(o.out, 60 * o.minutes)
        try:
            return check_all(check, o, folder)
        finally:
            check.save()
            for line in gpu_summary.verdicts(check.summary):
                print(line)
            print(f"written: {os.path.join(o.out, 'summary.md')}", flush=True)


def check_all(check, o, folder):
    torch_env = dict(os.environ)
    env = dict(os.environ, OMP_WAIT_POLICY="passive")
    if o.bundle:
        programs = unpack(o.bundle, folder)
        env["LD_LIBRARY_PATH"] = ":".join([os.path.join(folder, "lib"), *library_folders(), env.get("LD_LIBRARY_PATH", "")]).strip(":")
        env["GRADFLOW_FASHION_MNIST"] = os.path.join(os.path.abspath(o.bundle), "fashion-mnist")
    else:
        programs = {"gradflow": os.path.join(o.build, "gradflow")}
        programs.update({name: os.path.join(o.build, "tests", name) for name in TEST_PROGRAMS})
        env["LD_LIBRARY_PATH"] = ":".join([*library_folders(), env.get("LD_LIBRARY_PATH", "")]).strip(":")
    check.summary.update({"date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
                          "revision": revision_of(o.bundle), "host": platform.platform(), "cores": os.cpu_count(),
                          "nvidia_smi_before": nvidia_smi()})

    def device_of(status, output):
        try:
            info = json.loads(output)
            check.summary["devices"] = info["devices"]
            check.summary["revision"] = info["git_revision"]  # of the program; of this folder so far
            return "; ".join(f"{d['model']}, {d.get('libraries', '')}" for d in info["devices"][1:])
        except (ValueError, KeyError):
            return ""

    def no_device(output):
        if len(check.summary.get("devices", [])) > 1:
            return ""
        try:
            return "the program sees no CUDA device: " + json.loads(output)["cuda"].get("reason", "no reason given")
        except (ValueError, KeyError):
            return "the program's list of devices cannot be read"

    passed, _ = check.step("device", [programs["gradflow"], "info", "--json"], 90, env, device_of, no_device)
    if not passed:
        check.say("The other steps would fail in the same way: they are left out.")
        return 1
    run = {"tests": lambda: run_tests(check, programs, env, torch_env, folder, bool(o.bundle), o.tests),
           "steps": lambda: gpu_steps.run(check, programs["gradflow"], env, torch_env, folder),
           "kernels": lambda: gpu_kernels.run(check, programs["gradflow"], env, torch_env, folder),
           "demo": lambda: run_demo(check, programs, env, folder),
           "sanitizers": lambda: gpu_tests.run_sanitizers(check, programs, env),
           "compile": lambda: gpu_steps.run_compile(check, programs["gradflow"], env, torch_env, folder)}
    for part in PARTS:
        if part not in o.parts:
            continue
        check.begin(part, o.parts)
        try:
            run[part]()
        except Exception as error:  # a fault of these scripts costs its own part alone
            check.note(traceback.format_exc())
            check.record(part, "failed", time.monotonic(), 0, f"{type(error).__name__}: {error}; log.txt says where")
        if part in ("steps", "kernels", "compile"):
            check.summary["nvidia_smi_after"] = nvidia_smi()
            check.save()
    return 0 if all(step["status"] in ("passed", "skipped") for step in check.summary["steps"]) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
