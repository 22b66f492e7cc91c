"""Networks for images [batch, height, width, channels] in NumPy: He et al.'s for small images and those for ImageNet."""
import numpy as np

from layers import Act, Layers

IMAGENET = {"resnet18": (False, (2, 2, 2, 2)), "resnet34": (False, (3, 4, 6, 3)), "resnet50": (True, (3, 4, 6, 3))}


def taps(images, kernel, stride, height, width):
    """Of every tap of the window its place in padded images, for all outputs at once."""
    for i in range(kernel):
        for j in range(kernel):
            yield i, j, images[:, i:i + stride * (height - 1) + 1:stride, j:j + stride * (width - 1) + 1:stride]


def padded(x, padding, fill):
    return np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)), constant_values=fill)


class ImageNetwork(Layers):
    scale_and_shift = ("weight", "bias")  # torchvision's names

    def __init__(self, spec, tensors):
        self.kind, _, rest = spec.partition(":")
        options = dict(part.split("=") for part in rest.split(",") if part)
        super().__init__(tensors, Act(options.get("act", "relu")))
        self.norm = options.get("norm", "bn") == "bn"
        self.residual = self.kind != "plain"
        self.scale = float(options.get("branch_scale", "1"))
        if self.kind in IMAGENET:
            self.bottleneck, self.blocks = IMAGENET[self.kind]
            self.pre, self.shortcuts = False, "B"
        else:
            self.bottleneck = options.get("block", "basic") == "bottleneck"
            self.blocks = ((int(options["depth"]) - 2) // (9 if self.bottleneck else 6),) * 3
            self.pre, self.shortcuts = options.get("version", "v1") == "v2", options.get("shortcut", "A")

    def convolution(self, name, x_name, stride):
        w = self.parameters[name + ".weight"]  # [outputs, kernel, kernel, inputs]
        kernel = w.shape[1]
        padding = kernel // 2
        shape = self.value[x_name].shape
        x = padded(self.value[x_name], padding, 0)
        height, width = ((side - kernel) // stride + 1 for side in x.shape[1:3])
        y = sum(part @ w[:, i, j].T for i, j, part in taps(x, kernel, stride, height, width))
        bias = not self.norm
        self.value[name] = y + self.parameters[name + ".bias"] if bias else y

        def backward():
            dy = self.gradient[name]
            flat = dy.reshape(-1, dy.shape[3])
            dw = np.empty_like(w)
            for i, j, part in taps(x, kernel, stride, height, width):
                dw[:, i, j] = flat.T @ part.reshape(-1, part.shape[3])
            self.parameter_gradient[name + ".weight"] = dw
            if bias:
                self.parameter_gradient[name + ".bias"] = flat.sum(0)
            dx = np.zeros_like(x)
            for i, j, part in taps(dx, kernel, stride, height, width):
                part += dy @ w[:, i, j]
            self.add(x_name, dx[:, padding:padding + shape[1], padding:padding + shape[2]])
        self.back.append(backward)
        return name

    def max_pool(self, name, x_name):
        """3x3 with stride 2 and padding 1. Of equal elements the first in the order of rows wins, as in PyTorch."""
        shape = self.value[x_name].shape
        x = padded(self.value[x_name], 1, -np.inf)
        height, width = ((side - 3) // 2 + 1 for side in x.shape[1:3])
        window = np.stack([part for _, _, part in taps(x, 3, 2, height, width)])
        winner = window.argmax(0)
        self.value[name] = window.max(0)

        def backward():
            dx = np.zeros_like(x)
            for i, j, part in taps(dx, 3, 2, height, width):
                part += np.where(winner == 3 * i + j, self.gradient[name], 0)
            self.add(x_name, dx[:, 1:1 + shape[1], 1:1 + shape[2]])
        self.back.append(backward)
        return name

    def global_average(self, name, x_name):
        x = self.value[x_name]
        self.value[name] = x.mean((1, 2))
        pixels = x.shape[1] * x.shape[2]
        self.back.append(lambda: self.add(x_name, np.broadcast_to(self.gradient[name][:, None, None] / pixels, x.shape)))
        return name

    def zero_padded(self, name, x_name, channels, stride):
        """Shortcut A: every stride-th pixel, zeros for the channels that x has not."""
        x = self.value[x_name]
        kept = x[:, ::stride, ::stride]
        self.value[name] = np.concatenate([kept, np.zeros(kept.shape[:3] + (channels - x.shape[3],))], 3)

        def backward():
            dx = np.zeros_like(x)
            dx[:, ::stride, ::stride] = self.gradient[name][..., :x.shape[3]]
            self.add(x_name, dx)
        self.back.append(backward)
        return name

    def normalized(self, name, x_name):
        return self.batch_norm(name, x_name) if self.norm else x_name

    def unit(self, block, k, x_name):
        return self.activation(f"{block}{self.act.layer}{k}", self.normalized(f"{block}bn{k}", x_name))

    def block(self, name, x_name, out, stride):
        branch = self.unit(name, 1, x_name) if self.pre else x_name
        changes = stride != 1 or self.value[x_name].shape[3] != out
        skip = x_name
        if self.residual and (self.shortcuts == "C" or (self.shortcuts == "B" and changes)):
            # He et al. 2016: a projection in front of a pre-activation block reads what its first convolution reads.
            skip = self.convolution(name + "downsample.0", branch, stride)
            skip = skip if self.pre else self.normalized(name + "downsample.1", skip)
        elif self.residual and changes:
            skip = self.zero_padded(name + "shortcut", x_name, out, stride)
        last, strided = (3, 2) if self.bottleneck else (2, 1)
        for k in range(1, last + 1):
            if self.pre and k > 1:
                branch = self.unit(name, k, branch)
            branch = self.convolution(f"{name}conv{k}", branch, stride if k == strided else 1)
            if not self.pre and k < last:
                branch = self.unit(name, k, branch)
        if not self.pre:
            branch = self.normalized(f"{name}bn{last}", branch)
        y = self.sum(name + "add", skip, branch, self.scale) if self.residual else branch
        return y if self.pre else self.activation(f"{name}{self.act.layer}{last}", y)

    def logits(self):
        imagenet = self.kind in IMAGENET
        z = self.convolution("conv1", "x", 2 if imagenet else 1)
        if not self.pre:
            z = self.activation(self.act.layer, self.normalized("bn1", z))
        if imagenet:
            z = self.max_pool("maxpool", z)
        width = 64 if imagenet else 16
        for stage, blocks in enumerate(self.blocks):
            for b in range(blocks):
                out = (width << stage) * (4 if self.bottleneck else 1)
                z = self.block(f"layer{stage + 1}.{b}.", z, out, 2 if stage and not b else 1)
        if self.pre:
            z = self.unit("", "", z)
        return self.linear("fc", self.global_average("avgpool", z))
