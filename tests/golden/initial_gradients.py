#!/usr/bin/env python3
"""Gradients of He et al.'s small networks at initialization, simulated in PyTorch (Debian package python3-torch): the reference
values of tests/layers/conv_gradient_test.cpp and docs/SCIENCE.md, section 4. Shares no line with gradflow.

    tests/golden/initial_gradients.py --batch 4 --seeds 64        without a norm, of the test; one or two minutes on one core
    tests/golden/initial_gradients.py --batch 16 --seeds 32       with it
    tests/golden/initial_gradients.py --batch 128 --seeds 16      all of the full run; about ten minutes
    tests/golden/initial_gradients.py --independent resnet:depth=110,norm=none
                                      the backward pass through other weights of the same law
    tests/golden/initial_gradients.py --mean-field                infinite width, without a norm

White-noise images of 32x32x3, random labels, He initialization, no biases, option A, batch norm without scale and shift. Of each
network, over seeds: mean and standard deviation of ln(growth), ln(|dz| first / last), ln(|dW| first / last), z being the output of a
convolution, growth (|dz| of the second convolution / the last one's)^(1 / (convolutions - 2)).
"""
import argparse
import math

import numpy as np

NETWORKS = [f"{kind}:depth={depth}{norm}" for norm in ("", ",norm=none") for kind in ("plain", "resnet") for depth in (20, 56, 110)] + [
    "plain:depth=56,act=tanh", "plain:depth=56,act=sigmoid"]


def simulate(torch, text, batch, seed, independent, dtype):
    F = torch.nn.functional
    kind, _, rest = text.partition(":")
    options = dict(part.split("=") for part in rest.split(","))
    blocks, act = (int(options["depth"]) - 2) // 6, getattr(torch, options.get("act", "relu"))
    source = torch.Generator().manual_seed(seed)
    weights, outputs = [], []

    class OtherWeightsBackward(torch.autograd.Function):
        @staticmethod
        def forward(context, x, weight, other, stride):
            context.save_for_backward(other)
            context.shape, context.stride = x.shape, stride
            return F.conv2d(x, weight, stride=stride, padding=1)

        @staticmethod
        def backward(context, g):
            (other,) = context.saved_tensors
            return torch.nn.grad.conv2d_input(context.shape, other, g, stride=context.stride, padding=1), None, None, None

    def random(*shape):
        return torch.randn(*shape, generator=source).to(dtype)

    def convolution(x, channels, stride=1):
        scale = math.sqrt(2 / (9 * x.shape[1]))
        weight = (scale * random(channels, x.shape[1], 3, 3)).requires_grad_()
        if independent:
            z = OtherWeightsBackward.apply(x, weight, scale * random(*weight.shape), stride)
        else:
            z = F.conv2d(x, weight, stride=stride, padding=1)
        z.retain_grad()
        weights.append(weight)
        outputs.append(z)
        return z

    def norm(z):
        return z if options.get("norm") == "none" else F.batch_norm(z, None, None, training=True)

    x, labels = random(batch, 3, 32, 32).requires_grad_(), torch.randint(0, 10, (batch,), generator=source)
    x = act(norm(convolution(x, 16)))
    for stage in range(3):
        for block in range(blocks):
            stride = 2 if stage > 0 and block == 0 else 1
            branch = norm(convolution(act(norm(convolution(x, 16 << stage, stride))), 16 << stage))
            if kind == "resnet":
                if stride == 2:
                    x = x[:, :, ::2, ::2]
                    x = torch.cat([x, torch.zeros_like(x)], 1)
                branch = branch + x
            x = act(branch)
    pooled = x.mean((2, 3))
    F.cross_entropy(pooled @ (math.sqrt(2 / 64) * random(64, 10)), labels).backward()
    ln = lambda t: math.log(t.grad.double().norm())
    dz = [ln(z) for z in outputs]
    dw = float("nan") if independent else ln(weights[0]) - ln(weights[-1])
    return (dz[1] - dz[-1]) / (len(dz) - 2), dz[0] - dz[-1], dw


def neighbors(a):
    """Sums over 3x3 windows of the last two axes, zero-padded."""
    p = np.pad(a, [(0, 0)] * (a.ndim - 2) + [(1, 1), (1, 1)])
    return sum(p[..., i:i + a.shape[-2], j:j + a.shape[-1]] for i in range(3) for j in range(3))


def spread(a):
    """The transpose of [::2, ::2]."""
    out = np.zeros(a.shape[:-2] + (2 * a.shape[-2], 2 * a.shape[-1]))
    out[..., ::2, ::2] = a
    return out


def mean_field_plain(blocks):
    """Expected |dz|^2 by layer from the last convolution to the first, infinite width, gradient independence: 1 less what padding takes."""
    energy, total = np.ones((8, 8)), []
    for layer in range(6 * blocks + 1):
        total.append(energy.sum())
        back = 6 * blocks - layer  # the convolution crossed next, from 1
        energy = neighbors(spread(energy) if back in (2 * blocks + 1, 4 * blocks + 1) else energy) / 9
    return total


def mean_field_resnet(blocks, chains=1000, seed=1):
    """The same of a residual network, whose units are Markov chains s <- relu(s) + N(0, .) at each place: [stem, ..., last block]
    expected |ds|^2 of the sums s (of the stem: z), and |dz|^2 of the second convolution. Units of one history (their channels were
    there from stage 1, or came with stage 2, 3) are kept together."""
    source = np.random.default_rng(seed)
    side, channels, share = 32, 16, [16.0]
    s = [np.sqrt(2 / 9 * neighbors(np.ones((side, side)))) * source.standard_normal((chains, side, side))]
    trace = [(s, share, 1)]
    for block in range(3 * blocks):
        x = [np.maximum(u, 0) for u in s]
        power = sum(w * (u ** 2).mean(0) for w, u in zip(share, x)) / channels
        inner = 2 / 9 * neighbors(power)  # variance of the branch's first convolution
        stride = 2 if block in (blocks, 2 * blocks) else 1
        if stride == 2:
            inner, x = inner[::2, ::2], [u[:, ::2, ::2] for u in x]
            x.append(np.zeros_like(x[0]))
            share, channels = share + [float(channels)], 2 * channels
        deviation = np.sqrt(2 / 9 * neighbors(inner / 2))
        s = [u + deviation * source.standard_normal(u.shape) for u in x]
        trace.append((s, share, stride))
    energy = [1.0 * (u > 0) for u in s]
    total, second = [], 0
    for block in range(3 * blocks, 0, -1):
        _, share, stride = trace[block]
        summed = sum(w * e.mean(0) for w, e in zip(share, energy))
        total.append(summed.sum())
        inner = neighbors(summed) / 9  # half of 2/9: the activation between the two
        second = inner.sum()
        if stride == 2:
            inner, energy = spread(inner), [spread(e) for e in energy[:-1]]
        below, share, _ = trace[block - 1]
        energy = [(u > 0) * (e + 2 / 9 * neighbors(inner) / sum(share)) for u, e in zip(below, energy)]
    total.append(sum(w * e.mean(0).sum() for w, e in zip(share, energy)))
    return total, second


def print_mean_field():
    for depth in (20, 56, 110):
        blocks = (depth - 2) // 6
        total = mean_field_plain(blocks)
        growth = (total[-2] / total[0]) ** (0.5 / (len(total) - 2))
        print(f"plain-{depth}: growth {growth:.4f}, |dz| first / last {math.sqrt(total[-1] / total[0]):.4g}")
        total, second = mean_field_resnet(blocks)
        growth = (second / total[0]) ** (0.5 / (6 * blocks - 1))
        factors = np.sqrt(np.divide(total[1:], total[:-1]))[::-1]
        print(f"ResNet-{depth}: growth {growth:.4f}, |dz| first / last {math.sqrt(total[-1] / total[0]):.4g}; a block, from the stem:",
              " ".join(f"{f:.3f}" for f in factors))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=NETWORKS)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=16)
    parser.add_argument("--f64", action="store_true", help="instead of f32")
    parser.add_argument("--independent", action="store_true")
    parser.add_argument("--mean-field", action="store_true")
    a = parser.parse_args()
    if a.mean_field:
        print_mean_field()
        return
    import torch
    for text in a.networks:
        rows = np.array([simulate(torch, text, a.batch, seed, a.independent, torch.float64 if a.f64 else torch.float32) for seed in range(a.seeds)])
        mean, deviation = rows.mean(0), rows.std(0, ddof=1)
        print(f"{{\"{text}\", {{{math.exp(mean[0]):.4f}, {deviation[0]:.4f}}}, {{{math.exp(mean[1]):.4g}, {deviation[1]:.2f}}}, "
              f"{{{math.exp(mean[2]):.4g}, {deviation[2]:.2f}}}}},   rms |dz| {math.sqrt(np.exp(2 * rows[:, 1]).mean()):.4g}", flush=True)


if __name__ == "__main__":
    main()
