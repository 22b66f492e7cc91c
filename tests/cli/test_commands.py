#!/usr/bin/env python3
"""Runs the program as a person would: what is right gives exit code 0, what is wrong gives 2 and one line.

Usage: test_commands.py --program build/gradflow [name of one test]
"""
import gzip
import json
import os
import re
import struct
import subprocess
import sys
import tempfile
import unittest

PROGRAM = ""
MODEL = "mlp:depth=3,width=8"
DATA = "synthetic:features=6,classes=3,n=64,test=16"
COMMANDS = ["demo", "report", "train", "measure", "plan", "bench", "bench step", "bench kernels", "info"]


def run(*arguments, stdout=subprocess.PIPE, folder=None):
    return subprocess.run([PROGRAM, *arguments], stdout=stdout, stderr=subprocess.PIPE, text=True, errors="replace", cwd=folder, timeout=60)


def idx(values, *extents, kind=0x08, magic=None):
    head = struct.pack(">BBBB", 0, 0, kind, len(extents)) if magic is None else magic
    return head + b"".join(struct.pack(">I", e) for e in extents) + bytes(values)


def read_safetensors(path):
    """name -> (shape, bytes)"""
    with open(path, "rb") as file:
        raw = file.read()
    start = 8 + struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8:start])
    header.pop("__metadata__", None)
    return {name: (t["shape"], raw[start + t["data_offsets"][0]:start + t["data_offsets"][1]]) for name, t in header.items()}


def write_mnist(folder, **replaced):
    """A tiny data set of the four files; `replaced` maps a short name to other bytes, or None to leave it out."""
    files = {"train-images-idx3-ubyte": idx([i % 251 for i in range(20 * 4)], 20, 2, 2),
             "train-labels-idx1-ubyte": idx([i % 10 for i in range(20)], 20),
             "t10k-images-idx3-ubyte": idx([i % 13 for i in range(5 * 4)], 5, 2, 2),
             "t10k-labels-idx1-ubyte": idx([i % 10 for i in range(5)], 5)}
    for short, content in replaced.items():
        name = {"images": "train-images-idx3-ubyte", "labels": "train-labels-idx1-ubyte"}[short]
        del files[name]
        if isinstance(content, tuple):
            files[name + content[0]] = content[1]
        elif content is not None:
            files[name] = content
    for name, content in files.items():
        with open(os.path.join(folder, name), "wb") as file:
            file.write(content)
    return files


class Program(unittest.TestCase):
    def setUp(self):
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.folder = holder.name

    def refused(self, *arguments, says=""):
        """Exit code 2, one line that says what is wrong, nothing on standard output, nothing left behind."""
        before = sorted(os.listdir(self.folder))
        result = run(*arguments, folder=self.folder)
        with self.subTest(arguments=arguments):
            self.assertEqual(result.returncode, 2, result.stderr)
            self.assertRegex(result.stderr, r"\Agradflow: [^\n]+\n\Z")
            self.assertIn(says, result.stderr)
            self.assertEqual(result.stdout, "")
            self.assertEqual(sorted(os.listdir(self.folder)), before)
        return result.stderr

    def works(self, *arguments):
        result = run(*arguments, folder=self.folder)
        self.assertEqual(result.returncode, 0, f"{arguments}: {result.stderr}")
        self.assertEqual(result.stderr, "", arguments)
        return result.stdout

    def path(self, name):
        return os.path.join(self.folder, name)

    def read_json(self, name):
        with open(self.path(name)) as file:
            return json.load(file)


class Help(Program):
    def test_without_a_command_it_explains_itself(self):
        text = self.works()
        for command in ("demo", "train", "measure", "plan", "bench", "info"):
            self.assertIn(f"\n  {command} ", text)

    def test_every_command_has_help_with_examples(self):
        for command in COMMANDS:
            text = self.works(*command.split(), "--help")
            self.assertRegex(text, rf"Examples?:\n( .*\n)*  gradflow {command}", command)
            self.assertLessEqual(max(map(len, text.splitlines())), 120, command)
            if "--data" in text and command != "plan":
                self.assertIn("synthetic[:n=8192,test=2048,features=784,", text, command)
        self.assertIn("branch_scale=", self.works("plan", "--help"))

    def test_version(self):
        self.assertRegex(self.works("--version"), r"\Agradflow \d+\.\d+\.\d+ \(\w[^)]*\)\n\Z")

    def test_unknown_words_get_the_nearest_one(self):
        self.refused("mesure", says="did you mean measure?")
        self.refused("mesure", "--model", MODEL, says="did you mean measure?")
        self.refused("bench", "steps", says="did you mean step?")
        self.refused("plan", "--modle", MODEL, says="did you mean --model?")
        self.refused("measure", "--model", MODEL, "--save-tensor=x", says="did you mean --save-tensors?")
        self.refused("info", "extra", says="'extra'")
        self.refused("--versoin", says="did you mean --version?")
        self.refused("frobnicate", says="unknown command 'frobnicate'")
        self.refused("plan", "--model", MODEL, "two\nlines", says="two")

    def test_missing_and_repeated_options(self):
        self.refused("plan", says="--model is required")
        self.refused("measure", says="gradflow measure --help")
        self.refused("plan", "--model", says="--model")
        self.refused("plan", "--model", MODEL, "--model", MODEL, says="--model")
        self.refused("plan", "--model", MODEL, "--batch", "1", "--batch", "2", says="--batch is given 2 times: once is right")
        self.refused("plan", "--model", says="--model needs a value: SPEC")
        self.refused("plan", "--model", MODEL, "--batch=", says="--batch needs a value: N")
        self.refused("info", "--json=maybe", says="--json: 'maybe' is no value for it: it is a switch and takes none")
        self.refused("info", "plan", says="'plan'")
        self.refused("--device", "cpu", "info", says="unknown option '--device'")
        self.refused("info", "--", "more", says="'more'")


class BadValues(Program):
    def test_models(self):
        for spec, says in {
                "mpl:depth=3": "did you mean 'mlp'", "": "model", "mlp:": "mlp:", "mlp:deph=3": "did you mean 'depth'",
                "mlp:depth=3,depth=4": "depth", "mlp:depth=0": "depth=0", "mlp:depth=-3": "depth=-3", "mlp:depth=abc": "depth=abc",
                "mlp:depth=": "depth", "mlp:depth=3.5": "depth=3.5", "mlp:depth": "depth", "mlp:width=0": "width=0",
                "mlp:width=99999999999999999999": "width", "mlp:act=relux": "act=relux", "mlp:skip=yes": "skip=yes",
                "mlp:skip=on,branch=3": "branch=3", "mlp:branch=2": "skip=on", "mlp:skip=on,depth=2": "raise depth",
                "mlp:skip=on,branch=2,depth=5": "multiple of branch", "mlp:gain=nan": "gain=nan", "mlp:gain=-1": "gain=-1",
                "mlp:skip=on,branch_scale=inf": "branch_scale=inf", "mlp:norm=batch": "norm=batch", "mlp:init=hee": "init=hee",
                "resnet:depth=21": "nearest are 20 and 26", "resnet:shortcut=D": "one of A, B, C", "plain:shortcut=A": "shortcut",
                "resnet49": "did you mean 'resnet", "mlp:depth=3,,width=4": "mlp:depth=3,,width=4", "mlp:depth=3,": "mlp", "mlp:depth=3\nwidth=4": "depth=3"}.items():
            self.refused("plan", "--model", spec, says=says)
            self.refused("measure", "--model", spec, "--data", DATA, "--json", "m.json", says=says)
        self.refused("bench", "step", "--model", "mlp:deph=3", "--json", "b.json", says="did you mean 'depth'")

    def test_numbers(self):
        for batch in ("0", "-1", "abc", "1e3", "3.5", "99999999999999999999999", "", "1000000000"):
            self.refused("plan", "--model", MODEL, "--batch", batch, says="--batch")
        self.refused("measure", "--model", MODEL, "--data", DATA, "--batch", "65", says="65")
        self.refused("bench", "step", "--model", MODEL, "--data", DATA, "--batch", "65", says="64")
        for command in (["measure"], ["bench", "step"], ["train", "--optimizer", "sgd", "--lr", "0.1", "--steps", "1"]):
            self.refused(*command, "--model", "mlp:depth=3,width=4,norm=bn", "--data", DATA, "--batch", "1", says="take 2 or more")
        for seed in ("-1", "x", "18446744073709551616"):
            self.refused("measure", "--model", MODEL, "--data", DATA, "--batch", "4", "--seed", seed, says="--seed")
        train = ["train", "--model", MODEL, "--data", DATA, "--batch", "8", "--optimizer", "sgd", "--lr", "0.1", "--steps", "1"]
        for option, least in (("--epochs", 1), ("--eval-every", 1), ("--checkpoint-every", 1), ("--probe-every", 0)):
            for value in ("-1", "1e3", "abc", "99999999999999999999"):
                self.refused(*train, option, value, says=f"{option}: '{value}' is not a whole number from {least} to 1099511627776")
        self.refused(*train[:-1], "99999999999999999999", says="--steps: '99999999999999999999' is not a whole number")
        self.refused(*train[:-1], "0", says="--steps: '0' is not a whole number")
        for option in ("--momentum", "--weight-decay"):
            for value in ("-1", "nan", "inf", "1e999", "0.9x", "0x1"):
                self.refused(*train, option, value, says=f"{option}: '{value}' is not a finite number of 0 or more")
        for value in ("-0.1", "nan", "0,1"):
            self.refused(*train[:-4], "--steps", "1", "--lr", value, says=f"--lr: '{value}' is not a finite number of 0 or more")
        for option in ("--probe-every", "--checkpoint-every"):
            self.refused(*train, option, "2", says=f"{option} needs --out, the folder of the run")
        self.refused("train", "--recipe", "he2015", says="train needs --model, --data\n")  # the rest is the recipe's
        self.refused(*train, "--momentum", "1.5", says="momentum 1.5: it must be in [0, 1)")
        self.refused(*train, "--dtype", "f16", says="--dtype: 'f16' is none of f32, bf16, f64")
        for size in ("6.5GiB", "5XB", "GiB", "1ib", " 1"):
            self.refused(*train, "--memory-limit", size, says=f"--memory-limit: '{size}' is not a size")
        self.refused(*train, "--memory-limit", "16EiB", says="'16EiB' is more than any memory has")
        self.refused(*train, "--memory-limit", "1 kB", says="are left of the limit of 1.0 KiB")
        for repeat in ("0", "-5", "many"):
            self.refused("bench", "step", "--repeat", repeat, says="--repeat")
        self.refused("bench", "step", "--optimizer", "sdg", says="--optimizer")
        self.refused("bench", "step", "--probes", "some", says="--probes")
        for command in (("measure",), ("plan",), ("bench", "step")):
            self.refused(*command, "--model", MODEL, "--data", DATA, "--batch", "8", "--device", "cpu", "--tf32", says="TF32 needs a CUDA device")
        self.refused("train", "--model", MODEL, "--data", DATA, "--batch", "8", "--steps", "1", "--optimizer", "sgd", "--lr", "0.1", "--device", "cpu",
                     "--tf32", says="TF32 needs a CUDA device")
        self.refused("measure", "--model", MODEL, "--dtype", "f16", says="--dtype")
        for command in (("measure", "--model", MODEL, "--data", DATA), ("plan", "--model", MODEL), ("bench", "step")):
            self.refused(*command, "--memory-limit", "-1", says="--memory-limit: '-1' is not a size")
            self.refused(*command, "--memory-limit", "99999999999TB", says="--memory-limit")
        self.refused("measure", "--model", MODEL, "--data", "half:" * 20000 + DATA, says="cannot be halved")

    def test_the_ranges_that_the_profiling_document_filters_by(self):
        document = os.path.join(os.path.dirname(__file__), "..", "..", "docs", "PROFILING.md")
        with open(document, encoding="utf-8") as file:
            filters = re.findall(r"gradflow@([^/']+)/'(?:[^\n]|\\\n)*--model (\S+)", file.read())
        self.assertTrue(filters)
        for launch, model in filters:
            layer, kind = launch.replace("\\+", "+").rsplit(" ", 1)
            self.assertRegex(self.works("plan", "--model", model), rf"\b{re.escape(layer)} +{kind} ")

    def test_demo(self):
        self.refused("demo", "--pair", "huge", "--data", DATA, says="--pair: 'huge' is none of auto, full, reduced, off")
        # What was made for the results goes again when there are none.
        self.refused("demo", "--data", "idx:/nonexistent", "--out", "a/b", says="/nonexistent")
        self.refused("demo", "--device", "cuda:7", says="cuda")
        self.refused("report", "--from", "/etc/hostname", "--out", "x", says="/etc/hostname")

    def test_devices(self):
        for device in ("gpu", "cuda:x", "cuda:-1", "CPU", ""):
            self.refused("measure", "--model", MODEL, "--data", DATA, "--device", device, says="device")
        info = json.loads(self.works("info", "--json"))
        if not info["cuda"]["available"]:
            self.assertTrue(info["cuda"]["reason"])
            self.refused("measure", "--model", MODEL, "--data", DATA, "--batch", "4", "--device", "cuda", says=info["cuda"]["reason"])
            self.refused("plan", "--model", MODEL, "--device", "cuda:0", says="no CUDA device: ")

    def test_data(self):
        for spec, says in {"cifar": "cifar", "fashion-mnits": "did you mean 'fashion-mnist'", "mnist:": "mnist", "mnist": "mnist",
                           "mnist:/nowhere/at/all": "/nowhere/at/all", "half:": "data 'half:': expected half:SPEC", "half:half:": "expected half:SPEC", "idx:/nowhere": "/nowhere", "synthetic:classes=0": "classes=0", "synthetic:classes=65537": "from 2 to 65536",
                           "synthetic:clases=3": "did you mean 'classes'", "cifar10": "cifar10:DIR", "cifar100:/nowhere": "/nowhere", "synthetic:n=0": "n=0", "": "data"}.items():
            self.refused("measure", "--model", MODEL, "--data", spec, "--json", "m.json", says=says)
            self.refused("plan", "--model", MODEL, "--data", spec, "--json", "p.json", says=says) if spec else None

    def test_faulty_idx_files(self):
        good = write_mnist(self.folder)
        measure = ["measure", "--model", MODEL, "--data", "mnist:" + self.folder, "--batch", "4"]
        self.works(*measure)
        images, labels = good["train-images-idx3-ubyte"], good["train-labels-idx1-ubyte"]
        packed = gzip.compress(images)
        for what, replaced in {
                "missing": {"images": None}, "truncated": {"images": images[:-1]}, "too long": {"images": images + b"x"},
                "cut in the head": {"images": images[:9]}, "empty": {"images": b""}, "wrong magic": {"images": b"PK\3\4" + images[4:]},
                "wrong type": {"images": idx(range(80), 20, 2, 2, kind=0x0D)}, "counts differ": {"labels": idx(range(10), 10)},
                "label beyond the classes": {"labels": idx([11] + [0] * 19, 20)}, "huge extents": {"images": idx(b"", 2**32 - 1, 2**32 - 1, 2**32 - 1)},
                "cut gzip": {"images": (".gz", packed[:-9])}, "no gzip": {"images": (".gz", b"not gzip at all")},
                "labels where images belong": {"images": labels}}.items():
            for name in os.listdir(self.folder):
                os.remove(self.path(name))
            write_mnist(self.folder, **replaced)
            with self.subTest(what):
                self.refused(*measure, says=self.folder)
        for name in os.listdir(self.folder):
            os.remove(self.path(name))
        write_mnist(self.folder, images=(".gz", packed))
        self.works(*measure)


class Outputs(Program):
    def test_files_that_cannot_be_written(self):
        measure = ["measure", "--model", MODEL, "--data", DATA, "--batch", "4"]
        plan = ["plan", "--model", MODEL]
        bench = ["bench", "step", "--model", MODEL, "--data", DATA, "--batch", "4", "--repeat", "1"]
        for command, options in ((measure, ("--json", "--save-tensors")), (plan, ("--json", "--dot")), (bench, ("--json",))):
            for option in options:
                self.refused(*command, option, "/nowhere/at/all/file", says="cannot write '/nowhere/at/all/file': No such file or directory")
                self.refused(*command, option, self.folder, says="it is a folder")
                self.refused(*command, option, "/dev/full", says="No space left on device")
                self.refused(*command, option, "/proc/self/nothing", says="/proc/self/nothing")

    def test_a_report_of_nothing(self):
        with open(self.path("other.json"), "w") as file:
            file.write('{"schema": "of something else"}')
        self.refused("report", "--from", "nowhere.json", "--out", "again", says="gradflow: cannot read 'nowhere.json': No such file or directory")
        self.refused("report", "--from", "other.json", "--out", "again", says="other.json: not a gradflow report")

    def test_two_outputs_in_one_file(self):
        measure = ["measure", "--model", MODEL, "--data", DATA, "--batch", "4"]
        kernels = ["bench", "kernels", "--device", "cpu", "--only", "^fill_f32$", "--size", "10", "--repeat", "1"]
        self.refused(*measure, "--json", "x", "--save-tensors", "./x", says="--json and --save-tensors both name './x'")
        self.refused("plan", "--model", MODEL, "--json", "x", "--dot", "x", says="--json and --dot both name 'x'")
        self.refused(*kernels, "--csv", "x", "--svg", "x", says="--csv and --svg both name 'x'")

    def test_the_first_output_is_not_left_behind(self):
        self.refused("plan", "--model", MODEL, "--json", "p.json", "--dot", "/nowhere/p.dot", says="/nowhere/p.dot")

    def test_empty_values(self):
        train = ["train", "--model", MODEL, "--data", DATA, "--batch", "4", "--steps", "1", "--optimizer", "sgd", "--lr", "0.1"]
        for command in (["plan", "--model", MODEL, "--json", ""], ["measure", "--model", MODEL, "--data", DATA, "--save-tensors", ""],
                        [*train, "--out", ""], ["bench", "step", "--json", ""], ["demo", "--out", ""]):
            self.refused(*command, says=": the value is empty; leave the option out or give it one")

    def test_an_earlier_file_survives_a_failure(self):
        with open(self.path("m.json"), "w") as file:
            file.write("old")
        self.refused("measure", "--model", MODEL, "--data", DATA, "--batch", "4", "--json", "m.json", "--save-tensors", "/nowhere/t")
        with open(self.path("m.json")) as file:
            self.assertEqual(file.read(), "old")

    def test_memory_limit(self):
        """One line: what does not fit, and the batch that does; that batch then fits."""
        network = ["--model", "mlp:depth=6,width=64", "--data", DATA]
        commands = {"plan": [], "measure": [], "train": ["--optimizer", "sgd", "--lr", "0.1", "--steps", "2"]}
        for command, more in commands.items():
            call = [command, *network, *more, "--batch", "64", "--memory-limit"]
            self.refused(*call, "1KiB", says="not even a batch of 1 would fit")
            self.refused(*call, "some", says="--memory-limit")
            refusal = run(*call, "160KiB", folder=self.folder)
            self.assertEqual(refusal.returncode, 2, refusal)
            batch = re.search(r"the first without room is the .* of '.*' \(.*\); a batch of (\d+) instead of 64 would fit", refusal.stderr).group(1)
            call[call.index("64")] = batch
            self.works(*call, "160KiB")

    def test_weights(self):
        """What one command wrote, others begin with."""
        network = ["--model", MODEL, "--data", DATA, "--batch", "4"]
        self.works("measure", *network, "--seed", "5", "--save-tensors", "t", "--json", "first.json")
        self.works("measure", *network, "--seed", "5", "--weights", "t", "--json", "again.json")
        self.works("measure", *network, "--seed", "6", "--weights", "t", "--save-tensors", "u")
        losses = set()
        for name in ("first.json", "again.json"):
            with open(os.path.join(self.folder, name)) as file:
                losses.add(json.load(file)["loss"])
        self.assertEqual(len(losses), 1)
        train = ["train", *network, "--optimizer", "sgd", "--lr", "0.1", "--steps", "3"]
        self.works(*train, "--weights", "t", "--out", "run")
        self.assertEqual(self.read_json("run/summary.json")["weights"], "t")
        self.works("measure", *network, "--weights", "run/last.safetensors")
        self.refused(*train, "--weights", "t", "--out", "run", "--resume", says="--weights is for the beginning")
        self.refused("measure", *network, "--weights", "nowhere", says="nowhere")
        self.refused("measure", *network, "--weights", "/dev/zero", says="cannot read '/dev/zero': it is a device")
        self.refused("measure", "--model", MODEL + ",bias=off", "--data", DATA, "--batch", "4", "--weights", "t", says="which the network has not")
        self.refused("measure", "--model", "mlp:depth=4,width=8", "--data", DATA, "--batch", "4", "--weights", "t", says="it lacks 'block02.linear.weight' [8, 8]")

    def test_a_full_standard_output_is_an_error(self):
        for command in (["info"], ["plan", "--model", MODEL], ["--help"], ["--version"]):
            with open("/dev/full", "w") as full:
                result = run(*command, stdout=full)
            self.assertEqual(result.returncode, 2, command)
            self.assertRegex(result.stderr, r"\Agradflow: cannot write to standard output: No space left on device\n\Z")


class Info(Program):
    def test_text_and_json_agree(self):
        text, facts = self.works("info"), json.loads(self.works("info", "--json"))
        self.assertIn(facts["version"], self.works("--version"))
        for key in ("version", "git_revision", "build"):
            self.assertIn(facts[key], text)
        cpu = facts["devices"][0]
        self.assertEqual(cpu["name"], "cpu")
        self.assertGreaterEqual(cpu["threads"], 1)
        self.assertGreater(cpu["memory_bytes"], 1 << 20)
        self.assertIn("oneDNN", cpu["libraries"])
        self.assertIn(cpu["model"], text)

    def test_threads_and_spinning_settings_are_taken(self):
        for extra in ({}, {"OMP_WAIT_POLICY": "passive"}, {"GOMP_SPINCOUNT": "5"}):
            result = subprocess.run([PROGRAM, "info", "--json"], stdout=subprocess.PIPE, env=dict(os.environ, OMP_NUM_THREADS="1", **extra))
            self.assertEqual(json.loads(result.stdout)["devices"][0]["threads"], 1)


class Convolutional(Program):
    IMAGES = "synthetic:height=9,width=8,channels=2,n=64,test=16,classes=4"

    def test_every_command_takes_them(self):
        for model in ("resnet:depth=8,shortcut=B", "plain:depth=8,norm=none,act=tanh"):
            common = ["--model", model, "--data", self.IMAGES, "--batch", "8"]
            self.works("plan", *common)
            self.works("measure", *common, "--json", "m.json")
            self.assertGreater(self.read_json("m.json")["loss"], 0)
            self.assertIn("images/s", self.works("bench", "step", *common, "--repeat", "1", "--probes", "all"))
            self.works("train", *common, "--optimizer", "sgd", "--lr", "0.1", "--steps", "3", "--out", "run-" + model[:5])
        self.works("train", "--resume", "--out", "run-plain", "--steps", "5")


class Plan(Program):
    MODEL = "mlp:depth=6,width=16,act=tanh,skip=on,norm=bn"

    def plan(self, *more, model=MODEL):
        self.works("plan", "--model", model, "--data", DATA, "--batch", "8", "--json", "p.json", *more)
        return self.read_json("p.json")

    def test_json_describes_a_sound_plan(self):
        p = self.plan("--probes", "all")
        self.assertEqual(p["schema"], "gradflow-plan/1")
        self.assertEqual(sum(l["flops"] for l in p["launches"]), p["total_flops"])
        self.assertLess(p["arena_bytes"], p["bytes_without_reuse"])
        self.assertEqual([l["kind"] for l in p["launches"]].index("backward"), p["first_backward"])
        buffers = p["buffers"]
        for i, a in enumerate(buffers):
            self.assertLessEqual(a["offset"] + a["bytes"], p["arena_bytes"])
            for b in buffers[:i]:
                together = a["first_launch"] <= b["last_launch"] and b["first_launch"] <= a["last_launch"]
                overlap = a["offset"] < b["offset"] + b["bytes"] and b["offset"] < a["offset"] + a["bytes"]
                self.assertFalse(together and overlap and a["storage"] != b["storage"], (a, b))
        written = {b for b, buffer in enumerate(buffers) if buffer["name"] in ("x", "labels")}
        for number, launch in enumerate(p["launches"]):
            for operand in launch["reads"]:
                self.assertIn(operand["buffer"], written, launch)
            for operand in launch["reads"] + launch["writes"]:
                buffer = buffers[operand["buffer"]]
                self.assertTrue(buffer["first_launch"] <= number <= buffer["last_launch"], launch)
            written |= {operand["buffer"] for operand in launch["writes"]}

    def test_torchvision_networks_have_their_published_parameters(self):
        for depth, parameters in {18: 11689512, 34: 21797672, 50: 25557032, 101: 44549160, 152: 60192808}.items():
            text = self.works("plan", "--model", f"resnet{depth}", "--batch", "2",
                              "--data", "synthetic:height=224,width=224,channels=3,classes=1000")
            self.assertIn(f"({parameters} numbers)", text)

    def test_layers_are_fused_unless_asked_not_to(self):
        fused = self.plan()
        self.assertTrue(fused["fused"])
        self.assertIn("block01.norm+tanh", [l["layer"] for l in fused["launches"]])
        apart, probed = self.plan("--no-fuse"), self.plan("--probes", "all")
        self.assertFalse(apart["fused"])
        self.assertFalse(probed["fused"])  # batch norm that is measured costs the host less apart
        layers = [l["layer"] for l in self.plan("--probes", "all", model="mlp:depth=4,width=8,act=tanh")["launches"]]
        self.assertIn("block01.linear+tanh", layers)  # what lies inside is measured there
        self.assertLess(fused["total_bytes_moved"], apart["total_bytes_moved"])
        self.assertIn("layers became", self.works("plan", "--model", self.MODEL))

    def test_inference_and_no_reuse(self):
        self.works("plan", "--model", "mlp:depth=30,width=64", "--json", "deep.json")
        self.works("plan", "--model", "mlp:depth=30,width=64", "--inference", "--json", "inference.json")
        training, apart, inference = self.plan(), self.plan("--no-reuse"), self.read_json("inference.json")
        self.assertEqual({l["kind"] for l in inference["launches"]}, {"forward"})
        self.assertLess(inference["arena_bytes"], 0.5 * self.read_json("deep.json")["arena_bytes"])
        self.assertEqual(apart["arena_bytes"], apart["bytes_without_reuse"])
        self.assertEqual(apart["bytes_without_reuse"], training["bytes_without_reuse"])

    def test_the_table_has_a_row_for_every_launch(self):
        text = self.works("plan", "--model", self.MODEL, "--batch", "8", "--json", "p.json")
        p = self.read_json("p.json")
        rows = [line.split() for line in text.splitlines() if re.match(r" *\d+  \S", line)]
        self.assertEqual([int(row[0]) for row in rows], list(range(len(p["launches"]))))
        self.assertEqual([row[1] for row in rows], [l["layer"] for l in p["launches"]])
        self.assertIn(f"({p['arena_bytes']} bytes)", text)

    def test_dot_is_a_graph(self):
        self.works("plan", "--model", self.MODEL, "--dot", "p.dot")
        with open(self.path("p.dot")) as file:
            lines = file.read().splitlines()
        self.assertEqual((lines[0], lines[-1]), ("digraph step {", "}"))
        text = r'"(?:[^"\\]|\\.)*"'
        attribute = rf"\w+=(?:{text}|\w+)"
        nodes, edges = set(), []
        for line in lines[1:-1]:
            node = re.fullmatch(rf"  (\w+) \[{attribute}(?:, {attribute})*\];", line)
            edge = re.fullmatch(rf"  (\w+) -> (\w+) \[{attribute}\];", line)
            self.assertTrue(node or edge or re.fullmatch(rf"  {attribute};", line), line)
            if node:
                nodes.add(node[1])
            if edge:
                edges.append((edge[1], edge[2]))
        self.assertGreater(len(edges), len(nodes) - 10)
        self.assertLessEqual({end for edge in edges for end in edge}, nodes)

    def test_json_to_standard_output_stands_alone(self):
        for file in ("/dev/stdout", "-"):
            self.assertEqual(json.loads(self.works("plan", "--model", MODEL, "--json", file))["model"], MODEL)
        text = self.works("measure", "--model", MODEL, "--data", DATA, "--batch", "4", "--json", "-")
        self.assertEqual(json.loads(text)["model"], MODEL)
        self.assertEqual(os.listdir(self.folder), [])
        self.works("plan", "--model", MODEL, "--json", "./-")
        self.assertEqual(os.listdir(self.folder), ["-"])

    def test_long_plans_are_printed_whole(self):
        text = self.works("plan", "--model", "mlp:depth=2000,width=4", "--batch", "2")
        self.assertGreater(len(text.splitlines()), 3 * 2000)


class Measure(Program):
    def test_equal_seeds_give_equal_files(self):
        contents = []
        for seed in ("7", "7", "8"):
            self.works("measure", "--model", MODEL, "--data", DATA, "--batch", "4", "--seed", seed, "--json", "m.json",
                       "--save-tensors", "t.safetensors")
            contents.append([])
            for name in ("m.json", "t.safetensors"):
                with open(self.path(name), "rb") as file:
                    contents[-1].append(file.read())
        self.assertEqual(contents[0], contents[1])
        self.assertNotEqual(contents[0][0], contents[2][0])
        self.assertEqual(sorted(os.listdir(self.folder)), ["m.json", "t.safetensors"])

    def test_paths_need_not_be_text(self):
        folder = os.path.join(os.fsencode(self.folder), b"data\xff")
        os.mkdir(folder)
        write_mnist(os.fsdecode(folder))
        self.works("measure", "--model", MODEL, "--data", b"mnist:" + folder, "--batch", "4", "--json", "m.json", "--save-tensors", "t")
        self.assertIn("\ufffd", self.read_json("m.json")["data"])

    def test_a_dead_network_says_so(self):
        text = self.works("measure", "--model", "mlp:depth=40,width=16,act=sigmoid,init=lecun", "--data", DATA, "--batch", "8", "--json", "m.json")
        self.assertIn("saturated%", text)
        gradients = {g["name"]: g for g in self.read_json("m.json")["activation_gradients"]}
        self.assertLess(gradients["stem.linear"]["norm"], 1e-10 * gradients["head.linear"]["norm"])


class Precision(Program):
    """bf16 networks: every command takes them, says so, and keeps parameters in f32."""
    BF16 = ["--model", MODEL, "--data", DATA, "--device", "cpu", "--dtype", "bf16"]

    def test_plan_and_measure(self):
        self.assertIn("bf16 with f32 parameters", self.works("plan", *self.BF16, "--batch", "8", "--json", "p.json"))
        plan = self.read_json("p.json")
        self.assertEqual(plan["dtype"], "bf16")
        self.assertEqual({b["dtype"] for b in plan["buffers"] if b["role"] in ("value", "gradient") and b["name"] != "labels"}, {"bf16"})
        self.assertEqual({b["dtype"] for b in plan["buffers"] if b["role"] == "parameter gradient"}, {"f32"})
        self.assertEqual(plan["parameter_bytes"], 4 * plan["parameter_count"])
        self.assertTrue(0 < plan["parameter_copy_bytes"] < 2 * plan["parameter_count"])
        self.assertIn("bf16 with f32 parameters", self.works("measure", *self.BF16, "--batch", "8", "--save-tensors", "t.st", "--json", "m.json"))
        self.assertEqual(self.read_json("m.json")["dtype"], "bf16")
        with open(self.path("t.st"), "rb") as file:
            header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
        kinds = {name: entry["dtype"] for name, entry in header.items() if name != "__metadata__"}
        self.assertEqual({kinds["x"], kinds["activation/stem.linear"], kinds["grad/activation/stem.linear"]}, {"BF16"})
        self.assertEqual({kinds["stem.linear.weight"], kinds["grad/stem.linear.weight"]}, {"F32"})

    def test_bench_and_train(self):
        self.assertIn("bf16 with f32 parameters", self.works("bench", "step", *self.BF16, "--batch", "8", "--repeat", "2", "--json", "b.json"))
        self.assertEqual(self.read_json("b.json")["context"]["dtype"], "bf16")
        train = ["--optimizer", "sgd", "--lr", "0.1", "--batch", "16", "--out", "run"]
        self.assertIn("bf16 with f32 parameters", self.works("train", *self.BF16, *train, "--steps", "3"))
        self.assertEqual(self.read_json("run/summary.json")["dtype"], "bf16")
        with open(self.path("run/log.jsonl")) as file:
            self.assertEqual(json.loads(file.readline())["dtype"], "bf16")
        self.refused("train", "--resume", "--out", "run", "--dtype", "f32", says="begun with 'bf16'")
        self.works("train", "--resume", "--out", "run", "--device", "cpu", "--steps", "4")
        self.assertEqual(self.read_json("run/summary.json")["dtype"], "bf16")


class Fusion(Program):
    NETWORK = ["--model", "mlp:depth=4,width=8,act=tanh,norm=bn,skip=on", "--data", DATA, "--batch", "8", "--device", "cpu"]

    def test_the_switch_is_recorded_and_changes_no_bit_on_the_host(self):
        losses = set()
        for switch, fused in ([], True), (["--no-fuse"], False):
            out = f"run-{fused}"
            self.works("train", *self.NETWORK, "--optimizer", "sgd", "--lr", "0.1", "--steps", "3", "--out", out, *switch)
            summary = self.read_json(out + "/summary.json")
            self.assertEqual(summary["fused"], fused)
            losses.add(summary["train_loss"])
            with open(self.path(out + "/log.jsonl")) as log:
                self.assertEqual(json.loads(log.readline())["fused"], fused)
            text = self.works("bench", "step", *self.NETWORK, "--repeat", "1", "--json", "b.json", *switch)
            context = self.read_json("b.json")["context"]
            self.assertEqual((context["fused"], context["run_layers"] < context["layers"]), (fused, fused))
            self.assertIn(f"{context['layers']} layers, " + (f"fused to {context['run_layers']}" if fused else "none fused (--no-fuse)"), text)
        self.assertEqual(len(losses), 1)
        for run, switched in ("run-True", False), ("run-False", True):
            with open(self.path(run + "/report/report.json")) as report:
                self.assertEqual("--no-fuse" in report.read(), switched)


class Bench(Program):
    def test_a_small_step(self):
        text = self.works("bench", "step", "--model", MODEL, "--data", DATA, "--batch", "8", "--repeat", "3", "--probes", "all", "--json", "b.json")
        b = self.read_json("b.json")
        self.assertLessEqual(b["min_ms"], b["median_ms"])
        self.assertLessEqual(b["median_ms"], b["max_ms"])
        self.assertEqual(len(b["samples_ms"]), 3)
        self.assertEqual(b["context"]["clock"], "the steady clock")
        self.assertIn("samples x steps, by the steady clock\n", text)
        self.assertIn(f"3 x {b['steps_per_sample']}\n", text)
        self.assertGreater(b["ceilings"]["matmul_gflops_per_second"], 0)
        self.assertGreater(b["ceilings"]["triad_gbytes_per_second"], 0)
        for rows in (b["groups"], b["layers"]):
            for key in ("ms", "floor_ms", "bytes", "flops", "launches"):
                self.assertAlmostEqual(sum(row[key] for row in rows), sum(launch[key] for launch in b["launches"]), places=6)
        times = b["launch_times"]
        self.assertEqual((times["clock"], times["passes"]), ("the steady clock", 5))
        self.assertAlmostEqual(times["sum_ms"], sum(launch["ms"] for launch in b["launches"]), places=6)
        self.assertLess(times["nothing_ms"], times["sum_ms"])
        self.assertIn("of each the median of 5 passes, one behind the other, by the steady clock", text)
        self.assertAlmostEqual(b["floor_ms"], sum(launch["floor_ms"] for launch in b["launches"]), places=9)
        for launch in b["launches"]:
            slower = max(launch["flops"] / b["ceilings"]["matmul_gflops_per_second"], launch["bytes"] / b["ceilings"]["triad_gbytes_per_second"])
            self.assertAlmostEqual(launch["floor_ms"], 1e-6 * slower, places=9)
        self.assertAlmostEqual(b["images_per_second"] * b["median_ms"], 8e3, places=3)
        memory = b["memory"]
        self.assertEqual(memory["total_bytes"], sum(memory[key + "_bytes"] for key in ("arena", "parameter", "parameter_copy", "state", "moment")))
        self.assertIsNone(memory["taken_bytes"])  # only a device tells
        self.assertEqual(memory["moment_bytes"], memory["parameter_bytes"])  # sgd keeps one number a parameter
        for words in ("linear backward", "without probes", "samples/s", "floor: ", "memory: ", "layer", "launch"):
            self.assertIn(words, text)

    def test_how_the_library_runs_a_convolution(self):
        text = self.works("bench", "step", "--model", "resnet:depth=8", "--data", "synthetic:height=6,width=6,channels=2,n=32,test=8", "--batch", "4",
                          "--device", "cpu", "--repeat", "1", "--launches", "--json", "b.json")
        told = {launch["name"]: launch["description"] for launch in self.read_json("b.json")["launches"] if "description" in launch}
        passes = {launch["name"] for launch in self.read_json("b.json")["launches"] if launch["group"] in ("convolution forward", "convolution backward")}
        self.assertEqual(set(told), passes)
        self.assertGreater(len(passes), 10)
        for name, how in told.items():
            self.assertRegex(how, r"\Adx: \S+.*; dW: \S+" if name.endswith(" backward") else r"\A[^;]+\Z")
            self.assertRegex(text, rf"\n  {re.escape(name)} \([0-9.]+ ms\): {re.escape(how)}\n")

    def test_what_a_peer_needs_to_do_the_same_work(self):
        step = ["--model", MODEL, "--data", DATA, "--batch", "8", "--seed", "3", "--device", "cpu"]
        self.works("bench", "step", *step, "--repeat", "1", "--save-tensors", "s", "--json", "b.json")
        self.works("measure", *step, "--save-tensors", "m", "--json", "m.json")
        saved, measured = read_safetensors(self.path("s")), read_safetensors(self.path("m"))
        self.assertEqual(set(saved), {name for name in measured if "/" not in name})
        for name in saved:
            self.assertEqual(saved[name], measured[name], name)
        self.assertAlmostEqual(self.read_json("b.json")["first_loss"], self.read_json("m.json")["loss"], places=6)
        self.works("bench", "kernels", "--device", "cpu", "--only", "^fill_f32$", "--size", "1000", "--repeat", "2", "--save-numbers", "n")
        self.assertEqual(read_safetensors(self.path("n"))["numbers"][0], [1000003])

    def test_kernels_in_every_form(self):
        kernels = ["bench", "kernels", "--device", "cpu", "--only", "^(relu_forward|fill)_f32$", "--size", "2^10,1000", "--repeat", "2"]
        names = self.works(*kernels[:6], "--list")
        self.assertEqual(names, "relu_forward_f32\nfill_f32\n")
        # On a busy machine a result may come out above a ceiling that was measured at a bad moment: code 1.
        result = run(*kernels, "--json", "k.json", "--csv", "k.csv", "--svg", "k.svg", folder=self.folder)
        self.assertIn(result.returncode, (0, 1), result.stderr)
        record = self.read_json("k.json")
        self.assertEqual(record["schema"], "gradflow-bench-kernels/1")
        self.assertEqual(len(record["rows"]) + len(record["rejected"]), 4)
        self.assertEqual(result.returncode == 1, bool(record["rejected"]))
        for row in record["rows"]:
            self.assertGreater(row["cold"]["median_us"], 0)
        with open(self.path("k.csv")) as file:
            self.assertEqual(len(file.read().splitlines()), 1 + len(record["rows"]))
        with open(self.path("k.svg")) as file:
            self.assertTrue(file.read().endswith("</svg>\n"))
        self.assertIn("relu_forward_f32", result.stdout)

    def test_kernels_refuse_nonsense(self):
        kernels = ["bench", "kernels", "--device", "cpu"]
        for options, says in ((("--only", "("), "no regular expression"), (("--only", "rleu_forward_f32"), "did you mean relu_forward_f32"),
                              (("--size", "0"), "is no size"), (("--size", "2^99"), "2^40"), (("--dtype", "f16"), "'f16' is no dtype"),
                              (("--repeat", "0"), "--repeat"), (("--size", "1000", "fill"), "unexpected argument 'fill'"),
                              (("--list", "--csv", "k.csv"), "--list measures nothing that --csv could hold"), (("--json", "no/such/folder/k.json"), "no/such/folder")):
            self.refused(*kernels, *options, says=says)
        self.refused("bench", "kernels", "--device", "gpu", says="gpu")
        self.refused("bench", "kernel", says="did you mean kernels?")

    def test_profiler_lines(self):
        step = ["bench", "step", "--device", "cpu", "--model", MODEL, "--data", DATA, "--batch", "4", "--repeat", "1"]
        text = self.works(*step, "--print-profile-command")
        self.assertRegex(text, r"\nnsys profile .*--capture-range=cudaProfilerApi .*bench step .*--profile-window\n")
        self.assertRegex(text, r"\nncu --profile-from-start=off .*--graph=off\n")
        self.assertIn("choose --device cuda", text)
        for window in ("--profile-window", "--profile-window=3"):
            self.assertNotIn("nsys", self.works(*step, "--graph", "off", window))
        self.refused(*step, "--profile-window=0", says="--profile-window")
        self.refused(*step, "--graph", "maybe", says="--graph")
        kernels = ["bench", "kernels", "--device", "cpu", "--only", "^fill_f32$", "--size", "100", "--repeat", "1"]
        result = run(*kernels, "--print-profile-command", "--profile-window", folder=self.folder)
        self.assertIn("'regex:^(fill_f32)$'", result.stdout)

    def test_info_names_the_environment(self):
        text = self.works("info", "--help")
        for variable in ("GRADFLOW_CUDA_MODULE", "GRADFLOW_CUDA_SYNC", "GRADFLOW_NVTX"):
            self.assertIn(variable, text)



if __name__ == "__main__":
    if "--program" in sys.argv:
        at = sys.argv.index("--program")
        PROGRAM = os.path.abspath(sys.argv[at + 1])
        del sys.argv[at:at + 2]
    if not PROGRAM:
        sys.exit(__doc__)
    unittest.main()
