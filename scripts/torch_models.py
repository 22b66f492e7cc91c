"""gradflow's model families as PyTorch modules: the peers that scripts/compare_torch.py and scripts/bench_torch_step.py time.

Nothing here imports PyTorch; who calls brings it. Convolutional networks have torchvision's names, as gradflow's have, which lets
each take the other's weights; torchvision itself is not needed.
"""
import json
import struct


def mlp(torch, depth, width=256, classes=10):
    """Linear layers with ReLU between them."""
    layers = []
    for _ in range(depth - 1):
        layer = torch.nn.Linear(width, width)
        torch.nn.init.kaiming_normal_(layer.weight)
        layers += [layer, torch.nn.ReLU(inplace=True)]
    return torch.nn.Sequential(*layers, torch.nn.Linear(width, classes))


def cifar_resnet(torch, depth, classes=10):
    """He et al. 2015, section 4.2, with shortcut A: `resnet:depth=...`."""
    nn, functional = torch.nn, torch.nn.functional

    class Block(nn.Module):
        def __init__(self, before, after):
            super().__init__()
            self.stride = after // before if before != after else 1
            self.zeros = after - before
            self.conv1 = nn.Conv2d(before, after, 3, self.stride, 1, bias=False)
            self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
            self.bn1, self.bn2 = nn.BatchNorm2d(after), nn.BatchNorm2d(after)

        def forward(self, x):
            y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)), inplace=True)))
            if self.zeros:
                x = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, self.zeros))
            return functional.relu(y + x, inplace=True)

    class ResNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
            before = 16
            for stage, width in enumerate((16, 32, 64), 1):
                widths = [before] + [width] * ((depth - 2) // 6)
                setattr(self, f"layer{stage}", nn.Sequential(*[Block(a, b) for a, b in zip(widths, widths[1:])]))
                before = width
            self.fc = nn.Linear(64, classes)

        def forward(self, x):
            x = functional.relu(self.bn1(self.conv1(x)), inplace=True)
            return self.fc(self.layer3(self.layer2(self.layer1(x))).mean((2, 3)))

    return ResNet()


BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


def imagenet_resnet(torch, depth, classes=1000):
    """resnet18 to resnet152; stride 2 in a bottleneck's 3x3 convolution, as torchvision has it."""
    nn = torch.nn
    expansion = 4 if depth >= 50 else 1

    class Block(nn.Module):
        def __init__(self, before, inner, stride):
            super().__init__()
            after = expansion * inner
            # (inputs, outputs, size, stride) of the branch's convolutions
            convolutions = ([(before, inner, 1, 1), (inner, inner, 3, stride), (inner, after, 1, 1)] if expansion > 1 else
                            [(before, inner, 3, stride), (inner, after, 3, 1)])
            self.count = len(convolutions)
            for k, (a, b, size, s) in enumerate(convolutions, 1):
                setattr(self, f"conv{k}", nn.Conv2d(a, b, size, s, size // 2, bias=False))
                setattr(self, f"bn{k}", nn.BatchNorm2d(b))
            self.relu = nn.ReLU(inplace=True)
            self.downsample = None
            if stride != 1 or before != after:
                self.downsample = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))

        def forward(self, x):
            y = x
            for k in range(1, self.count + 1):
                y = getattr(self, f"bn{k}")(getattr(self, f"conv{k}")(y))
                y = self.relu(y) if k < self.count else y
            return self.relu(y + (x if self.downsample is None else self.downsample(x)))

    class ResNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
            self.relu, self.maxpool = nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)
            before = 64
            for stage, blocks in enumerate(BLOCKS[depth], 1):
                inner = 32 << stage
                layers = []
                for index in range(blocks):
                    layers.append(Block(before, inner, 2 if index == 0 and stage > 1 else 1))
                    before = expansion * inner
                setattr(self, f"layer{stage}", nn.Sequential(*layers))
            self.fc = nn.Linear(before, classes)

        def forward(self, x):
            x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
            return self.fc(self.layer4(self.layer3(self.layer2(self.layer1(x)))).mean((2, 3)))

    return ResNet()


def training_peer(torch, name, batch, device="cpu"):
    """(module, input, number of classes) for mlp-DEPTH, resnet-DEPTH or imagenet-DEPTH; images lie channels-last."""
    kind, _, depth = name.partition("-")
    depth = int(depth)
    if kind == "mlp":
        return mlp(torch, depth).to(device), torch.randn(batch, 256, device=device), 10
    last = torch.channels_last
    if kind == "resnet":
        model, x, classes = cifar_resnet(torch, depth), torch.randn(batch, 3, 32, 32, device=device), 10
    else:
        # gradflow's data sets have at most 256 classes.
        model, x, classes = imagenet_resnet(torch, depth, 256), torch.randn(batch, 3, 224, 224, device=device), 256
    return model.to(device).to(memory_format=last), x.to(memory_format=last), classes


def decay_groups(parameters, decay):
    """Parameter groups of an optimizer with weight decay on matrices and convolutions alone, as in gradflow: none on biases and norms."""
    parameters = list(parameters)
    return [{"params": [p for p in parameters if p.dim() > 1], "weight_decay": decay},
            {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0}]


def read_tensors(torch, path):
    """name -> tensor of a safetensors file, in its order; bf16 widened to f32."""
    kinds = {"F32": torch.float32, "F64": torch.float64, "I32": torch.int32, "I64": torch.int64, "U8": torch.uint8, "BF16": torch.bfloat16}
    with open(path, "rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
        data = bytearray(file.read())
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        first, last = entry["data_offsets"]
        flat = torch.frombuffer(data[first:last], dtype=kinds[entry["dtype"]]) if last > first else torch.empty(0, dtype=kinds[entry["dtype"]])
        tensors[name] = (flat.float() if entry["dtype"] == "BF16" else flat).reshape(entry["shape"])
    return tensors


def channels_first(t):
    """gradflow's images and weights of convolutions as PyTorch counts them; they lie in memory as before, channels last."""
    return t.permute(0, 3, 1, 2) if t.dim() == 4 else t


def take_weights(torch, module, tensors):
    """Copies gradflow's parameters into the module: by name, or in their order where the module has numbers for names (an MLP).
    ValueError where they do not fit."""
    given = {name: channels_first(t) for name, t in tensors.items() if name not in ("x", "labels")}
    own = dict(module.named_parameters())
    names = list(own) if set(own) == set(given) else list(given)
    if len(names) != len(own):
        raise ValueError(f"{len(given)} parameters for a module of {len(own)}")
    with torch.no_grad():
        for (name, parameter), theirs in zip(own.items(), names):
            if parameter.shape != given[theirs].shape or name.split(".")[-1] != theirs.split(".")[-1]:
                raise ValueError(f"{theirs} {list(given[theirs].shape)} for {name} {list(parameter.shape)}")
            parameter.copy_(given[theirs])
