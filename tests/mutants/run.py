#!/usr/bin/env python3
"""Breaks the kernels in known ways, one at a time, and checks that the tests notice.

mutants.toml says what to break and which tests must fail. Each mutant is applied to a copy of kernels/;
only the file it belongs to is compiled again, and linked with the objects of the build directory.

usage: run.py [--quick] [--jobs N] [--check] BUILD_DIR [NAME...]
"""
import argparse
import concurrent.futures
import fnmatch
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import time
import tomllib

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TIMEOUT = 120  # seconds; a mutant that hangs its test is noticed


class Broken(Exception):
    """The mutant or the build is not what mutants.toml says: an error, not a surviving mutant."""


def load():
    with open(HERE / "mutants.toml", "rb") as file:
        mutants = tomllib.load(file)["mutant"]
    names = set()
    for mutant in mutants:
        unknown = set(mutant) - {"name", "models", "file", "find", "replace", "unit", "program", "tests", "quick"}
        missing = {"name", "models", "file", "find", "replace", "tests"} - set(mutant)
        if unknown or missing or mutant["name"] in names:
            raise Broken(f"mutant {mutant.get('name')}: unknown {unknown}, missing {missing}, or its name is taken")
        names.add(mutant["name"])
        mutant.setdefault("unit", re.sub(r"\.cuh$", ".cu", mutant["file"]))
        mutant.setdefault("program", "simt")
        mutant.setdefault("quick", False)
    return mutants


def mutated(mutant):
    """The text of the mutant's file; its `find` must occur exactly once."""
    text = (ROOT / mutant["file"]).read_text()
    count = text.count(mutant["find"])
    if count != 1:
        raise Broken(f"{mutant['name']}: the text to replace occurs {count} times in {mutant['file']}")
    if mutant["find"] == mutant["replace"]:
        raise Broken(f"{mutant['name']} changes nothing")
    return text.replace(mutant["find"], mutant["replace"])


class Program:
    """A test program of the build directory: how its parts are compiled, linked and run."""

    def __init__(self, build, name):
        self.build, self.name = build, {"races": "test_simt_races"}.get(name, f"test_{name}")
        commands = subprocess.run([ninja_of(build), "-C", build, "-t", "commands", self.name], check=True,
                                  capture_output=True, text=True).stdout.splitlines()
        self.compile = {}
        for line in commands:
            words = shlex.split(line)
            if any(pathlib.Path(word).name == "nvcc" for word in words[:2]):
                continue  # the same source for the GPU, in a module that a program may depend on
            if "-c" in words and "-o" in words:
                self.compile[str(pathlib.Path(build, words[words.index("-c") + 1]).resolve())] = words
        link = [part for part in commands[-1].split(" && ") if f"-o " in part and self.name in part]
        if not link:
            raise Broken(f"no link command of {self.name} found")
        self.link = shlex.split(link[-1])
        self.path = pathlib.Path(build, self.link[self.link.index("-o") + 1])
        if not self.path.exists():
            raise Broken(f"{self.path} has not been built")

    def make(self, unit, copy):
        """Compiles `unit` of the copied sources; links the program around it."""
        source = str(ROOT / unit)
        if source not in self.compile:
            raise Broken(f"{unit} is no part of {self.name}")
        words = list(self.compile[source])
        old_object, new_object = words[words.index("-o") + 1], str(copy / "unit.o")
        words[words.index("-o") + 1] = new_object
        words[words.index("-c") + 1] = str(copy / unit)
        for option in ("-MF", "-MT"):
            if option in words:
                words[words.index(option) + 1] = new_object + ".d"
        first_option = next(i for i, word in enumerate(words) if word.startswith("-"))
        words[first_option:first_option] = [f"-I{copy}", f"-I{copy}/kernels/include"]
        words[words.index("-o"):words.index("-o")] = ["-O1", "-g0", "-w"]
        self.call(words, "does not compile")

        program = str(copy / self.name)
        # First, so that its copy of an inline function is the one that is taken, as is it before a library's.
        words = [word for word in self.link if word != old_object]
        words.insert(1, new_object)
        words[words.index("-o") + 1] = program
        self.call(words + ["-Wl,--strip-debug"] if not self.traced() else words, "does not link")
        return program

    def traced(self):
        return "races" in self.name  # reports lines

    def call(self, words, what):
        done = subprocess.run(words, cwd=self.build, capture_output=True, text=True)
        if done.returncode != 0:
            raise Broken(f"{what}: {shlex.join(words)}\n{done.stderr[-2000:]}")

    def run(self, program, tests):
        """(what failed first or None, number of tests that ran)"""
        command = [program, f"--gtest_filter={tests}", "--gtest_fail_fast"]
        if self.traced():  # see tests/simt/CMakeLists.txt
            if subprocess.run(["setarch", "-R", "true"], capture_output=True).returncode == 0:
                command = ["setarch", "-R", *command]
        try:
            done = subprocess.run(command, capture_output=True, timeout=TIMEOUT)
        except subprocess.TimeoutExpired:
            return "hangs", 1
        output = done.stdout.decode(errors="replace")
        ran = re.findall(r"^\[ RUN      \] (\S+)", output, re.M)
        failed = re.findall(r"^\[  FAILED  \] ([^\s,]+)", output, re.M)
        if done.returncode == 0:
            return None, len(ran)
        if failed:
            return failed[0] + (" (race)" if "data race between" in output else ""), len(ran)
        if not ran:
            raise Broken(f"{program} ends before any test, with {done.returncode}: {output[-500:]}"
                         f"{done.stderr.decode(errors='replace')[-500:]}")
        return f"{ran[-1]} (exit {done.returncode})", len(ran)


def ninja_of(build):
    cache = (build / "CMakeCache.txt").read_text()
    make = re.search(r"^CMAKE_MAKE_PROGRAM:\w+=(.*)$", cache, re.M)
    if "CMAKE_GENERATOR:INTERNAL=Ninja" not in cache or not make:
        raise Broken(f"{build} is no Ninja build")
    return make.group(1)


def judge(mutant, programs, where):
    """(seconds, who killed it or None)"""
    start = time.monotonic()
    copy = where / mutant["name"]
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(ROOT / "kernels", copy / "kernels")
    (copy / mutant["file"]).write_text(mutated(mutant))
    program = programs[mutant["program"]]
    killed, ran = program.run(program.make(mutant["unit"], copy), mutant["tests"])
    if ran == 0:
        raise Broken(f"{mutant['name']}: no test matches {mutant['tests']}")
    shutil.rmtree(copy)
    return time.monotonic() - start, killed


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("build", type=pathlib.Path, help="build directory with the test programs")
    parser.add_argument("names", nargs="*", help="mutants to run, as patterns; default: all")
    parser.add_argument("--quick", action="store_true", help="only those marked quick")
    parser.add_argument("--check", action="store_true", help="only see that every mutant can be applied")
    parser.add_argument("--jobs", type=int, default=1)
    arguments = parser.parse_args()
    arguments.build = arguments.build.resolve()

    mutants = load()
    for mutant in mutants:
        mutated(mutant)
    chosen = [m for m in mutants if (m["quick"] or not arguments.quick) and
              (not arguments.names or any(fnmatch.fnmatch(m["name"], n) for n in arguments.names))]
    print(f"{len(mutants)} mutants can be applied, {len(chosen)} chosen", flush=True)
    if arguments.check:
        return 0
    if not chosen:
        raise Broken("no mutant has such a name")

    # The unchanged programs must pass what the mutants must fail.
    programs = {name: Program(arguments.build, name) for name in sorted({m["program"] for m in chosen})}
    for name, program in programs.items():
        tests = ":".join(sorted({m["tests"] for m in chosen if m["program"] == name}))
        failed, ran = program.run(str(program.path), tests)
        if failed or ran == 0:
            raise Broken(f"without a mutant, {program.name} fails: {failed} ({ran} tests ran)")

    where = arguments.build / "mutants"
    where.mkdir(exist_ok=True)
    survivors, errors = [], []
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        futures = [(m, pool.submit(judge, m, programs, where)) for m in chosen]
        for mutant, future in futures:
            try:
                seconds, killed = future.result()
            except Broken as error:
                errors.append(str(error))
                print(f"ERROR     {mutant['name']}: {error}", flush=True)
                continue
            if killed is None:
                survivors.append(mutant)
            print(f"{'killed' if killed else 'SURVIVED':9} {mutant['name']:34} {seconds:5.1f} s  "
                  f"{mutant['models']}: {killed or 'nothing of ' + mutant['tests']}", flush=True)
    print(f"{len(chosen)} mutants, {len(survivors)} survived, {len(errors)} in error")
    for mutant in survivors:
        print(f"repeat: {sys.argv[0]} {arguments.build} {mutant['name']}")
    return 1 if survivors or errors else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Broken as error:
        sys.exit(f"error: {error}")
