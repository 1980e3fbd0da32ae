"""The loss of the detector: boxes known on paper, a point for every box, crowds that count for nothing."""

from __future__ import annotations

import torch

from ghostdeploy.samples.scenes import gfl

WHERE = gfl.points((64, 96))
SCENE = torch.tensor([[[10.0, 12.0, 40.0, 50.0], [48.0, 8.0, 92.0, 60.0], [0.0, 0.0, 0.0, 0.0]]])


def answer(boxes, labels, num_classes=3):
    """Returns the output (1, P, C + 32) with a box at every point inside of it, and its class where it is asked for."""
    output = torch.full((1, len(WHERE.xy), num_classes + 32), -9.0)
    for box in boxes:
        reach = torch.cat([WHERE.xy - box[:2], box[2:] - WHERE.xy], 1) / WHERE.strides
        for point in torch.nonzero((reach > 0).all(1) & (reach < 6.9).all(1))[:, 0]:
            bins = (reach[point][:, None] - torch.arange(8)).abs()
            output[0, point, num_classes:] = torch.log((1 - bins).clamp(min=1e-6)).flatten()
    found = gfl.boxes_of(output[..., num_classes:], WHERE)
    answers = gfl.assign(output[..., :num_classes], found, boxes[None], torch.tensor([[0, 0]]), WHERE)
    for point in torch.nonzero(answers.taken[0])[:, 0]:
        output[0, point, labels[answers.box[0, point]]] = 9
    return output


def test_points_are_in_the_order_of_the_head():
    assert WHERE.xy[:2].tolist() == [[0, 0], [8, 0]]
    assert WHERE.xy[12].tolist() == [0, 8]
    assert WHERE.strides[:, 0].unique(return_counts=True)[1].tolist() == [96, 24, 6, 2]


def test_one_hot_bins_are_the_box():
    columns = torch.full((len(WHERE.xy), 4, 8), -50.0)
    for side, bin_ in enumerate((1, 2, 3, 4)):
        columns[:, side, bin_] = 50

    boxes = gfl.boxes_of(columns.flatten(1), WHERE)

    assert boxes[13].tolist() == [8 - 8, 8 - 16, 8 + 24, 8 + 32]
    assert boxes[-1].tolist() == [64 - 64, 0 - 128, 64 + 192, 0 + 256]


def test_a_right_answer_costs_almost_nothing_and_a_wrong_class_a_lot():
    labels = torch.tensor([[1, 2, -1]])
    right, wrong = answer(SCENE[0, :2], (1, 2)), answer(SCENE[0, :2], (2, 1))

    good, bad = (gfl.gfl_loss(output, SCENE, labels, WHERE, 3) for output in (right, wrong))

    assert good < 0.35  # the cross entropy of two bins is not zero between them
    assert bad > good + 1


def test_every_box_has_a_point_and_no_point_two():
    labels = torch.tensor([[1, 2, -1]])
    torch.manual_seed(0)
    output = torch.randn(1, len(WHERE.xy), 35)

    answers = gfl.assign(output[..., :3], gfl.boxes_of(output[..., 3:], WHERE), SCENE, labels, WHERE)

    assert set(answers.box[answers.taken].tolist()) == {0, 1}
    inside = (WHERE.xy > 0).all(1)
    assert not answers.taken[0, ~inside].any()
    assert answers.counts.all()


def test_points_in_a_crowd_are_not_judged():
    torch.manual_seed(0)
    output = torch.randn(1, len(WHERE.xy), 35)

    answers = gfl.assign(
        output[..., :3], gfl.boxes_of(output[..., 3:], WHERE), SCENE, torch.tensor([[1, -2, -1]]), WHERE
    )

    assert set(answers.box[answers.taken].tolist()) == {0}
    assert 0 < (~answers.counts).sum() < len(WHERE.xy)
    assert not answers.counts[0, 4 * 12 + 8]  # (64, 32)


def test_images_without_boxes_have_a_loss():
    output = torch.zeros(1, len(WHERE.xy), 35, requires_grad=True)

    gfl.gfl_loss(output, SCENE, torch.full((1, 3), -1), WHERE, 3).backward()

    assert output.grad[..., :3].abs().sum() > 0
