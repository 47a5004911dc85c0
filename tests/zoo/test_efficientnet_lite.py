"""EfficientNet-Lite0 with its real weights: parameters, photographs, and the logits of an implementation in PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import highlevel as hl
from highlevel.zoo.efficientnet_lite import STAGES, build_lite0, key_map, read_torch

F32 = "float32"


def checkpoint() -> Path:
    return hl.zoo.get("efficientnet_lite0").weights["imagenet"].locate()


def logits(model: hl.Model, x: np.ndarray) -> np.ndarray:
    """What the head computes before its softmax."""
    return model.features().predict(x, verbose=0) @ model.head.kernel.numpy() + model.head.bias.numpy()


# The same network in PyTorch, reading the checkpoint by itself --------------------------------------------------------
def torch_logits(path: Path, images: np.ndarray) -> np.ndarray:
    """TensorFlow's padding, batch normalization with ε = 1e-3, ReLU6, no activation after projections."""
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    state = torch.load(path, map_location="cpu", weights_only=True)

    def conv(x: Any, name: str, stride: int = 1, groups: int = 1) -> Any:
        kernel = state[f"{name}.weight"]
        size = kernel.shape[-1]
        pads = []
        for extent in (x.shape[3], x.shape[2]):  # width first
            total = max((-(-extent // stride) - 1) * stride + size - extent, 0)
            pads += [total // 2, total - total // 2]
        return functional.conv2d(functional.pad(x, pads), kernel, stride=stride, groups=groups)

    def norm(x: Any, name: str, activation: bool = True) -> Any:
        mean, var = state[f"{name}.running_mean"], state[f"{name}.running_var"]
        x = functional.batch_norm(x, mean, var, state[f"{name}.weight"], state[f"{name}.bias"], eps=1e-3)
        return functional.relu6(x) if activation else x

    with torch.no_grad():
        x = torch.tensor(images).permute(0, 3, 1, 2)
        x = norm(conv(x, "_conv_stem", 2), "_bn0")
        position, channels = 0, 32
        for repeats, _, first_stride, expand, filters in STAGES:
            for repeat in range(repeats):
                name, stride, shortcut = f"_blocks.{position}", first_stride if repeat == 0 else 1, x
                if expand != 1:
                    x = norm(conv(x, f"{name}._expand_conv"), f"{name}._bn0")
                x = norm(conv(x, f"{name}._depthwise_conv", stride, x.shape[1]), f"{name}._bn1")
                x = norm(conv(x, f"{name}._project_conv"), f"{name}._bn2", activation=False)
                if stride == 1 and channels == filters:
                    x = x + shortcut
                position, channels = position + 1, filters
        x = norm(conv(x, "_conv_head"), "_bn1").mean(dim=(2, 3))
        found: np.ndarray = functional.linear(x, state["_fc.weight"], state["_fc.bias"]).numpy()
        return found


def test_logits_equal_an_implementation_in_pytorch(lite0, photographs):
    x = lite0.preprocess(photographs)
    ours, theirs = logits(lite0, x), torch_logits(checkpoint(), x)
    assert np.abs(ours - theirs).max() < 1e-4
    assert np.abs(theirs).max() > 5, "and not because there is nothing to compare"


@pytest.mark.parametrize("size", [(96, 96), (65, 91)])
def test_logits_at_other_sizes_equal_pytorch(size, rng):
    """Even and odd sizes: padding is uneven where TensorFlow's is."""
    model = hl.zoo.create("efficientnet_lite0", weights="imagenet", input_size=size)
    x = rng.normal(size=(2, *size, 3)).astype(F32)
    assert np.abs(logits(model, x) - torch_logits(checkpoint(), x)).max() < 1e-4


# What it says --------------------------------------------------------------------------------------------------------
def test_photographs_are_recognised(lite0, photographs):
    scores = lite0.predict(lite0.preprocess(photographs), verbose=0)
    assert scores.argmax(1).tolist() == [985, 967]
    assert [lite0.class_names[i] for i in scores.argmax(1)] == ["daisy", "espresso"]
    assert scores[1, 967] >= 0.90
    np.testing.assert_allclose(scores.sum(1), 1.0, rtol=1e-5)


def test_parameters_are_those_of_the_checkpoint(lite0):
    """4,652,008 in the paper's way of counting; the moving averages of batch normalization come on top."""
    averages = [v for v in lite0.weights if v.name.startswith("moving_")]
    count = sum(v.size for v in averages)
    assert lite0.count_params() - count == 4_652_008
    assert sum(v.size for v in lite0.trainable_variables) == 4_652_008
    norms = sum(isinstance(layer, hl.layers.BatchNormalization) for layer in lite0.layers)
    assert len(averages) == 2 * norms and norms == 49
    arrays = read_torch(checkpoint())
    assert sum(array.size for array in arrays.values()) == lite0.count_params()
    assert lite0.origin == {"architecture": "efficientnet_lite0", "weights": "imagenet", "loaded": len(arrays)}


def test_names_in_the_checkpoint_are_paths_of_the_model(lite0):
    assert sorted(f"{lite0.name}/{path}" for path in key_map().values()) == sorted(v.path for v in lite0.weights)
    assert len(set(key_map().values())) == len(key_map())


# Shapes --------------------------------------------------------------------------------------------------------------
def test_the_layers_of_the_paper():
    model = build_lite0()
    sizes = {"stem_relu": (112, 32), "stage1_block1_project_bn": (112, 16), "stage2_block2_add": (56, 24),
             "stage3_block2_add": (28, 40), "stage4_block3_add": (14, 80), "stage5_block3_add": (14, 112),
             "stage6_block4_add": (7, 192), "stage7_block1_project_bn": (7, 320), "top_relu": (7, 1280)}  # fmt: skip
    for name, (size, channels) in sizes.items():
        assert model.features(name).output_shape == (None, size, size, channels)
    assert model.features().output_shape == (None, 1280)
    assert model.output_shape == (None, 1000)


def test_every_layer_with_weights_is_in_one_group(lite0):
    groups = lite0.layer_groups()
    assert len(groups) == 10
    assert [layer for group in groups for layer in group] == [layer for layer in lite0.layers if layer.weights]
    assert [group[0].name for group in groups][:3] == ["stem_conv", "stage1_block1_depthwise_conv",
                                                       "stage2_block1_expand_conv"]  # fmt: skip
    assert [layer.name for layer in groups[-1]] == ["classifier"]
