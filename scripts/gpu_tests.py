"""The test programs of scripts/gpu_check.py: many processes at once, every failure by name; and the same tests under compute-sanitizer."""
import concurrent.futures
import glob
import os
import re
import subprocess
import time

from gpu_steps import last_line

# Tests of the loader that open files of the build tree, by paths fixed when they were compiled.
NEED_BUILD_TREE = ["CudaModule.RefusesALibraryThatIsNotOurs", "CudaModule.PassesOnThatInterfacesDiffer",
                   "CudaModule.SaysSoWhenThereIsNoReason", "CudaModule.ExceptionsKeepTheirTypeAcrossTheModule",
                   "CudaModule.TheRealOne*"]
# What is of the device: of the kernels all but the host's instances, of whole steps the device's, of the engine all there is.
CHOSEN = {"test_kernels": "-*/cpu", "test_layers": "*/cuda*", "test_engine": "*"}
SHOWN = 20  # failures in print and in summary.md
LEAST_SECONDS = 10  # in which compute-sanitizer is of any use
SANITIZERS = ["memcheck", "racecheck", "initcheck", "synccheck"]
# Kernels of vendors' libraries are left out where only ours are asked about; memcheck sees whether what they are given has room.
VENDORS = "regex=cutlass|cublas|cudnn|xmma|gemm|gemv|fprop|dgrad|wgrad|nchw|nhwc|sm80_|sm90_|splitK"
LINE = re.compile(r"\[ +(RUN|OK|FAILED|SKIPPED) +\] ([^\s,]+)")
END = re.compile(r"\[==========\] \d+ tests? from .* ran")


def list_tests(program, chosen, env):
    """suite -> [full names]."""
    output = subprocess.run([program, "--gtest_list_tests", "--gtest_filter=" + chosen], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True, timeout=60, check=False).stdout
    suites, suite = {}, ""
    for line in output.splitlines():
        name = line.partition("#")[0].rstrip()
        if name.startswith("  ") and suite:
            suites.setdefault(suite, []).append(suite + name.strip())
        elif re.fullmatch(r"[\w/]+\.", name):
            suite = name
    return suites


def read_results(output):
    """name -> (status, message) of what a test program printed: passed, skipped, failed, or "" for one that had begun when it ended."""
    results, current, said = {}, "", []
    for line in output.splitlines():
        if END.search(line):
            break
        match = LINE.search(line)
        if not match:
            said += [line.strip()] if current and line.strip() else []
        elif match[1] == "RUN":
            current, said = match[2], []
            results[current] = ("", "")
        else:
            message = "; ".join([re.sub(r"^\S*/(?=[\w.]+:\d+)", "", text) for text in said[:6]])
            results[match[2]] = ({"OK": "passed", "SKIPPED": "skipped", "FAILED": "failed"}[match[1]], message[:400])
            current = ""
    if current:
        results[current] = ("", "; ".join(said[-3:])[:300])
    return results


def run_process(check, program, tests, env):
    """(results of `tests`, one of which may have ended the process; those behind it are missing)."""
    try:
        status, output = check.wait(check.start([program, "--gtest_filter=" + ":".join(tests)], env), check.left())
    except OSError as error:
        return {tests[0]: ("failed", str(error))}
    results = {name: result for name, result in read_results(output).items() if name in tests}
    for name, (verdict, message) in results.items():
        if not verdict:
            how = "ran out of time" if status is None else f"ended the process (exit {status})"
            results[name] = ("timeout" if status is None else "failed", f"{how}; {message}".strip("; "))
    if not results:
        results[tests[0]] = ("timeout" if status is None else "failed", "did not start: " + ("out of time" if status is None else last_line(output)))
    elif status != 0 and all(verdict in ("passed", "skipped") for verdict, _ in results.values()):
        results[next(reversed(results))] = ("timeout" if status is None else "failed",
                                            "every test passed, but then the process " + ("did not end" if status is None else f"ended with {status}"))
    return results


def verdict(first, alone, before):
    """A test's status from its run with others and alone. A device that one test left in an error fails all those behind it: of
    them (`before`: something had failed already) the run alone counts."""
    if alone is None or (first is not None and not before):
        return first or ("not run", "")
    return alone


def run_program(check, pool, program, suites, env):
    """name -> (status, message): a suite a process; what failed or was not reached then once more, each alone."""
    futures = [(tests, pool.submit(run_process, check, program, tests, env)) for tests in suites.values()]
    final, again = {}, []
    for tests, future in futures:
        results, before = future.result(), False
        for name in tests:
            first = results.get(name)
            bad = first is None or first[0] in ("failed", "timeout")
            if bad:
                again.append((name, first, before))
            final[name] = first or ("not run", "")
            before = before or bad
    alone = [(name, first, before, pool.submit(run_process, check, program, [name], env)) for name, first, before in again[:60] if check.left() > 3]
    for name, first, before, future in alone:
        result = future.result().get(name)
        final[name] = verdict(first, result, before)
        if final[name] is first and first[0] == "failed" and result:
            final[name] = (first[0], f"[alone: {result[0]}] {first[1]}")
    return final


def run(check, programs, env, bundled, only=""):
    """Every test of the device, or those that `only` chooses."""
    ran = False
    with concurrent.futures.ThreadPoolExecutor(max(1, min(8, (os.cpu_count() or 1) // 2))) as pool:
        for program, chosen in CHOSEN.items():
            started, limit = time.monotonic(), round(check.left())
            if check.left() < 1:
                check.skip(program, "no time was left")
                continue
            if only:
                chosen = only
            elif bundled and program == "test_kernels":
                chosen += ":" + ":".join(NEED_BUILD_TREE)
            try:
                suites = list_tests(programs[program], chosen, env)
            except (OSError, subprocess.SubprocessError) as error:
                check.record(program, "failed", started, limit, f"its tests cannot be listed: {error}")
                continue
            if only and not suites:
                continue
            ran = True
            if program == "test_engine":  # of the host, and short
                suites = {"all": [name for tests in suites.values() for name in tests]} if suites else {}
            results = run_program(check, pool, programs[program], suites, env)
            tell(check, program, results, started, limit)
    if only and not ran:
        check.record("tests", "failed", time.monotonic(), 0, f"no test is called {only}")


def tell(check, program, results, started, limit):
    count = {status: sum(result[0] == status for result in results.values()) for status in ("passed", "skipped", "failed", "timeout", "not run")}
    detail = f"{count['passed']} passed, {count['skipped']} skipped, {count['failed']} failed"
    unfinished = count["timeout"] + count["not run"]
    if unfinished:
        detail += f", {unfinished} did not end in time"
    if not count["passed"] + count["failed"] + unfinished:
        detail = "no test ran"
    bad = [{"program": program, "test": name, "message": message} for name, (status, message) in results.items() if status in ("failed", "timeout")]
    failures = check.summary.setdefault("failures", [])
    for failure in bad[:max(0, SHOWN - len(failures))]:
        check.say(f"    {failure['test']}: {failure['message'][:300]}")
    failures += bad
    check.record(program, "failed" if count["failed"] or detail == "no test ran" else "timeout" if unfinished else "passed", started, limit, detail)


def find_sanitizer():
    for path in [os.path.join(folder, "compute-sanitizer") for folder in os.environ.get("PATH", "").split(":")] + sorted(
            glob.glob("/usr/local/cuda*/bin/compute-sanitizer") + glob.glob("/usr/local/cuda*/compute-sanitizer/compute-sanitizer")):
        if os.access(path, os.X_OK):
            return path
    return None


def tool_options(tool):
    """name -> options, of those that this compute-sanitizer knows. Kernels of vendors are left out where only ours are asked about;
    calls that fail are the tests' business: libraries try some."""
    try:
        said = subprocess.run([tool, "--help"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=20,
                              errors="replace", check=False).stdout
    except (OSError, subprocess.SubprocessError):
        said = ""
    ours = ["--kernel-name-exclude", VENDORS] if "--kernel-name-exclude" in said and "regex" in said else []
    return {name: ours for name in SANITIZERS} | {"memcheck": ["--report-api-errors", "no"] if "--report-api-errors" in said else []}


def findings(output):
    """What a tool found, each kind once: '1 x Invalid __global__ read of size 4 bytes at relu_f32 (..)'."""
    found = {}
    lines = [line.lstrip("= ").strip() for line in output.splitlines() if line.startswith("=========")]
    for line, behind in zip(lines, [*lines[1:], ""]):
        if re.match(r"(Invalid|Uninitialized|Error: |Warning: |Race reported|Barrier error|Host API |Divergent|Program hit|Misaligned|Address )", line):
            text = re.sub(r"0x[0-9a-f]+", "..", line[:140] + (f" {behind[:80]}" if behind.startswith("at ") else ""))
            found[text] = found.get(text, 0) + 1
    return [f"{count} x {text}" for text, count in found.items()]


def run_sanitizers(check, programs, env):
    """The four tools at once, each in several processes that share the tests: they are slow and measure no time."""
    tool = find_sanitizer()
    if not tool:
        for name in SANITIZERS:
            check.skip(name, "no compute-sanitizer")
        return
    started, limit = time.monotonic(), round(check.left())
    allowed = check.left() - 5
    if allowed < LEAST_SECONDS:
        for name in SANITIZERS:
            check.skip(name, "no time was left")
        return
    shards = max(1, min(3, (os.cpu_count() or 1) // 5))
    options = tool_options(tool)
    running = {}
    for name in SANITIZERS:
        command = [tool, "--tool", name, "--error-exitcode", "9", *options[name],
                   programs["test_kernels"], "--gtest_filter=*/cuda"]
        running[name] = [check.start(command, dict(env, REQUIRE_GPU="1", OMP_NUM_THREADS="1", GTEST_TOTAL_SHARDS=str(shards), GTEST_SHARD_INDEX=str(shard)))
                         for shard in range(shards)]
    for name, processes in running.items():
        ended = [check.wait(process, allowed - (time.monotonic() - started)) for process in processes]
        outputs = "\n".join(output for _, output in ended)
        found = findings(outputs)
        tests = [status for _, output in ended for status, _ in read_results(output).values()]
        done = f"{tests.count('passed')} tests passed"
        codes = sorted({status for status, _ in ended if status})
        if codes or found:
            # 9 is what it found; anything else is of the program or of the tool.
            said = found[:4] or [last_line(output) for status, output in ended if status][:1]
            check.record(name, "failed", started, limit, "; ".join([*(f"exit {code}" for code in codes), done, *said])[:800])
        elif any(status is None for status, _ in ended):
            check.record(name, "timeout", started, limit, f"ended before the tests were; nothing found in those that ran ({done})")
        else:
            check.record(name, "passed", started, limit, done + ("" if options[name] else ", vendors' kernels included"))
