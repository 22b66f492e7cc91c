#!/usr/bin/env python3
"""scripts/training_study.py on tiny networks: its table says what the logs say, a second call trains nothing anew, and
what was stopped keeps what it has.

Usage: test_training_study.py PROGRAM
"""
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SCRIPT = os.path.join(ROOT, "scripts", "training_study.py")
DATA = "half:synthetic:n=256,test=64,height=16,width=16,channels=1"
PROGRAM = ""


def run(*arguments):
    return subprocess.run([sys.executable, "-B", SCRIPT, "--program", PROGRAM, *arguments], capture_output=True, text=True, timeout=100)


class TrainingStudy(unittest.TestCase):
    def test_four_networks(self):
        with tempfile.TemporaryDirectory() as folder:
            out = os.path.join(folder, "study")
            command = ("--data", DATA, "--steps", "6", "--depths", "8,14", "--device", "cpu", "--out", out)
            first = run(*command)
            self.assertEqual(first.returncode, 0, first.stdout + first.stderr)
            with open(os.path.join(out, "study.json")) as file:
                study = json.load(file)
            self.assertEqual([row["network"] for row in study["rows"]], ["plain-8", "plain-14", "ResNet-8", "ResNet-14"])
            with open(os.path.join(out, "plain-14", "log.jsonl")) as log:
                lines = [json.loads(line) for line in log]
            self.assertEqual(lines[0]["schedule"], "step:at=3/4,factor=0.1")
            self.assertEqual(lines[0]["augmentation"], "standard:crop=2")
            steps = [line for line in lines if line["event"] == "step"]
            self.assertEqual(len(steps), 6)
            # The last epoch: 2 steps of 128 of 256 images.
            row = study["rows"][1]
            self.assertAlmostEqual(row["training_error"], 1 - (steps[4]["accuracy"] + steps[5]["accuracy"]) / 2, places=12)
            held_out = [line for line in lines if line["event"] == "held_out"]
            self.assertAlmostEqual(row["test_error"], 1 - held_out[-1]["accuracy"], places=12)
            self.assertIn(f"{100 * row['training_error']:.2f} %", first.stdout)

            before = os.path.getmtime(os.path.join(out, "plain-14", "log.jsonl"))
            again = run(*command)
            self.assertEqual(again.returncode, 0, again.stderr)
            self.assertIn("nothing left to do", again.stdout)
            with open(os.path.join(out, "study.json")) as file:
                self.assertEqual(json.load(file)["rows"], study["rows"])
            self.assertGreaterEqual(os.path.getmtime(os.path.join(out, "plain-14", "log.jsonl")), before)
            table = run("--table", os.path.join(out, "study.json"))
            self.assertIn("ResNet-14", table.stdout)
            self.assertTrue(study["complete"])
            self.assertEqual(study["rows"][0]["augmentation"], "standard:crop=2")
            # Not the same study.
            other = run(*command[:3], "12", *command[4:])
            self.assertEqual(other.returncode, 2)
            self.assertIn("name another folder with --out", other.stderr)

    def test_a_stopped_study_keeps_what_it_has_and_goes_on(self):
        with tempfile.TemporaryDirectory() as folder:
            out = os.path.join(folder, "study")
            command = ("--data", DATA, "--steps", "20", "--depths", "8,14", "--device", "cpu", "--out", out)
            result = os.path.join(out, "study.json")
            with subprocess.Popen([sys.executable, "-B", SCRIPT, "--program", PROGRAM, *command], stdout=subprocess.PIPE, text=True) as study:
                while not os.path.exists(result) and study.poll() is None:
                    time.sleep(0.01)
                study.send_signal(signal.SIGTERM)
                text = study.communicate(timeout=60)[0]
            self.assertEqual(study.returncode, 143, text)
            self.assertIn("Not complete", text)
            with open(result) as file:
                part = json.load(file)
            self.assertFalse(part["complete"])
            self.assertEqual(part["rows"][0]["steps"], 20)
            again = run(*command)
            self.assertEqual(again.returncode, 0, again.stderr)
            with open(result) as file:
                whole = json.load(file)
            self.assertTrue(whole["complete"])
            self.assertEqual([row["steps"] for row in whole["rows"]], [20] * 4)
            self.assertEqual(whole["rows"][0]["training_error"], part["rows"][0]["training_error"])

    def test_what_is_wrong_is_said(self):
        self.assertEqual(run("--depths", "20;56").returncode, 2)
        self.assertEqual(run("--steps", "2").returncode, 2)
        with tempfile.TemporaryDirectory() as folder:
            failed = run("--data", "nowhere", "--out", os.path.join(folder, "s"))
            self.assertEqual(failed.returncode, 2)
            self.assertIn("gradflow: ", failed.stderr)


if __name__ == "__main__":
    PROGRAM = sys.argv.pop(1)
    unittest.main()
