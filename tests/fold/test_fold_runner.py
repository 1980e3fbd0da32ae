"""The runner copies, compares, names the guilty pass, and says in one sentence what it cannot fold."""

from __future__ import annotations

import copy
import re

import numpy as np
import pytest
import torch
from torch import nn

from ghostdeploy.deploy.fold.fold import fold
from ghostdeploy.deploy.fold.passes import FOLDS, default_passes
from ghostdeploy.deploy.fold.passes.base import PassResult
from ghostdeploy.deploy.fold.passes.fold_batch_norm import FoldBatchNorm
from ghostdeploy.deploy.fold.passes.graph import prune
from ghostdeploy.errors import CheckpointError, GateFailed
from ghostdeploy.models import create_model
from tests.folding import count_ops, folded, image, randomize


def small():
    torch.manual_seed(0)
    return randomize(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5)))


class Nudge:
    """Changes the first weight by a factor."""

    name = "Nudge"

    def __init__(self, factor):
        self.factor = factor

    def run(self, module):
        with torch.no_grad():
            next(module.parameters()).mul_(self.factor)
        return PassResult(module, 1)


@pytest.mark.parametrize("factor", [1 + 1e-7, float("nan"), float("inf")])
def test_a_pass_that_changes_the_output_is_named(factor):
    with pytest.raises(GateFailed, match="fold pass Nudge changed the output by"):
        fold(small(), image(1, 3, 8, 8), passes=[*default_passes(), Nudge(factor)])


def test_an_error_behind_a_relu_that_is_off_is_caught():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    with torch.no_grad():
        module[0].bias.fill_(-100.0)

    with pytest.raises(GateFailed, match=r"fold pass Nudge changed the output by .* at conv2d"):
        fold(module, image(1, 3, 8, 8), passes=[Nudge(1 + 1e-6)])


def test_a_wrong_batch_norm_fold_behind_a_relu_that_is_off_is_caught():
    class Wrong(FoldBatchNorm):
        name = "Wrong"

        def run(self, module):
            found = super().run(module)
            return Nudge(1 + 1e-6).run(prune(found.module))

    module = small()
    module[1].bias.data.fill_(-100.0)
    fold(module, image(1, 3, 8, 8))
    with pytest.raises(GateFailed, match=r"fold pass Wrong changed the output by .* at conv2d"):
        fold(module, image(1, 3, 8, 8), passes=[Wrong()])


def test_round_off_in_a_chaotic_network_does_not_fail_an_exact_pass():
    # Gates fed with values in the thousands amplify the last digit of a sum to the fifth digit of the logits.
    module = randomize(create_model("ghostnetv3_050"))
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.Conv2d):
                part.weight.mul_(1.3)

    graph, certificate = fold(module, image(1, 3, 65, 65))

    with torch.no_grad():
        outputs = [net.double()(image(1, 3, 65, 65).double()) for net in (module, graph)]
    assert float((outputs[0] - outputs[1]).abs().max() / outputs[0].abs().max()) > 1e-9
    assert certificate.max_relative_error <= 1e-9


def test_a_pass_that_changes_the_last_digits_is_certified():
    _, certificate = fold(small(), image(1, 3, 8, 8), passes=[Nudge(1 + 1e-12)])
    assert 0 < certificate.max_relative_error < 1e-11
    assert [(record.name, record.sites) for record in certificate.passes] == [("Nudge", 1)]


def test_every_pass_is_heard_and_recorded_in_order():
    heard = []
    _, certificate = fold(small(), image(1, 3, 8, 8), on_pass=heard.append)
    assert tuple(heard) == certificate.passes
    assert [record.name for record in heard] == [step.name for step in default_passes()]
    assert [record.sites for record in heard] == [1, 0, 1, *[0] * (len(FOLDS) - 3)]


def test_without_passes_the_graph_is_the_module():
    module = small()
    graph, certificate = fold(module, image(1, 3, 8, 8), passes=[])
    assert certificate.passes == ()
    assert certificate.max_relative_error == 0
    assert torch.equal(graph(image(1, 3, 8, 8)), module(image(1, 3, 8, 8)))


def test_the_module_is_not_touched_even_in_training_mode():
    module = small().train()
    before = copy.deepcopy(module.state_dict())
    graph, _ = fold(module, image(1, 3, 8, 8))
    assert module.training
    assert module[0].weight.requires_grad
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    graph.eval()
    assert torch.allclose(graph(image(1, 3, 8, 8)), module.eval()(image(1, 3, 8, 8)), atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_weights_return_to_the_precision_of_the_module(dtype):
    graph, _ = fold(small().to(dtype), image(1, 3, 8, 8).to(dtype))
    assert {tensor.dtype for tensor in graph.parameters()} == {dtype}
    assert graph(image(1, 3, 8, 8).to(dtype)).dtype == dtype


def test_a_module_that_casts_to_float32_halfway_is_still_proven_in_float64():
    class Casting(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

        def forward(self, x):
            return self.norm(self.conv(x).float()).to(torch.float32) + torch.ones(1, dtype=torch.float32)

    graph, certificate = fold(randomize(Casting()), image(1, 3, 8, 8))
    assert certificate.max_relative_error < 1e-12
    assert "to" not in count_ops(graph)
    assert graph(image(1, 3, 8, 8)).dtype == torch.float32


def test_arrays_and_tuples_are_examples_too():
    class Two(nn.Module):
        def forward(self, a, b):
            return a.relu() + b, a

    graph, _ = fold(Two(), (np.ones((1, 3, 4, 4), np.float32), image(1, 3, 4, 4)))
    assert torch.equal(graph(image(1, 3, 4, 4), image(1, 3, 4, 4))[1], image(1, 3, 4, 4))
    fold(small(), np.asfortranarray(image(1, 3, 8, 8).numpy()))


def test_a_free_batch_takes_any_batch():
    module = small()
    graph, _ = fold(module, image(1, 3, 8, 8), dynamic_batch=True)
    for count in (1, 2, 5):
        assert torch.allclose(graph(image(count, 3, 8, 8)), module(image(count, 3, 8, 8)), atol=1e-6)


class ByValues(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.kind = kind

    def forward(self, x):
        if self.kind == "if":
            return x if x.sum() > 0 else -x
        if self.kind == "loop":
            return sum(x for _ in range(int(x.abs().sum())))
        if self.kind == "number":
            return x * float(x.max())
        return x + torch.from_numpy(x.numpy())


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("if", ("control flow or shapes depend on tensor values", "return x if x.sum() > 0 else -x")),
        ("loop", ("control flow or shapes depend on tensor values", "range(int(x.abs().sum()))")),
        ("number", ("control flow or shapes depend on tensor values", "return x * float(x.max())")),
        ("numpy", (".numpy() is not supported", "torch.from_numpy(x.numpy())")),
    ],
)
def test_what_cannot_be_captured_is_one_sentence_with_its_place_and_cause(kind, words):
    network = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Sequential(ByValues(kind)))

    with pytest.raises(CheckpointError, match=r"torch\.export cannot capture Sequential: ") as found:
        fold(network, image(1, 3, 8, 8))

    assert "in 1.0 (test_fold_runner.py, line " in found.value.message
    for word in words:
        assert word in found.value.message
    assert not re.search(r"\n|  |\bz?u[f]?0\b|Eq\(", found.value.message)
    assert found.value.hint
    assert found.value.__cause__ is not None


def test_a_module_that_fails_on_the_example_is_a_checkpoint_error():
    with pytest.raises(CheckpointError, match="cannot capture Sequential"):
        fold(small(), image(1, 5, 8, 8))


def test_nan_on_the_example_is_a_checkpoint_error():
    module = small()
    module[0].weight.data[0, 0, 0, 0] = float("nan")
    with pytest.raises(CheckpointError, match="NaN or infinity"):
        fold(module, image(1, 3, 8, 8))


def test_operations_are_counted_by_name():
    graph, _ = fold(small(), image(1, 3, 8, 8))
    assert count_ops(graph) == {"conv2d": 1, "relu": 1}


def test_attention_with_shapes_from_the_batch_folds_with_a_free_batch():
    class Shuffle(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)

        def forward(self, x):
            n, c, h, w = x.shape
            y = self.norm(self.conv(x)).view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
            return y.view(n, c, h, w).expand(n, c, h, w).flatten(1)

    graph, _ = folded(randomize(Shuffle()), image(2, 8, 4, 4), dynamic_batch=True)
    assert graph(image(3, 8, 4, 4).double()).shape == (3, 128)
    assert "expand" not in count_ops(graph)


def test_an_expansion_to_the_batch_stays_though_the_example_is_one_image():
    class Expand(nn.Module):
        def __init__(self):
            super().__init__()
            self.token = nn.Parameter(torch.ones(1, 3, 8, 8))

        def forward(self, x):
            return torch.cat([x, self.token.sigmoid().expand(x.shape[0], -1, -1, -1)], 1)

    graph, _ = fold(Expand(), image(1, 3, 8, 8), dynamic_batch=True)
    assert graph(image(3, 3, 8, 8)).shape == (3, 6, 8, 8)


def test_new_weights_are_named_after_the_layers_they_come_from():
    graph, _ = fold(small(), image(1, 3, 8, 8))
    assert [name.lstrip("_") for name, _ in graph.named_parameters()] == ["0_weight", "0_bias"]
