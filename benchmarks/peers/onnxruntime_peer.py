"""ONNX Runtime as a worker (see serving.py): inference of the networks that PyTorch exports."""

from __future__ import annotations

import io
import os

import onnxruntime
import torch
from peers.torch_networks import NETWORKS
from peers.torch_peer import batch_of
from serving import Call, serve


def prepare(case: str, kind: str, variant: str) -> Call:
    if kind != "infer":
        raise ValueError(f"ONNX Runtime does not {kind}")
    torch.manual_seed(0)
    x, _ = batch_of(case)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(os.environ["OMP_NUM_THREADS"])
    session = onnxruntime.InferenceSession(exported(case, x), options, providers=["CPUExecutionProvider"])
    inputs = {session.get_inputs()[0].name: x.numpy()}
    return lambda: session.run(None, inputs)


def exported(case: str, x: torch.Tensor) -> bytes:
    """The network as an ONNX model."""
    torch.backends.mha.set_fastpath_enabled(False)  # one operator of PyTorch's own, which ONNX does not have
    model = io.BytesIO()
    torch.onnx.export(NETWORKS[case]().eval(), (x,), model, dynamo=False)
    return model.getvalue()


if __name__ == "__main__":
    serve(prepare)
