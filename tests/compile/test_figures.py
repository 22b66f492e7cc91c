#!/usr/bin/env python3
"""scripts/kernel_figures.py must notice a table of kernels that is not the compiler's, and mend it."""
import pathlib
import sys
import types

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "scripts"))
import kernel_figures  # noqa: E402

TABLE = """Of (nvcc 13.0.1, sm_90).

| family | kernels | bytes | registers f32 | bf16 | shared |
|---|---|---|---|---|---|
| bias | `bias_<op>_forward_*` | 8 | 40 to 42 | 50 | 0 |
| plain | `<op>_forward_*` | 8 | 30 | – | 0 |
| sums | `{mean,variance}[_packs]_f32` | 4 | 20 to 24 | – | 64 to 128 |

| another | table |
"""


def kernel(name, registers, shared=0):
    return types.SimpleNamespace(name=name, registers=registers, shared=shared)


KERNELS = [kernel("bias_relu_forward_f32", 40), kernel("bias_tanh_forward_f32", 42),
           kernel("bias_tanh_forward_bf16", 50), kernel("relu_forward_f32", 30), kernel("tanh_forward_f32", 30),
           kernel("mean_f32", 20, 64), kernel("variance_packs_f32", 24, 128)]
FAILURES = []


def expect(what, text, kernels, wanted, nvcc="13.0.1", arch="90", noted=0):
    complaints, notes = kernel_figures.compare(text, kernels, nvcc, arch)
    if len(notes) != noted or len(complaints) != len(wanted) or \
            not all(part in complaint for part, complaint in zip(wanted, complaints)):
        FAILURES.append(f"{what}: {complaints} {notes}, wanted {wanted} and {noted} notes")


expect("right", TABLE, KERNELS, [])
expect("a figure", TABLE.replace("40 to 42", "40 to 41"), KERNELS, ["line 5, bias: 40 to 41 | 50 | 0; the compiler says 40"])
expect("a kernel changed", TABLE, KERNELS[:-1] + [kernel("variance_packs_f32", 24, 256)], ["64 to 256"])
expect("a kernel of no row", TABLE, KERNELS + [kernel("max_f32", 9)], ["max_f32 belongs to 0 rows"])
expect("a kernel of two rows", TABLE.replace("`{mean", "`relu_forward_*`, `{mean"), KERNELS,
       ["relu_forward_f32 belongs to 2 rows", "line 7, sums"])
expect("a row of no kernel", TABLE, KERNELS[:5], ["no kernel is named `{mean,variance}[_packs]_f32`", "line 7"])
expect("no table", "", KERNELS, ["no table"])
expect("another compiler", TABLE.replace("42", "41"), KERNELS, [], nvcc="12.4.0", noted=1)
expect("another architecture", TABLE.replace("42", "41"), KERNELS, [], arch="100", noted=1)
wrong = TABLE.replace("40 to 42", "").replace("13.0.1", "12.0").replace("64 to 128", "?")
if kernel_figures.refresh(wrong, KERNELS, "13.0.1", "90") != TABLE:
    FAILURES.append("not mended: " + kernel_figures.refresh(wrong, KERNELS, "13.0.1", "90"))
for failure in FAILURES:
    print("WRONG:", failure)
sys.exit(1 if FAILURES else 0)
