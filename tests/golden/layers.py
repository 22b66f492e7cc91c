"""Layers in NumPy, forward and backward from their formulas, in f64: what fully connected and image networks share."""
import numpy as np

EPSILON = 1e-5  # of batch norm


class Act:
    def __init__(self, name):
        self.name = name
        self.layer = "identity" if name == "linear" else name

    def forward(self, x):
        if self.name == "relu":
            return np.where(x > 0, x, 0.0)
        if self.name == "tanh":
            return np.tanh(x)
        if self.name == "sigmoid":
            return 1 / (1 + np.exp(-x))
        return x

    def slope(self, x):
        if self.name == "relu":
            return np.where(x > 0, 1.0, 0.0)
        if self.name == "tanh":
            return 1 / np.cosh(x) ** 2
        if self.name == "sigmoid":
            return np.exp(-x) / (1 + np.exp(-x)) ** 2
        return np.ones_like(x)


class Layers:
    """Keeps all values and gradients by gradflow's names. A layer's function adds its value and returns its name."""

    scale_and_shift = ("scale", "shift")  # the names of batch norm's parameters

    def __init__(self, tensors, act):
        self.act = act
        self.parameters = {n: t.astype(np.float64) for n, t in tensors.items() if "/" not in n and n not in ("x", "labels")}
        self.value, self.gradient, self.parameter_gradient = {}, {}, {}
        self.back = []  # what to run backward, last first

    def add(self, name, gradient):
        self.gradient[name] = self.gradient.get(name, 0) + gradient

    def linear(self, name, x_name, bias=True):
        x, w = self.value[x_name], self.parameters[name + ".weight"]
        self.value[name] = x @ w.T + (self.parameters[name + ".bias"] if bias else 0)

        def backward():
            dy = self.gradient[name]
            self.parameter_gradient[name + ".weight"] = dy.T @ x
            if bias:
                self.parameter_gradient[name + ".bias"] = dy.sum(0)
            self.add(x_name, dy @ w)
        self.back.append(backward)
        return name

    def activation(self, name, x_name):
        x = self.value[x_name]
        self.value[name] = self.act.forward(x)
        self.back.append(lambda: self.add(x_name, self.act.slope(x) * self.gradient[name]))
        return name

    def batch_norm(self, name, x_name):
        """Over all axes but the last: the batch, of images their pixels too."""
        x = self.value[x_name]
        over = tuple(range(x.ndim - 1))
        deviation = np.sqrt(x.var(over) + EPSILON)
        normal = (x - x.mean(over)) / deviation
        scale, shift = (f"{name}.{p}" for p in self.scale_and_shift)
        self.value[name] = normal * self.parameters[scale] + self.parameters[shift]

        def backward():
            dy = self.gradient[name]
            self.parameter_gradient[scale] = (dy * normal).sum(over)
            self.parameter_gradient[shift] = dy.sum(over)
            dn = dy * self.parameters[scale]
            self.add(x_name, (dn - dn.mean(over) - normal * (dn * normal).mean(over)) / deviation)
        self.back.append(backward)
        return name

    def sum(self, name, skip, branch, scale):
        self.value[name] = self.value[skip] + scale * self.value[branch]

        def backward():
            self.add(skip, self.gradient[name])
            self.add(branch, scale * self.gradient[name])
        self.back.append(backward)
        return name

    def run(self, x, labels):
        """Mean cross entropy and accuracy; all gradients. logits() is the network."""
        self.value["x"] = x
        logits_name = self.logits()
        logits = self.value[logits_name]
        rows = np.arange(len(labels))
        exponential = np.exp(logits - logits.max(1, keepdims=True))
        probability = exponential / exponential.sum(1, keepdims=True)
        onehot = np.zeros_like(probability)
        onehot[rows, labels] = 1
        self.gradient[logits_name] = (probability - onehot) / len(labels)
        for step in reversed(self.back):
            step()
        return -np.log(probability[rows, labels]).mean(), (logits.argmax(1) == labels).mean()
