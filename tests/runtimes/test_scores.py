"""What a classifier's first output holds: logits, which need a softmax, or probabilities, which need none."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import ghostdeploy as gd
from ghostdeploy import targets
from ghostdeploy.errors import BundleError
from ghostdeploy.preprocess import prepare
from ghostdeploy.runtimes.scores import kind_of
from ghostdeploy.samples import mobile
from ghostdeploy.tasks.ranking import rank
from tests.commands import run
from tests.conftest import require

EVERYWHERE = [row.name for row in targets.TARGETS.values() if row.device is None]


class Ends(nn.Module):
    def __init__(self, end, columns):
        super().__init__()
        self.conv, self.head, self.end = nn.Conv2d(3, 8, 3, 2, 1), nn.Linear(8, columns), end

    def forward(self, x):
        return self.end(5 * self.head(torch.relu(self.conv(x)).mean((2, 3))))


def exported(end, target, out, columns=4):
    torch.manual_seed(0)
    return gd.export(Ends(end, columns).eval(), target=target, name="ends", preprocess={"size": 32}, out=out)


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "one.png"
    Image.fromarray(np.random.default_rng(3).integers(0, 256, (40, 40, 3), np.uint8)).save(path)
    return path


@pytest.mark.parametrize("target", EVERYWHERE)
def test_probabilities_are_shown_as_the_network_gives_them(target, image, tmp_path, capsys):
    require(target, execution=True)
    bundle = exported(nn.Softmax(1), target, tmp_path)

    with gd.load(bundle.path) as runtime:
        given = runtime(prepare([image], bundle.manifest.preprocess))[0]
        found = runtime.classify(image, k=4)
    answer = run(capsys, "run", bundle.path, image)

    assert bundle.manifest.scores == "probabilities"
    assert [value for _, value in found] == sorted(map(float, given), reverse=True)
    assert f"{found[0][1]:.1%}" in answer.out


def test_logits_get_their_softmax(image, tmp_path):
    bundle = exported(nn.Identity(), "onnx", tmp_path)

    with gd.load(bundle.path) as runtime:
        given = runtime(prepare([image], bundle.manifest.preprocess))[0].astype(np.float64)
        best, probability = runtime.classify(image, k=1)[0]

    assert bundle.manifest.scores == "logits"
    assert best == str(given.argmax())
    assert probability == pytest.approx(np.exp(given.max()) / np.exp(given).sum(), rel=1e-12)


def test_a_single_number_ranks_no_classes(image, tmp_path, capsys):
    bundle = exported(nn.Sigmoid(), "onnx", tmp_path, columns=1)

    answer = run(capsys, "run", bundle.path, image)

    assert answer.code == 3
    assert "gives one number per image, so there are no classes to rank" in answer.err


@pytest.mark.parametrize(("end", "words"), [(nn.Identity(), "logits: "), (nn.Softmax(1), "probabilities: ")])
def test_the_contract_for_phones_says_which(end, words, tmp_path, capsys):
    bundle = exported(end, "onnx", tmp_path)

    assert mobile.main([str(bundle.path), "--kotlin"]) == 0
    assert words in next(line for line in capsys.readouterr().out.splitlines() if "OUTPUT_NAME" in line)


@pytest.mark.parametrize(
    ("scores", "kind"),
    [
        ([[0.25, 0.75], [1, 0]], "probabilities"),
        ([[0.2505, 0.75]], "probabilities"),
        ([[0.25, 0.75], [0.2, 0.7]], "logits"),
        ([[-0.25, 1.25]], "logits"),
        ([[1], [1]], "logits"),
        ([[[0.5, 0.5]]], "logits"),
    ],
)
def test_rows_of_shares_that_sum_to_one_are_probabilities(scores, kind):
    assert kind_of(np.array(scores, np.float32)) == kind


def test_whole_numbers_are_no_probabilities():
    assert kind_of(np.eye(3, dtype=np.int64)) == "logits"


def test_what_has_no_finite_number_per_label_is_refused():
    with pytest.raises(BundleError, match="gave 2 probabilities, expected 3, one per label"):
        rank(np.ones(2), ["a", "b", "c"], 1, where="it", scores="probabilities")
    with pytest.raises(BundleError, match="NaN or infinite probabilities"):
        rank(np.array([np.nan, 1]), ["a", "b"], 1, where="it", scores="probabilities")
