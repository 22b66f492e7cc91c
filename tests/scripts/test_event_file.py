#!/usr/bin/env python3
"""The event file of `gradflow train --tensorboard`, decoded by hand: record lengths, both CRCs of each record, every field of every
message; and its numbers against log.jsonl. No Debian package holds TensorBoard's own reader: scripts/check_tensorboard.py asks that
one where there is one, and is tested here with the numbers decoded by hand.

Usage: test_event_file.py PROGRAM
"""
import glob
import json
import math
import os
import struct
import subprocess
import sys
import tempfile
import types
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "scripts"))
import check_tensorboard

PROGRAM = ""


def crc32c(data):
    """Bit by bit, from the definition: reflected polynomial 0x82f63b78."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(crc):
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def records(data):
    at = 0
    while at < len(data):
        length, length_crc = struct.unpack_from("<QI", data, at)
        assert masked(crc32c(data[at:at + 8])) == length_crc, f"CRC of the length at byte {at}"
        message = data[at + 12:at + 12 + length]
        assert len(message) == length, "the file ends within a record"
        (crc,) = struct.unpack_from("<I", data, at + 12 + length)
        assert masked(crc32c(message)) == crc, f"CRC of the record at byte {at}"
        yield message
        at += 16 + length


def fields(message):
    """[(number, wire type, value)] of a protobuf message; lengths and types are checked."""
    def varint(at):
        value = shift = 0
        while True:
            byte = message[at]
            value |= (byte & 0x7F) << shift
            at, shift = at + 1, shift + 7
            if byte < 0x80:
                return value, at
    at, found = 0, []
    while at < len(message):
        key, at = varint(at)
        kind = key & 7
        if kind == 0:
            value, at = varint(at)
        elif kind == 1:
            value, at = struct.unpack_from("<d", message, at)[0], at + 8
        elif kind == 5:
            value, at = struct.unpack_from("<f", message, at)[0], at + 4
        elif kind == 2:
            length, at = varint(at)
            value, at = message[at:at + length], at + length
            assert len(value) == length
        else:
            raise AssertionError(f"wire type {kind}")
        found.append((key >> 3, kind, value))
    return found


def decode(path):
    """(version, {tag: [(step, value)]}, [steps of restarts]); a histogram's value is the dict of its fields."""
    version, values, restarts = None, {}, []
    with open(path, "rb") as file:
        data = file.read()
    for i, message in enumerate(records(data)):
        event = fields(message)
        one = {number: value for number, _, value in event}
        assert 1.6e9 < one[1] < 4e9, "wall time"
        if i == 0:
            version = one[3].decode()
            continue
        step = one[2]
        if 7 in one:
            assert fields(one[7]) == [(1, 0, 1)], "SessionLog.START"
            restarts.append(step)
            continue
        for number, kind, content in fields(one[5]):
            assert (number, kind) == (1, 2), "Summary.value"
            entry = {number: (kind, value) for number, kind, value in fields(content)}
            tag = entry[1][1].decode()
            if 2 in entry:
                assert entry[2][0] == 5, "simple_value is a float"
                values.setdefault(tag, []).append((step, entry[2][1]))
            else:
                histogram = {n: v for n, _, v in fields(entry[5][1])}
                for packed in (6, 7):
                    histogram[packed] = [x for (x,) in struct.iter_unpack("<d", histogram[packed])]
                values.setdefault(tag, []).append((step, histogram))
    return version, values, restarts


def train(out, *more):
    command = [PROGRAM, "train", "--out", out, "--device", "cpu", *more]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


RUN = ("--model", "resnet:depth=8", "--data", "synthetic:n=128,test=32,height=8,width=8,channels=1", "--optimizer", "sgd", "--lr", "0.05",
       "--batch", "32", "--steps", "9", "--probe-every", "4", "--eval-every", "3", "--checkpoint-every", "6", "--tensorboard")


class EventFile(unittest.TestCase):
    def setUp(self):
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.out = os.path.join(holder.name, "run")

    def files(self):
        return sorted(glob.glob(os.path.join(self.out, "tensorboard", "events.out.tfevents.*")), key=os.path.getmtime)

    def log(self, event):
        with open(os.path.join(self.out, "log.jsonl")) as file:
            return [line for line in map(json.loads, file) if line["event"] == event]

    def close(self, a, b):
        self.assertTrue(math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-30), f"{a} {b}")  # f32 in the file

    def test_the_crc_is_the_published_one(self):
        self.assertEqual(crc32c(b"123456789"), 0xE3069283)  # RFC 3720's check value

    def test_it_holds_what_the_log_holds(self):
        train(self.out, *RUN)
        (path,) = self.files()
        version, values, restarts = decode(path)
        self.assertEqual((version, restarts), ("brain.Event:2", []))
        steps = self.log("step")
        for tag, key in (("loss/train", "loss"), ("accuracy/train", "accuracy"), ("learning_rate", "learning_rate")):
            self.assertEqual([step for step, _ in values[tag]], list(range(1, 10)))
            for (_, value), line in zip(values[tag], steps):
                self.close(value, line[key])
        self.assertTrue(all(speed > 0 for _, speed in values["images_per_second"]))
        held_out = self.log("held_out")
        self.assertEqual([step for step, _ in values["loss/held_out"]], [3, 6, 9])
        for (_, loss), (_, accuracy), line in zip(values["loss/held_out"], values["accuracy/held_out"], held_out):
            self.close(loss, line["loss"])
            self.close(accuracy, line["accuracy"])
        layers = self.log("layers")
        self.assertEqual([line["step"] for line in layers], [1, 4, 8])
        for k, line in enumerate(layers):
            for l, name in enumerate(line["layer"]):
                step, norm = values["gradient_norm/" + name][k]
                self.assertEqual(step, line["step"])
                self.close(norm, line["gradient"][l])
                step, histogram = values["gradient_log2/" + name][k]
                self.assertEqual(step, line["step"])
                first, shares = line["exponents"]["first"][l], line["exponents"]["shares_ppm"][l]
                self.assertEqual(histogram[1], first)
                self.assertEqual(histogram[6], [first + b + 1 for b in range(len(shares))])
                self.assertEqual(histogram[2], histogram[6][-1])
                self.assertEqual([round(1e6 * count) for count in histogram[7]], shares)
                self.close(histogram[3], sum(histogram[7]))
                self.close(histogram[4], sum(c * (limit - 0.5) for limit, c in zip(histogram[6], histogram[7])))
                self.close(histogram[5], sum(c * (limit - 0.5) ** 2 for limit, c in zip(histogram[6], histogram[7])))

    def test_a_resumed_run_takes_back_what_it_repeats(self):
        train(self.out, *RUN)
        train(self.out, "--resume", "--steps", "12")  # its folder says that events are wanted
        first, second = self.files()
        _, values, restarts = decode(second)
        self.assertEqual(restarts, [10])
        self.assertEqual([step for step, _ in values["loss/train"]], [10, 11, 12])
        self.assertNotEqual(first, second)

    def test_what_tensorboard_reads_is_held_against_the_log(self):
        train(self.out, *check_tensorboard.RUN)
        (path,) = self.files()
        _, values, _ = decode(path)
        histograms = [tag for tag, points in values.items() if isinstance(points[0][1], dict)]
        reader = types.SimpleNamespace(
            Tags=lambda: {"scalars": [tag for tag in values if tag not in histograms], "histograms": histograms},
            Scalars=lambda tag: [types.SimpleNamespace(step=step, value=value) for step, value in values[tag]],
            Histograms=lambda tag: [types.SimpleNamespace(step=step, histogram_value=types.SimpleNamespace(bucket=h[7], bucket_limit=h[6]))
                                    for step, h in values[tag]])
        with open(os.path.join(self.out, "log.jsonl"), encoding="utf-8") as file:
            log = [json.loads(line) for line in file]
        self.assertEqual(list(check_tensorboard.faults(log, reader)), [])
        step, loss = values["loss/train"][3]
        values["loss/train"][3] = (step, loss * 1.001)
        del values[histograms[0]][1]
        del values["loss/held_out"]
        wrong = list(check_tensorboard.faults(log, reader))
        self.assertEqual([line.split(":")[0] for line in wrong], ["loss/train", "loss/held_out", histograms[0]], wrong)

    def test_a_damaged_file_is_noticed(self):
        train(self.out, *RUN)
        (path,) = self.files()
        with open(path, "rb") as file:
            data = bytearray(file.read())
        data[len(data) // 2] ^= 1
        with self.assertRaises(AssertionError):
            list(records(bytes(data)))


if __name__ == "__main__":
    PROGRAM = sys.argv.pop(1)
    unittest.main()
