#!/usr/bin/env python3
"""scripts/gpu_check.py without a GPU: it says so at once; and its steps, limits and summary with made-up programs.

Usage: test_gpu_check.py [name of one test]
"""
import json
import os
import re
import stat
import subprocess
import sys
import tempfile
import time
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "scripts"))
import gpu_check  # noqa: E402
import gpu_summary  # noqa: E402

TIMED = {"median_us": 200.0, "min_us": 199.0, "max_us": 210.0, "samples": 20, "launches": 5, "gbytes_per_second": 2700.0}


def kernel_row(name, size, **more):
    return {"name": name, "family": "pointwise", "call": "pointwise_forward", "pass": "forward", "dtype": "f32", "size": size,
            "read_bytes": 4 * size, "written_bytes": 4 * size, "cold": dict(TIMED), "warm": dict(TIMED), "share": 0.93,
            "launch_bound": False, **more}


def full_summary():
    return {"schema": "gradflow-gpu-check/1", "date": "2001-02-03 04:05 UTC", "revision": "0123456789ab", "host": "made up", "cores": 16,
            "nvidia_smi_before": {"name": "Made-up GPU", "driver_version": "1.2.3", "clocks.sm": "345 MHz"},
            "devices": [{"model": "cpu"}, {"model": "Made-up GPU (compute 9.0)", "libraries": "CUDA 13.0"}],
            "steps": [{"name": "device", "status": "passed", "seconds": 1.5, "limit_seconds": 60, "detail": "a | b"}],
            "kernels": {"torch": {"version": "9.9"}, "torch_reason": "", "yardsticks": [{"reference_gbytes_per_second": 2900.0}],
                        "rows": [kernel_row("relu_forward_f32", 1 << 26, torch={"eager_us": 220.0, "compile_us": 210.0}),
                                 kernel_row("relu_forward_f32", 1000, launch_bound=True),
                                 kernel_row("exotic_f32", 1 << 26, torch={})],
                        "rejected": [{"name": "wild_f32", "size": 1 << 26, "reason": "too fast"}], "skipped": []},
            "training_steps": {"on": {"median_ms": 0.5, "min_ms": 0.4, "gflops_per_second": 5000.0}}, "demo": {"passed": True, "seconds": 12.0}}


class Summary(unittest.TestCase):
    def test_figures_are_those_of_the_record(self):
        text = gpu_summary.markdown(full_summary())
        self.assertIn("## Made-up GPU, 2001-02-03 04:05 UTC", text)
        self.assertIn("| relu_forward_f32 | 200.0 | 2700 | 93 | 200.0 | 220.0 | 210.0 | 1.10 | 1.05 |  |", text)
        self.assertIn("launch-bound", text)
        self.assertIn("Refused: wild_f32, 2^26: too fast", text)
        self.assertIn("a \\| b", text)
        self.assertIn("| on | 0.500 | 0.400 | 5000 |", text)

    def test_what_is_missing_is_a_dash(self):
        text = gpu_summary.markdown(full_summary())
        self.assertIn("| exotic_f32 | 200.0 | 2700 | 93 | 200.0 | – | – | – | – |  |", text)
        lines = gpu_summary.csv(full_summary()).splitlines()
        self.assertEqual([line.count(",") for line in lines], [11] * 4)
        self.assertIn("exotic_f32,f32,67108864,200,2700,0.93,200,,,,,False", lines)

    def test_an_empty_record_invents_nothing(self):
        text = gpu_summary.markdown({"schema": "gradflow-gpu-check/1", "steps": []})
        self.assertEqual(text.count("Not measured."), 2)
        self.assertIn("Not run.", text)
        numbers = "".join(c for c in text.replace("scripts/gpu_check.sh", "") if c.isdigit())
        self.assertEqual(numbers, "", text)
        self.assertEqual(len(gpu_summary.csv({}).splitlines()), 1)
        self.assertTrue(gpu_summary.svg({}).endswith("</svg>\n"))

    def test_a_ratio_needs_both(self):
        self.assertEqual(gpu_summary.ratio(220.0, 200.0), 1.1)
        for theirs, ours in ((None, 200.0), (220.0, None), (220.0, 0), (0, 0)):
            self.assertIsNone(gpu_summary.ratio(theirs, ours))


class WithFolder(unittest.TestCase):
    def setUp(self):
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.folder = holder.name

    def script(self, path, text):
        path = os.path.join(self.folder, path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(f"#!{sys.executable}\n" + text)
        os.chmod(path, os.stat(path).st_mode | stat.S_IXUSR)
        return path


class Steps(WithFolder):
    def setUp(self):
        super().setUp()
        self.check = gpu_check.Check(self.folder, 60)
        self.addCleanup(self.check.log.close)
        self.check.say = lambda text: None

    def statuses(self):
        return [(step["name"], step["status"]) for step in self.check.summary["steps"]]

    def test_a_failing_and_a_hanging_step_stop_nothing(self):
        run = lambda name, code, limit: self.check.step(name, [sys.executable, "-c", code], limit, dict(os.environ))  # noqa: E731
        started = time.monotonic()
        run("good", "print('fine')", 20)
        run("bad", "import sys; print('why'); sys.exit(3)", 20)
        run("crash", "import os; os.abort()", 20)
        run("hang", "import subprocess, sys; subprocess.run(['sleep', '60'])", 1.5)
        self.check.step("absent", ["/no/such/program"], 5, dict(os.environ))
        run("after", "pass", 20)
        self.assertLess(time.monotonic() - started, 30)
        self.assertEqual(self.statuses(), [("good", "passed"), ("bad", "failed"), ("crash", "failed"), ("hang", "timeout"),
                                           ("absent", "failed"), ("after", "passed")])
        self.assertIn("exit 3; why", self.check.summary["steps"][1]["detail"])

    def test_no_step_starts_when_time_is_up(self):
        self.check.end = time.monotonic()
        self.check.step("late", [sys.executable, "-c", "pass"], 20, dict(os.environ))
        self.assertEqual(self.statuses(), [("late", "skipped")])
        self.assertEqual(self.check.summary["steps"][0]["detail"], "no time was left")

    def test_counts_of_a_gtest_record(self):
        path = os.path.join(self.folder, "t.json")
        tests = [{"result": "COMPLETED"}, {"result": "SKIPPED"}, {"result": "COMPLETED", "failures": [{}]}]
        with open(path, "w", encoding="utf-8") as file:
            json.dump({"testsuites": [{"testsuite": tests}]}, file)
        self.assertEqual(gpu_check.gtest_counts(path), "1 passed, 1 skipped, 1 failed")
        self.assertIn("no record", gpu_check.gtest_counts(path + "x"))

    def test_every_kernel_is_of_one_family(self):
        for name in ("fill_f32", "memory_copy_f32", "linear_stats_f32", "leaky_relu_backward_bf16/accumulate", "bias_relu_forward_f32",
                     "residual_tanh_backward_bf16", "pool_max_all_f32", "batch_norm_forward_f32", "softmax_cross_entropy_f32/classes=10",
                     "sgd_update_f32/tensors=100", "mark_alive_f32", "gather_batch_f32", "anything_new_f32"):
            self.assertEqual(sum(bool(re.search(family, name)) for family in gpu_check.FAMILIES), 1, name)

    def test_kernels_come_family_by_family(self):
        program = self.script("gradflow", f"""
import json, sys
a = sys.argv
if "relu" not in a[a.index("--only") + 1]:
    sys.exit("gradflow: no kernel's name matches")
row = {kernel_row("relu_forward_f32", 1 << 20)!r}
json.dump({{"context": {{}}, "yardstick": {{"reference_gbytes_per_second": 1.0}}, "rows": [row], "rejected": [], "skipped": []}},
          open(a[a.index("--json") + 1], "w"))
""")
        self.check.end = time.monotonic() + 600
        gpu_check.run_kernels(self.check, {"gradflow": program}, dict(os.environ), dict(os.environ), self.folder)
        kernels = self.check.summary["kernels"]
        self.assertEqual({row["name"] for row in kernels["rows"]}, {"relu_forward_f32"})
        # No GPU here: PyTorch is either absent or sees none, and its columns stay empty.
        if not kernels["torch"]:
            self.assertTrue(kernels["torch_reason"])
            self.assertNotIn("torch", kernels["rows"][0])


class Program(WithFolder):
    def run_check(self, *arguments):
        return subprocess.run([os.path.join(ROOT, "scripts", "gpu_check.sh"), *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              text=True, cwd=self.folder, timeout=60, check=False)

    def test_without_a_gpu_it_says_so_at_once(self):
        started = time.monotonic()
        result = self.run_check("--libcuda", "libcuda-that-is-not-there.so")
        self.assertEqual(result.returncode, 3)
        self.assertRegex(result.stderr, r"\Agpu_check: no GPU here: no NVIDIA driver [^\n]+\. Nothing was run\.\n\Z")
        self.assertEqual((result.stdout, os.listdir(self.folder)), ("", []))
        self.assertLess(time.monotonic() - started, 20)

    def test_bad_usage(self):
        for arguments in (["--bundle", self.folder], ["--minutes", "0"], ["--minutes", "x"], ["--frobnicate"], ["--bundle", "a", "--build", "b"]):
            result = self.run_check(*arguments)
            self.assertEqual((result.returncode, result.stdout), (2, ""), arguments)


if __name__ == "__main__":
    unittest.main()
