"""The reference runtime: the same interface over a PyTorch module, which stays as it was."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from onnx import numpy_helper
from torch import nn

import ghostdeploy as gd
from ghostdeploy.bundle.folder import open_bundle
from ghostdeploy.errors import BundleError, InputError, UsageError
from ghostdeploy.runtimes.pytorch import PyTorchRuntime
from tests.bundles import CLASSES, Tiny, network

LABELS = [f"class {index}" for index in range(CLASSES)]


def twin(tiny):
    """Returns the tiny network with the same weights as a module."""
    weights = {w.name: torch.from_numpy(numpy_helper.to_array(w).copy()) for w in network(tiny).graph.initializer}
    first = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
    depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
    classifier = nn.Linear(8, CLASSES)
    with torch.no_grad():
        first.weight.copy_(weights["first"])
        depthwise.weight.copy_(weights["depthwise"])
        classifier.weight.copy_(weights["classifier"])
        classifier.bias.copy_(weights["bias"])
    return nn.Sequential(
        first, nn.ReLU(True), depthwise, nn.ReLU(True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(), classifier
    )


def wrap(tiny=None, module=None):
    tiny = tiny or Tiny(batch=None)
    return PyTorchRuntime(module or twin(tiny), tiny.inputs, tiny.outputs, tiny.preprocess, LABELS)


@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_it_agrees_with_every_engine(tiny_bundle, target):
    image = Tiny().images(1)[0]
    golden, expected = open_bundle(tiny_bundle(target)).golden()

    with wrap() as reference, gd.load(tiny_bundle(target), threads=1) as other:
        assert np.allclose(reference.infer(golden)["logits"], expected["logits"], rtol=1e-5, atol=1e-5)
        ours, theirs = reference.classify(image), other.classify(image)
        assert set(reference.info()) == set(other.info())

    assert [label for label, _ in ours] == [label for label, _ in theirs]
    assert [p for _, p in ours] == pytest.approx([p for _, p in theirs], abs=1e-5)


def test_the_module_is_copied_and_neither_changed_nor_switched():
    module = twin(Tiny()).train()
    before = {name: value.clone() for name, value in module.state_dict().items()}

    with wrap(module=module) as reference:
        batch = Tiny().example(3)["input"]
        first = reference(batch)
        with torch.no_grad():
            module[0].weight.zero_()
        assert np.array_equal(reference(batch), first)

    assert module.training
    assert module[-2].training
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items() if name != "0.weight")


def test_an_in_place_first_layer_does_not_write_into_the_input():
    module = nn.Sequential(nn.ReLU(True), twin(Tiny()))
    batch = Tiny().example(2)["input"]
    kept = batch.copy()

    with wrap(module=module) as reference:
        reference(batch)

    assert np.array_equal(batch, kept)


def test_a_static_batch_is_split_and_filled():
    batch = Tiny().example(7)["input"]

    with wrap(Tiny(batch=3)) as static, wrap() as dynamic:
        assert np.allclose(static(batch), dynamic(batch), rtol=1e-5, atol=1e-5)


def test_eight_threads_give_the_bits_of_one():
    batches = [Tiny().example(1 + seed % 4, seed=seed)["input"] for seed in range(8)]

    with wrap() as reference:
        expected = [reference(batch) for batch in batches]
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(reference, batches * 25))

    assert all(np.array_equal(one, expected[index % 8]) for index, one in enumerate(found))


def test_wrong_inputs_and_use_after_close_are_refused_as_by_any_runtime():
    reference = wrap()
    with pytest.raises(InputError, match="float64"):
        reference(np.zeros((1, 3, 16, 16)))
    reference.close()
    reference.close()

    with pytest.raises(UsageError, match="was closed"):
        reference(Tiny().example(1)["input"])


class Two(nn.Module):
    """Gives a dictionary."""

    def __init__(self):
        super().__init__()
        self.body = twin(Tiny())

    def forward(self, x):
        return {"logits": self.body(x), "doubled": 2 * self.body(x)}


def test_a_module_that_gives_more_than_promised_is_refused():
    with pytest.raises(BundleError, match="gives 2 outputs, expected 1"):
        wrap(module=Two())


def test_a_module_whose_output_has_another_shape_is_refused():
    with pytest.raises(BundleError, match="has outputs logits float32"):
        wrap(module=nn.Sequential(twin(Tiny()), nn.Linear(CLASSES, CLASSES + 1)))


def test_a_module_that_cannot_take_the_input_is_refused_with_the_reason():
    with pytest.raises(BundleError, match=r"torch refuses Linear: .*shapes"):
        wrap(module=nn.Linear(5, 3))
