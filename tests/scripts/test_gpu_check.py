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
import types
import unittest
from unittest import mock

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "scripts"))
import gpu_check  # noqa: E402
import gpu_kernels  # noqa: E402
import gpu_steps  # noqa: E402
import gpu_summary  # noqa: E402
import gpu_tests  # noqa: E402

TIMED = {"median_us": 200.0, "min_us": 199.0, "max_us": 210.0, "samples": 20, "launches": 5, "gbytes_per_second": 2700.0}


def kernel_row(name, size, **more):
    return {"name": name, "family": "pointwise", "call": "pointwise_forward", "pass": "forward", "dtype": "f32", "size": size,
            "read_bytes": 4 * size, "written_bytes": 4 * size, "cold": dict(TIMED), "warm": dict(TIMED), "share": 0.93,
            "launch_bound": False, **more}


def training_row(**more):
    """As scripts/gpu_steps.py records it: 0.5 ms, PyTorch 4 ms and 0.8 ms, 2 GiB where PyTorch takes 4, and 3 of the device's where it takes 5."""
    ours = {"graph": {"median_ms": 0.5, "floor_ms": 0.25, "images_per_second": 256000.0, "memory": {"total_bytes": 2 << 30, "taken_bytes": 3 << 30}},
            "probes": {"median_ms": 0.515, "probe_overhead": 0.03}, "launches": {"median_ms": 0.75}}
    targets = {"eager_ratio": ("at least", 8), "compile_ratio": ("at least", 1.7), "probe_ratio": ("at most", 1.02), "memory_ratio": ("at most", 0.8)}
    return {"name": "Made-up network", "batch": 128, "ours": ours, "eager": {"median_ms": 4.0, "peak_bytes": 4 << 30, "taken_bytes": 5 << 30},
            "compile": {"median_ms": 0.8},
            "targets": targets, **more}


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
            "training_steps": {"rows": [training_row()], "torch_reason": ""}, "demo": {"passed": True, "seconds": 12.0}}


class Summary(unittest.TestCase):
    def test_figures_are_those_of_the_record(self):
        text = gpu_summary.markdown(full_summary())
        self.assertIn("## Made-up GPU, 2001-02-03 04:05 UTC", text)
        self.assertIn("| relu_forward_f32 | 200.0 | 2700 | 93 | 200.0 | 220.0 | 210.0 | 1.10 | 1.05 |  |", text)
        self.assertIn("launch-bound", text)
        self.assertIn("Refused: wild_f32, 2^26: too fast", text)
        self.assertIn("a \\| b", text)
        self.assertIn("| Made-up network, 128 | 0.500 | 256000 | 0.250 | 0.750 | 1.030 | 4.000 | 0.800 | 8.00 | 1.60 | 2.00 | 4.00 | 0.50 | 3.00 | 5.00 | 0.60 |", text)
        for line in ("| eager ÷ ours | at least 8 | 8.000 | met |", "| compile ÷ ours | at least 1.7 | 1.600 | missed |",
                     "| with probes ÷ without | at most 1.02 | 1.030 | missed |", "| our memory ÷ PyTorch's | at most 0.8 | 0.500 | met |"):
            self.assertIn("| Made-up network " + line, text)

    def test_where_the_time_of_a_step_goes(self):
        kinds = [{"name": f"kind {i}", "launches": 2, "ms": 0.1 * i, "floor_ms": 0.05, "gflops_per_second": 4000.0, "gbytes_per_second": 500.0} for i in range(9)]
        row = training_row()
        row["ours"]["graph"].update(groups=kinds, launch_times={"nothing_ms": 0.0015})
        lines = gpu_summary.kind_lines([row, training_row(), training_row(ours={})])
        self.assertIn("A pair of events with nothing between shows 1.5 us", lines[1])
        self.assertEqual(lines[5], "| Made-up network | kind 8 | 2 | 0.800 | 0.050 | 4 | 500 |")
        self.assertEqual(len(lines), 3 + 2 + 6)
        self.assertEqual(gpu_summary.kind_lines([training_row()]), [])

    def test_a_step_that_overran_is_told(self):
        late = {"reason": "no result within 60 s"}
        row = training_row(eager={"median_ms": 4.0}, compile=late)
        row["ours"]["launches"] = late
        text = "\n".join(gpu_summary.training_lines([row]))
        self.assertIn("| 0.500 | 256000 | 0.250 | – | 1.030 | 4.000 | – | 8.00 | – | 2.00 | – | – | 3.00 | – | – |", text)
        self.assertIn("| Made-up network | compile ÷ ours | at least 1.7 | – | not measured |", text)
        self.assertIn("Made-up network, compile: no result within 60 s", text)
        self.assertIn("Made-up network, launches: no result within 60 s", text)
        bare = gpu_summary.training_row(training_row(ours={}, eager=late))
        self.assertEqual({key: value for key, value in bare.items() if value is not None}, {"compile_ms": 0.8})

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


# A test program as gtest makes them: cases by name, with what becomes of each.
GTEST = """
import os, sys, time
cases = {{{cases}}}
assert "REQUIRE_GPU" in os.environ
chosen = next((a.partition("=")[2] for a in sys.argv if a.startswith("--gtest_filter=")), "*")
if "--gtest_list_tests" in sys.argv:
    if "Suite.Fine" in chosen or "Absent" in chosen:
        cases = {{name: fate for name, fate in cases.items() if name == chosen}}
    print("Running main() from made_up.cc")
    for suite in dict.fromkeys(name.partition(".")[0] for name in cases):
        print(suite + ".")
        print(*["  " + name.partition(".")[2] + "  # GetParam() = 1" for name in cases if name.startswith(suite + ".")], sep="\\n")
    sys.exit(0)
run = [name for name in chosen.split(":") if name in cases] or list(cases)
failed = False
print(f"[==========] Running {{len(run)}} tests from 1 test suite.")
for name in run:
    print(f"[ RUN      ] {{name}}", flush=True)
    fate = cases[name]
    if fate == "crash":
        os.abort()
    if fate == "hang":
        time.sleep(600)
    if fate == "poison":
        failed = True
    bad = fate in ("FAILED", "poison") or failed and fate == "after"
    if bad:
        print("/a/path/some_test.cpp:12: Failure\\nExpected equality of these values:\\n  " + name)
    word = " FAILED " if bad else "SKIPPED " if fate == "SKIPPED" else "      OK"
    print(f"[ {{word}} ] {{name}}, where GetParam() = 1 (2 ms)", flush=True)
print(f"[==========] {{len(run)}} tests from 1 test suite ran. (5 ms total)")
print("[  FAILED  ] Suite.Listed")
"""


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

    def test_what_a_grandchild_holds_open_is_not_waited_for(self):
        code = "import subprocess, sys; print('said', flush=True); subprocess.Popen(['sleep', '30'], start_new_session=True); {}"
        started = time.monotonic()
        passed, output = self.check.step("leaves one", [sys.executable, "-c", code.format("")], 20, dict(os.environ))
        self.assertEqual((passed, output), (True, "said\n"))
        self.check.step("hangs too", [sys.executable, "-c", code.format("import time; time.sleep(30)")], 1.5, dict(os.environ))
        self.assertLess(time.monotonic() - started, 15)
        self.assertEqual(self.statuses(), [("leaves one", "passed"), ("hangs too", "timeout")])

    def test_a_program_is_asked_to_end_before_it_is_ended(self):
        code = ("import signal, time\ndef end(*_): print('what I have'); raise SystemExit(0)\nsignal.signal(signal.SIGINT, end)\n"
                "print('began', flush=True)\ntime.sleep(30)")
        passed, output = self.check.step("asked", [sys.executable, "-c", code], 6, dict(os.environ), grace=3)
        self.assertEqual((passed, output.split("\n")[:2]), (False, ["began", "what I have"]))
        self.assertEqual(self.statuses(), [("asked", "timeout")])

    def test_the_summary_is_there_after_every_step(self):
        self.check.record("first", "passed", time.monotonic(), 5)
        with open(os.path.join(self.folder, "summary.json"), encoding="utf-8") as file:
            self.assertEqual(json.load(file)["steps"][0]["name"], "first")
        self.check.summary["kernels"] = {"rows": [{"name": "no figures"}]}  # cannot be written, which ends nothing
        self.check.record("second", "passed", time.monotonic(), 5)
        self.assertEqual(self.statuses(), [("first", "passed"), ("second", "passed")])

    def test_every_kernel_is_of_one_family(self):
        for name in ("fill_f32", "memory_copy_f32", "linear_stats_f32", "leaky_relu_backward_bf16/accumulate", "bias_relu_forward_f32",
                     "residual_tanh_backward_bf16", "pool_max_all_f32", "batch_norm_forward_f32", "softmax_cross_entropy_f32/classes=10",
                     "sgd_update_f32/tensors=100", "mark_alive_f32", "gather_batch_f32", "anything_new_f32"):
            self.assertEqual(sum(bool(re.search(family, name)) for family in gpu_kernels.FAMILIES), 1, name)

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
        self.check.end = self.check.part_end = time.monotonic() + 600
        gpu_kernels.run(self.check, program, dict(os.environ), dict(os.environ), self.folder)
        kernels = self.check.summary["kernels"]
        self.assertEqual({row["name"] for row in kernels["rows"]}, {"relu_forward_f32"})
        # No GPU here: PyTorch is either absent or sees none, and its columns stay empty.
        if not kernels["torch"]:
            self.assertTrue(kernels["torch_reason"])
            self.assertNotIn("torch", kernels["rows"][0])


    STEP = """
import json, sys, time
a = sys.argv
if "resnet50" in a:
    sys.exit("gradflow: no room")
time.sleep({slow} if "off" in a else 0)
convolution = {{"name": "conv1 forward", "ms": 0.5, "floor_ms": 0.25, "bytes": 4, "description": "implicit GEMM"}}
record = {{"median_ms": 1.0, "launches": [{{"name": "loss forward"}}, *([convolution] if "all" in a else [])], "layers": [2], "samples_ms": [3], "arguments": a[1:]}}
json.dump(record, open(a[a.index("--json") + 1], "w"))
"""

    def run_steps(self, slow=0, step=STEP, compile=False, **environment):
        program = self.script("gradflow", step.format(slow=slow))
        works = [gpu_steps.work("small", "resnet-20", "resnet:depth=20", "synthetic", 4, "tf32"),
                 gpu_steps.work("large", "imagenet-50", "resnet50", "synthetic", 4, "bf16")]
        arguments = (self.check, program, dict(os.environ), dict(os.environ, **environment), self.folder, works)
        gpu_steps.run(*arguments)
        step = self.check.summary["steps"][-1]
        if compile:
            self.check.end = self.check.part_end = time.monotonic() + 200
            gpu_steps.run_compile(*arguments)
        return self.check.summary["training_steps"], step

    def fake_torch(self, answer):
        """A module `torch` for bench_torch_step.py that leads to `answer`."""
        self.script("fake/torch.py", f"import json, sys\nprint('a warning')\nprint(json.dumps({answer!r}))\nsys.exit({answer.get('exit', 0)})\n")
        return os.path.join(self.folder, "fake")

    def test_training_steps(self):
        result, step = self.run_steps(compile=True, PYTHONPATH=self.fake_torch({"median_ms": 9.0, "peak_bytes": 5}))
        small, large = result["rows"]
        self.assertEqual(set(small["ours"]), {"graph", "probes", "launches"})
        self.assertEqual(set(small["ours"]["graph"]), {"median_ms", "arguments"})  # without the long lists
        self.assertEqual(small["ours"]["probes"]["convolutions"],
                         [{"name": "conv1 forward", "ms": 0.5, "floor_ms": 0.25, "description": "implicit GEMM"}])
        words = " ".join(small["ours"]["probes"]["arguments"])
        self.assertIn("--model resnet:depth=20 --data synthetic --batch 4 --dtype f32 --tf32", words)
        self.assertIn("--probes all", words)
        tensors = small["ours"]["graph"]["arguments"]
        self.assertTrue(tensors[tensors.index("--save-tensors") + 1].endswith("step-0.safetensors"))
        self.assertNotIn("--save-tensors", words)
        self.assertEqual(large["ours"]["graph"]["reason"], "exit 1: gradflow: no room")
        for row in result["rows"]:
            self.assertEqual((row["eager"]["median_ms"], row["compile"]["median_ms"]), (9.0, 9.0))
        self.assertEqual(step["status"], "failed")
        self.assertIn("3 of 6 measured; large (graph): exit 1: gradflow: no room", step["detail"])

    def test_pytorch_begins_with_what_gradflow_began_with(self):
        self.script("fake/torch.py", "import json, sys\nprint(json.dumps({'median_ms': 1.0, 'asked': sys.argv[1:]}))\nsys.exit(0)\n")
        saving = self.STEP + "\nif '--save-tensors' in a: open(a[a.index('--save-tensors') + 1], 'w')\n"
        result, _ = self.run_steps(step=saving, compile=True, PYTHONPATH=os.path.join(self.folder, "fake"))
        small, large = result["rows"]  # the large one's gradflow fails and writes nothing
        for key in ("eager", "compile"):
            self.assertIn("--tensors", small[key]["asked"])
            self.assertNotIn("--tensors", large[key]["asked"])

    def test_the_summary_says_what_is_the_same(self):
        def row(ours, **eager):
            r = training_row()
            r["ours"]["graph"]["first_loss"] = ours
            r["eager"].update(eager)
            return r
        alike = gpu_summary.same_work([row(2.5, first_loss=2.5025, same_tensors=True)])[0]
        self.assertEqual(alike, "PyTorch began with gradflow's weights and batch in 1 of 1 networks; the losses before any update differ by at most "
                                "1.0e-03 of them.")
        mixed = gpu_summary.same_work([row(2.5, first_loss=2.5, same_tensors=True), row(2.5, first_loss=3.0, same_tensors=False)])[0]
        self.assertIn("in 1 of 2 networks", mixed)
        self.assertIn("in the others with its own", mixed)
        self.assertEqual(gpu_summary.same_work([{"ours": {}, "eager": {"reason": "none"}}]), [])

    def test_compilation_alone_measures_gradflow_too(self):
        program = self.script("gradflow", self.STEP.format(slow=0))
        works = [gpu_steps.work("first", "resnet-20", "resnet:depth=20", "synthetic", 4, "f32", eager_ratio=("at least", 3)),
                 gpu_steps.work("other", "resnet-20", "resnet:depth=20", "synthetic", 4, "f32")]
        environment = dict(os.environ, PYTHONPATH=self.fake_torch({"reason": "CompilerError: no", "exit": 1}))
        gpu_steps.run_compile(self.check, program, dict(os.environ), environment, self.folder, works)
        for row in self.check.summary["training_steps"]["rows"]:
            self.assertEqual(list(row["ours"]), ["graph"])
        self.assertEqual(self.check.summary["training_steps"]["rows"][0]["compile"]["reason"], "CompilerError: no")
        step = self.check.summary["steps"][-1]
        self.assertEqual((step["name"], step["status"]), ("torch.compile", "failed"))
        self.assertIn("0 of 2 networks; first: CompilerError: no", step["detail"])

    def test_pytorch_says_in_a_line_why_it_failed(self):
        self.script("fake/torch.py", "class cuda:\n    is_available = staticmethod(lambda: True)\n    Event = None\n"
                                     "def manual_seed(seed):\n    raise ValueError('first\\nsecond')\n")
        done = subprocess.run([sys.executable, "-B", os.path.join(ROOT, "scripts", "bench_torch_step.py"), "mlp-4"], text=True, stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, check=False, env=dict(os.environ, PYTHONPATH=os.path.join(self.folder, "fake")))
        self.assertEqual((json.loads(done.stdout), done.returncode), ({"reason": "ValueError: first second"}, 1))

    def test_training_steps_without_pytorch(self):
        result, _ = self.run_steps(compile=True, PYTHONPATH=self.fake_torch({"reason": "no PyTorch", "exit": 3}))
        self.assertEqual(result["torch_reason"], "no PyTorch")
        self.assertFalse(any("compile" in row for row in result["rows"]))
        self.assertFalse("eager" in result["rows"][1])

    def test_a_training_step_that_hangs_is_ended(self):
        self.check.part_end = time.monotonic() + 6
        started = time.monotonic()
        result, step = self.run_steps(slow=60, PYTHONPATH=self.fake_torch({"reason": "no PyTorch", "exit": 3}))
        self.assertLess(time.monotonic() - started, 20)
        self.assertIn("median_ms", result["rows"][0]["ours"]["graph"])
        self.assertIn("no result within", result["rows"][0]["ours"]["launches"]["reason"])
        self.assertNotIn("launches", result["rows"][1]["ours"])
        self.assertIn("large (launches): no time was left", step["detail"])

    def test_parts_share_the_time(self):
        every = list(gpu_check.PARTS)
        whole = 540.0
        self.assertEqual(gpu_check.allowance(whole, "demo", ["demo"]), whole)
        left, given = whole, []
        for part in every:
            given.append(gpu_check.allowance(left, part, every))
            left -= given[-1]
        self.assertAlmostEqual(sum(given), whole)
        self.assertGreater(min(given), 20)
        # What one part leaves over, those behind it get.
        self.assertGreater(gpu_check.allowance(whole - 10, every[1], every), given[1])
        self.check.end = time.monotonic() + 100
        self.check.begin("kernels", ["kernels", "demo"])
        kernels, demo = gpu_check.PARTS["kernels"], gpu_check.PARTS["demo"]
        self.assertAlmostEqual(self.check.left(), 100 * kernels / (kernels + demo), delta=1)

    def test_the_launcher_passes_arguments_and_libraries(self):
        program = self.script("bin/it", "import os, sys; print(sys.argv[1:], os.environ['LD_LIBRARY_PATH'])")
        launcher = gpu_check.write_launcher(os.path.join(self.folder, "launcher"), program, {"LD_LIBRARY_PATH": "/a b:/c'd"})
        said = subprocess.run([launcher, "x y", "*"], stdout=subprocess.PIPE, text=True, check=True).stdout
        self.assertEqual(said, "['x y', '*'] /a b:/c'd\n")

    def test_every_target_of_the_table_is_one_of_a_work(self):
        names = {key for w in gpu_steps.WORKS for key in w["targets"]}
        self.assertEqual(names, set(gpu_summary.TARGETS))
        # Names that PyTorch's side understands.
        import bench_torch_step
        for w in gpu_steps.WORKS:
            self.assertEqual(bench_torch_step.work(w["torch"]), w["torch"])

    def test_pytorch_decays_what_gradflow_decays(self):
        import torch_models
        parameters = [types.SimpleNamespace(name=name, dim=lambda rank=rank: rank)
                      for name, rank in (("conv1.weight", 4), ("bn1.weight", 1), ("bn1.bias", 1), ("fc.weight", 2), ("fc.bias", 1), ("scale", 0))]
        decayed, rest = torch_models.decay_groups(iter(parameters), 5e-4)
        self.assertEqual(([p.name for p in decayed["params"]], decayed["weight_decay"]), (["conv1.weight", "fc.weight"], 5e-4))
        self.assertEqual(([p.name for p in rest["params"]], rest["weight_decay"]), (["bn1.weight", "bn1.bias", "fc.bias", "scale"], 0))


class Peer(unittest.TestCase):
    """bench_torch_step.py with a made-up PyTorch whose events are 10 ms apart."""

    def measure(self, **of_cuda):
        import bench_torch_step
        import torch_models
        torch = mock.MagicMock(__version__="9.9")
        self.events = torch.cuda.Event.return_value
        self.events.elapsed_time.return_value = 10.0
        for name, values in of_cuda.items():
            getattr(torch.cuda, name).side_effect = values
        options = types.SimpleNamespace(device="cuda", dtype="f32", work="mlp-4", batch=8, tensors=None, compile=False, repeat=3, seconds=60)
        with mock.patch.object(torch_models, "training_peer", return_value=(mock.MagicMock(), mock.MagicMock(), 10)), \
                mock.patch.object(torch_models, "decay_groups", return_value=[]):
            return bench_torch_step.measure(torch, options)

    def test_a_sample_is_twenty_milliseconds_of_device_events(self):
        record = self.measure(mem_get_info=[(12, 100), (5, 100)])
        self.assertEqual((record["steps_per_sample"], record["samples"], record["clock"]), (2, 3, "device events"))
        self.assertEqual((record["median_ms"], record["min_ms"]), (5.0, 5.0))
        self.assertEqual(record["taken_bytes"], 7)
        self.assertEqual(self.events.record.call_count, 2 * self.events.elapsed_time.call_count)


class Whole(WithFolder):
    """Every part from beginning to end, with a made-up driver and made-up programs."""
    GRADFLOW = """
import json, os, sys
a = sys.argv[1:]
def write(record):
    json.dump(record, open(a[a.index("--json") + 1], "w"))
if a[0] == "info":
    print(json.dumps({"git_revision": "0123456789ab", "cuda": {"available": True},
                      "devices": [{"model": "cpu"}, {"model": "Made-up GPU", "libraries": "CUDA 13.0"}]}))
elif a[:2] == ["bench", "kernels"]:
    timed = {"median_us": 200.0, "gbytes_per_second": 2700.0}
    write({"context": {}, "yardstick": {"reference_gbytes_per_second": 2900.0}, "rejected": [], "skipped": [],
           "rows": [{"name": "fill_f32", "dtype": "f32", "size": 1024, "cold": timed, "warm": timed, "share": 0.9, "launch_bound": False}]})
elif a[:2] == ["bench", "step"]:
    write({"median_ms": 2.0, "floor_ms": 1.0, "images_per_second": 64000.0, "probe_overhead": 0.01, "memory": {"total_bytes": 1 << 30}})
elif a[0] == "demo":
    os.makedirs(a[a.index("--out") + 1])
"""
    TESTS = GTEST.format(cases="'Suite.Fine': 'OK', 'Suite.AsWell': 'OK'")

    def run_whole(self, *more, gradflow=GRADFLOW, tests=TESTS):
        build, out = os.path.join(self.folder, "build"), os.path.join(self.folder, "out")
        self.script("build/gradflow", gradflow)
        for name in gpu_check.TEST_PROGRAMS:
            self.script("build/tests/" + name, tests)
        self.script("fake/torch.py", "import json, sys\nprint(json.dumps({'reason': 'no PyTorch (made up)'}))\nsys.exit(3)\n")
        self.script("fake/numpy.py", "raise SystemExit('no NumPy')\n")
        self.script("fake/tensorboard.py", "raise SystemExit('no TensorBoard')\n")
        code = ("import sys; sys.path.insert(0, sys.argv[1]); import gpu_check; gpu_check.gpu_count = lambda library: (1, ''); "
                "gpu_check.gpu_tests.find_sanitizer = lambda: None; sys.exit(gpu_check.main(sys.argv[2:]))")
        done = subprocess.run([sys.executable, "-B", "-c", code, os.path.join(ROOT, "scripts"), "--build", build, "--out", out, *more], text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120, check=False, cwd=self.folder,
                              env=dict(os.environ, PYTHONPATH=os.path.join(self.folder, "fake")))
        with open(os.path.join(out, "summary.json"), encoding="utf-8") as file:
            summary = json.load(file)
        with open(os.path.join(out, "summary.md"), encoding="utf-8") as file:
            return done, summary, file.read()

    def test_every_part(self):
        done, summary, text = self.run_whole()
        statuses = {step["name"]: step["status"] for step in summary["steps"]}
        # The comparisons with NumPy, PyTorch and TensorBoard fail here, as these are made up; that stops nothing.
        self.assertEqual({name for name, status in statuses.items() if status == "failed"},
                         {"networks against NumPy", "networks against PyTorch", "events in TensorBoard"}, done.stdout)
        self.assertEqual({name for name, status in statuses.items() if status == "passed"},
                         {"device", *gpu_check.TEST_PROGRAMS, "kernels", "training steps", "demo"}, done.stdout)
        self.assertIn("demo", done.stdout)
        self.assertEqual({name for name, status in statuses.items() if status == "skipped"}, {*gpu_tests.SANITIZERS, "torch.compile"})
        self.assertEqual(done.returncode, 1)
        self.assertEqual(summary["revision"], "0123456789ab")
        self.assertIn("| ResNet-50, 224x224, bf16, 256 | 2.000 | 64000 | 1.000 | 2.000 | 1.010 | – | – | – | – | 1.00 | – | – | – | – | – |", text)
        self.assertIn("| ResNet-20, bf16 | with probes ÷ without | at most 1.02 | 1.010 | met |", text)
        self.assertIn("| fill_f32 | 200.0 |", text)
        self.assertIn("no PyTorch (made up)", text)

    def test_programs_that_hang_do_not_hold_it_up(self):
        hang = "\nimport time\n{}time.sleep(600)\n"
        started = time.monotonic()
        done, summary, text = self.run_whole("--minutes", "0.12", gradflow=self.GRADFLOW + hang.format("if a[0] != 'info': "),
                                             tests=self.TESTS + hang.format(""))
        self.assertLess(time.monotonic() - started, 7 + 15)  # what starting and ending a dozen interpreters takes
        statuses = {step["name"]: step["status"] for step in summary["steps"]}
        self.assertEqual(statuses["device"], "passed", done.stdout)
        for name in ("test_kernels", "kernels", "training steps", "demo"):
            self.assertIn(statuses[name], ("timeout", "failed", "skipped"), done.stdout)
        self.assertEqual(done.returncode, 1)
        self.assertIn("| test_kernels |", text)

    def test_no_test_is_no_success(self):
        none = [("failed", "no test ran")] * 3
        for cases in ("'Suite.Fine': 'SKIPPED'", ""):
            _, summary, _ = self.run_whole("--parts", "tests", tests=GTEST.format(cases=cases))
            self.assertEqual([(step["status"], step["detail"].replace("0 passed, 1 skipped, 0 failed", "no test ran")) for step in summary["steps"][1:4]], none)

    def test_chosen_tests_alone(self):
        _, summary, _ = self.run_whole("--parts", "tests", "--tests", "Suite.Fine")
        self.assertEqual([(step["name"], step["detail"]) for step in summary["steps"][1:]],
                         [(name, "1 passed, 0 skipped, 0 failed") for name in gpu_check.TEST_PROGRAMS])
        _, summary, _ = self.run_whole("--parts", "tests", "--tests", "Absent.*")
        self.assertEqual([(step["status"], step["detail"]) for step in summary["steps"][1:]], [("failed", "no test is called Absent.*")])

    def test_failing_tests_are_named(self):
        cases = "'A.Good/cuda': 'OK', 'A.Bad/cuda': 'FAILED', 'B.Crash/cuda': 'crash', 'B.Behind/cuda': 'OK', 'C.First/cuda': 'poison', 'C.Next/cuda': 'after'"
        done, summary, text = self.run_whole("--parts", "tests", tests=GTEST.format(cases=cases))
        steps = {step["name"]: step for step in summary["steps"]}
        # Of those behind a failing test the run alone counts; a crash costs its own test alone.
        self.assertEqual((steps["test_kernels"]["status"], steps["test_kernels"]["detail"]), ("failed", "3 passed, 0 skipped, 3 failed"), done.stdout)
        kernels = {f["test"]: f["message"] for f in summary["failures"] if f["program"] == "test_kernels"}
        self.assertEqual(set(kernels), {"A.Bad/cuda", "B.Crash/cuda", "C.First/cuda"})
        self.assertIn("some_test.cpp:12: Failure; Expected equality of these values:; A.Bad/cuda", kernels["A.Bad/cuda"])
        self.assertIn("ended the process (exit -6)", kernels["B.Crash/cuda"])
        self.assertIn("- `A.Bad/cuda` (test_kernels): ", text)
        self.assertIn("    A.Bad/cuda: ", done.stdout)

    def test_one_part(self):
        done, summary, text = self.run_whole("--parts", "demo")
        self.assertEqual(([step["name"] for step in summary["steps"]], done.returncode), (["device", "demo"], 0), done.stdout)
        self.assertEqual(text.count("Not measured."), 2)


class Sanitizers(WithFolder):
    def test_what_a_tool_said(self):
        output = """========= COMPUTE-SANITIZER
[ RUN      ] Backends/A.B/cuda
========= Invalid __global__ read of size 4 bytes
=========     at relu_forward_f32+0x1a0 in pointwise.cuh:31
=========     by thread (1,0,0) in block (0,0,0)
========= Invalid __global__ read of size 4 bytes
=========     at relu_forward_f32+0x1b0 in pointwise.cuh:31
========= Uninitialized __global__ memory read of size 4 bytes
=========     at fill_f32+0x10
========= ERROR SUMMARY: 3 errors
"""
        self.assertEqual(gpu_tests.findings(output), ["2 x Invalid __global__ read of size 4 bytes at relu_forward_f32+.. in pointwise.cuh:31",
                                                      "1 x Uninitialized __global__ memory read of size 4 bytes at fill_f32+.."])
        self.assertEqual(gpu_tests.findings("[       OK ] x\n========= ERROR SUMMARY: 0 errors\n"), [])

    def test_four_tools_in_several_processes(self):
        tool = self.script("compute-sanitizer", """
import os, subprocess, sys
if "--help" in sys.argv:
    print("--kernel-name-exclude arg   kernel_regex or regex\\n--report-api-errors arg"); sys.exit(0)
name, program = sys.argv[sys.argv.index("--tool") + 1], next(i for i, a in enumerate(sys.argv) if a.endswith("test_kernels"))
assert ("--kernel-name-exclude" in sys.argv) == (name != "memcheck") == ("--report-api-errors" not in sys.argv)
code = subprocess.run(sys.argv[program:]).returncode
if name == "racecheck" and os.environ["GTEST_SHARD_INDEX"] == "0":
    print("========= Error: Race reported between Write access at a_f32+0x10 and Read access at a_f32+0x20"); sys.exit(9)
sys.exit(code)
""")
        program = self.script("test_kernels", GTEST.format(cases="'A.B/cuda': 'hang' if 'initcheck' in os.environ.get('SLOW', '') else 'OK'"))
        check = gpu_check.Check(self.folder, 60)
        self.addCleanup(check.log.close)
        check.say = lambda text: None
        found, gpu_tests.find_sanitizer = gpu_tests.find_sanitizer, lambda: tool
        least, gpu_tests.LEAST_SECONDS = gpu_tests.LEAST_SECONDS, 1
        try:
            gpu_tests.run_sanitizers(check, {"test_kernels": program}, dict(os.environ))
            check.end = check.part_end = time.monotonic() + 7
            gpu_tests.run_sanitizers(check, {"test_kernels": program}, dict(os.environ, SLOW="initcheck"))
        finally:
            gpu_tests.find_sanitizer, gpu_tests.LEAST_SECONDS = found, least
        steps = check.summary["steps"]
        self.assertEqual([(step["name"], step["status"]) for step in steps[:4]],
                         [("memcheck", "passed"), ("racecheck", "failed"), ("initcheck", "passed"), ("synccheck", "passed")], steps)
        self.assertIn("1 x Error: Race reported between Write access at a_f32+..", steps[1]["detail"])
        self.assertEqual([step["status"] for step in steps[4:]], ["timeout"] * 4)
        self.assertIn("nothing found in those that ran (0 tests passed)", steps[6]["detail"])


class Bundle(WithFolder):
    def libraries(self, folder, **contents):
        os.makedirs(os.path.join(self.folder, folder), exist_ok=True)
        for name, text in contents.items():
            with open(os.path.join(self.folder, folder, name.replace("_so_", ".so.").replace("stdcxx", "stdc++")), "wb") as file:
                file.write(text)
        return os.path.join(self.folder, folder)

    def test_the_newer_runtime_library_stays(self):
        own = self.libraries("own", libstdcxx_so_6=b"\0GLIBCXX_3.4\0GLIBCXX_3.4.30\0GLIBCXX_3.4.33\0", libgcc_s_so_1=b"\0GCC_3.0\0")
        # What libstdc++ wants of libgcc is no version of its own.
        carried = self.libraries("carried", libstdcxx_so_6=b"\0GLIBCXX_3.4\0GLIBCXX_3.4.30\0GCC_3.4\0", libgcc_s_so_1=b"\0GCC_3.0\0GCC_13.0.0\0", libfmt_so_9=b"")
        gpu_check.leave_to_the_system(carried, [os.path.join(self.folder, "absent"), own])
        self.assertEqual(sorted(os.listdir(carried)), ["libfmt.so.9", "libgcc_s.so.1"])
        gpu_check.leave_to_the_system(carried, [os.path.join(self.folder, "absent")])
        self.assertEqual(sorted(os.listdir(carried)), ["libfmt.so.9", "libgcc_s.so.1"])

    def test_pytorchs_libraries_come_first(self):
        for folder in ("nvidia/cu13/lib", "nvidia/cudnn/lib", "nvidia/other/lib"):
            name = {"cu13": "libcublas_so_13", "cudnn": "libcudnn_so_9", "other": "libother_so_1"}[folder.split("/")[1]]
            self.libraries(folder, **{name: b""})
        before = list(sys.path)
        sys.path.append(self.folder)
        try:
            found = gpu_check.library_folders()
        finally:
            sys.path[:] = before
        self.assertEqual(found[:2], [os.path.join(self.folder, "nvidia", "cu13", "lib"), os.path.join(self.folder, "nvidia", "cudnn", "lib")])


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
        for arguments in (["--bundle", self.folder], ["--minutes", "0"], ["--minutes", "x"], ["--frobnicate"], ["--parts", "test"], ["--bundle", "a", "--build", "b"]):
            result = self.run_check(*arguments)
            self.assertEqual((result.returncode, result.stdout), (2, ""), arguments)


if __name__ == "__main__":
    unittest.main()
