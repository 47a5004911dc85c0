"""PyTorch as a worker (see serving.py).

Variants, words with spaces between them: channels_last, fused (Adam as one kernel), compile (`torch.compile`).
"""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np
import torch
from eager_cases import layer_arguments, operands
from peers.torch_networks import NETWORKS, lenet
from serving import Call, peak_of_step, serve
from torch import nn
from workloads import find

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


def prepare(case: str, kind: str, variant: str) -> Call:
    if kind == "eager":
        return eager(case)
    torch.manual_seed(0)
    words = variant.split()
    model, (x, y) = NETWORKS[case](), batch_of(case)
    if "channels_last" in words:
        model, x = model.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)
    if kind == "train":
        return training_step(model, x, y, fused="fused" in words, compiled="compile" in words)
    return inference(model, x, compiled="compile" in words)


def batch_of(case: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The workload's batch, its channels first, contiguous."""
    workload = find(case)
    x, y = workload.batch()
    if workload.has_images:
        x = np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    return torch.from_numpy(x), torch.from_numpy(y).long()


def training_step(model: nn.Module, x: Any, y: Any, *, fused: bool = False, compiled: bool = False) -> Call:
    optimizer = torch.optim.Adam(model.parameters(), 1e-3, fused=fused or None)
    network = torch.compile(model) if compiled else model

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = nn.functional.cross_entropy(network(x), y)
        loss.backward()
        optimizer.step()
        return float(loss)

    return step


def inference(model: nn.Module, x: Any, *, compiled: bool = False) -> Call:
    model.eval()
    network = torch.compile(model) if compiled else model

    def infer() -> Any:
        with torch.inference_mode():
            return network(x)

    return infer


def eager(case: str) -> Call:
    """An operator or a layer, without recording for gradients."""
    if case.startswith("layer "):
        name, shape, arguments = layer_arguments(case)
        x = torch.from_numpy(operands(shape)[0])
        if name == "Conv2D":
            x = x.permute(0, 3, 1, 2)  # channels last in memory, PyTorch's best
        kinds: dict[str, Any] = {
            "Dense": lambda units: nn.Linear(x.shape[-1], units),
            "Conv2D": lambda filters, size: nn.Conv2d(x.shape[1], filters, size).to(memory_format=torch.channels_last),
            "LayerNormalization": lambda: nn.LayerNorm(x.shape[-1]),
        }
        layer = kinds[name](*arguments)
        return _without_gradients(lambda: layer(x))
    arrays = [torch.from_numpy(array) for array in operands(case)]
    functions: dict[str, Any] = {
        "add": torch.add,
        "exp": torch.exp,
        "sum": torch.sum,
        "matmul": torch.matmul,
        "softmax": lambda a: torch.softmax(a, -1),
        "transpose": lambda a: a.t().contiguous(),
    }
    function = functions[case.split()[0]]
    return _without_gradients(lambda: function(*arrays))


def _without_gradients(call: Call) -> Call:
    def run() -> Any:
        with torch.inference_mode():
            return call()

    return run


def peak_memory(case: str, variant: str = "") -> dict[str, Any]:
    model, (x, y) = NETWORKS[case](), batch_of(case)
    if "channels_last" in variant:
        model, x = model.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)
    return peak_of_step(training_step(model, x, y))


def lenet_example(epochs: int) -> dict[str, Any]:
    """The work of examples/mnist_lenet.py."""
    from highlevel.data.standard import mnist_subset

    torch.manual_seed(0)
    (x_train, y_train), (x_test, y_test) = mnist_subset()
    start = time.perf_counter()
    x, test = (torch.from_numpy(np.asarray(a, "float32")).reshape(-1, 1, 28, 28) / 255 for a in (x_train, x_test))
    y, test_labels = (torch.from_numpy(np.asarray(a)).long() for a in (y_train, y_test))
    model = lenet(relu=True, dropout=0.5)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    accuracy = 0.0
    for _ in range(epochs):
        model.train()
        for rows in torch.randperm(len(x)).split(64):
            optimizer.zero_grad(set_to_none=True)
            loss = nn.functional.cross_entropy(model(x[rows]), y[rows])
            loss.backward()
            optimizer.step()
        accuracy = _accuracy(model, test, test_labels)
    accuracy = _accuracy(model, test, test_labels)  # the example evaluates once more at its end
    return {"seconds": time.perf_counter() - start, "accuracy": accuracy}


def _accuracy(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    model.eval()
    with torch.inference_mode():
        right = [(model(a).argmax(-1) == b).sum() for a, b in zip(x.split(64), y.split(64), strict=True)]
    return float(sum(right)) / len(y)


if __name__ == "__main__":
    from peers.torch_demo import demo

    serve(prepare, peak_memory=peak_memory, lenet_example=lenet_example, demo=demo)
