"""Networks as strangers write them: in-place layers, odd sizes, views and permutes, fused heads, none of our blocks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import ghostdeploy as gd
from ghostdeploy import targets
from tests.commands import run
from tests.conftest import require
from tests.further import further

CLASSES = 4
SIZE = (88, 56)
EVERY = [row.name for row in targets.TARGETS.values() if row.device is None]


def conv(a, b, stride=1, groups=1):
    return nn.Sequential(
        nn.Conv2d(a, b, 3, stride, 1, groups=groups, bias=False), nn.BatchNorm2d(b), nn.SiLU(inplace=True)
    )


class Fused(nn.Module):
    """A head as YOLOv8 exports it: (N, 4 + classes, points), centre and size in pixels beside probabilities."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(conv(3, 16, 2), conv(16, 24, 2))
        self.down = nn.ModuleList([conv(24, 32, 2), conv(32, 48, 2)])
        self.box = nn.ModuleList([nn.Sequential(conv(c, 16), nn.Conv2d(16, 32, 1)) for c in (32, 48)])
        self.cls = nn.ModuleList([nn.Sequential(conv(c, 16), nn.Conv2d(16, CLASSES, 1)) for c in (32, 48)])
        self.register_buffer("bins", torch.arange(8.0).view(1, 1, 8, 1))
        place, step = [], []
        for stride in (8, 16):
            h, w = (-(-side // stride) for side in SIZE)
            y, x = torch.meshgrid(torch.arange(h) + 0.5, torch.arange(w) + 0.5, indexing="ij")
            place.append(torch.stack([x, y]).view(2, -1))
            step.append(torch.full((1, h * w), float(stride)))
        self.register_buffer("place", torch.cat(place, 1)[None])
        self.register_buffer("step", torch.cat(step, 1)[None])

    def forward(self, x):
        x, parts = self.stem(x), []
        for down, box, cls in zip(self.down, self.box, self.cls, strict=True):
            x = down(x)
            parts.append(torch.cat([box(x), cls(x)], 1).flatten(2))
        box, cls = torch.cat(parts, 2).split([32, CLASSES], 1)
        n, _, a = box.shape
        far = (box.view(n, 4, 8, a).softmax(2) * self.bins).sum(2)
        low, high = self.place - far[:, :2], self.place + far[:, 2:]
        boxes = torch.cat([(low + high) / 2, high - low], 1) * self.step
        return torch.cat([boxes, cls.sigmoid()], 1)


class Ssd(nn.Module):
    """Offsets and logits of two maps with priors of their own."""

    def __init__(self):
        super().__init__()
        self.body = nn.ModuleList([nn.Sequential(conv(3, 16, 2), conv(16, 32, 2), conv(32, 32, 2)), conv(32, 48, 2)])
        self.box = nn.ModuleList([nn.Conv2d(c, 2 * 4, 3, padding=1) for c in (32, 48)])
        self.cls = nn.ModuleList([nn.Conv2d(c, 2 * (CLASSES + 1), 3, padding=1) for c in (32, 48)])

    def forward(self, x):
        boxes, scores = [], []
        for body, box, cls in zip(self.body, self.box, self.cls, strict=True):
            x = body(x)
            boxes.append(box(x).permute(0, 2, 3, 1).reshape(x.shape[0], -1, 4))
            scores.append(cls(x).permute(0, 2, 3, 1).reshape(x.shape[0], -1, CLASSES + 1))
        return {"bbox_regression": torch.cat(boxes, 1), "cls_logits": torch.cat(scores, 1)}


def priors():
    found = []
    for stride, side in ((8, 0.2), (16, 0.4)):
        h, w = (-(-length // stride) for length in SIZE)
        for y in range(h):
            for x in range(w):
                found += [((x + 0.5) / w, (y + 0.5) / h, side * a, side / a) for a in (1.0, 1.5)]
    return np.array(found, np.float32)


class Points(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 16, 5, 3, bias=True), nn.PReLU(16), nn.MaxPool2d(3, 2), conv(16, 32, 2, groups=4)
        )
        self.last = nn.Sequential(nn.Flatten(), nn.Dropout(0.3), nn.LazyLinear(64), nn.ReLU6(True), nn.Linear(64, 14))

    def forward(self, x):
        return self.last(self.body(x)).sigmoid()


class Vectors(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.last = nn.Sequential(conv(3, 16, 2), conv(16, 32, 2)), nn.Linear(32, 48, bias=False)
        self.norm = nn.BatchNorm1d(48, affine=False)

    def forward(self, x):
        x = self.body(x).clamp(min=1e-6).mean((2, 3)).contiguous().view(x.size(0), -1)
        return self.norm(self.last(x))


class Masks(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = conv(3, 16, 2), conv(16, 32, 2)
        self.up, self.last = nn.ConvTranspose2d(32, 16, 2, 2), nn.Conv2d(32, CLASSES, 1)

    def forward(self, x):
        a = self.a(x)
        y = self.up(self.b(a))
        y += a
        y = torch.cat((y, functional.max_pool2d(a, 3, 1, 1)), dim=1)
        return functional.interpolate(self.last(y), size=x.shape[2:], mode="bilinear", align_corners=False)


class Two(nn.Module):
    """A map and a pair of angles, as a nested dictionary."""

    def __init__(self):
        super().__init__()
        self.body, self.depth, self.angle = (
            nn.Sequential(conv(3, 16, 2), conv(16, 24)),
            nn.Conv2d(24, 1, 1),
            nn.Linear(24, 2),
        )

    def forward(self, x):
        x = self.body(x)
        pooled = functional.adaptive_avg_pool2d(x, 1).squeeze(-1).squeeze(-1)
        return {
            "dense": {"depth": functional.softplus(self.depth(x)) * 100},
            "angle": torch.tanh(self.angle(pooled)) / 50,
        }


NETWORKS = {
    "fused": (Fused, "detect", SIZE, "yolov8:strides=8/16,eval.score=0.02,predict.score=0.3"),
    "ssd": (Ssd, "detect", SIZE, "ssd:outputs=cls_logits/bbox_regression,priors={priors},eval.score=0.02"),
    "points": (Points, "landmarks:unit=relative", (75, 61), None),
    "vectors": (Vectors, "embed", (57, 57), None),
    "masks": (Masks, "segment", SIZE, None),
    "two": (Two, "raw", (50, 70), None),
}
FEW = {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}


def scenes(count, size, seed=0):
    """Bright boxes on noise: an image differs from place to place and from the next one."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 90, (count, *size, 3), np.uint8)
    for image in images:
        for _ in range(rng.integers(2, 6)):
            y, x = (int(rng.integers(0, side - 12)) for side in size)
            image[y : y + rng.integers(8, 30), x : x + rng.integers(8, 30)] = rng.integers(0, 256, 3)
    return images


def made(kind, size):
    """Returns a network whose statistics are those of images, with a last layer that tells things apart."""
    torch.manual_seed(1)
    network, images = kind(), scenes(16, size, 5)
    given = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 * 4 - 2
    with torch.no_grad():
        for _ in range(12):
            network(given)
        for name, layer in network.named_modules():
            if isinstance(layer, nn.Conv2d) and layer.bias is not None and name.split(".")[0] in {"box", "cls", "last"}:
                layer.weight *= 6
    return network.eval()


def exported(name, target, precision, out, **changes):
    kind, task, size, decode = NETWORKS[name]
    np.save(out / "priors.npy", priors())
    options = {"task": task, "decode": decode and decode.format(priors=out / "priors.npy")}
    spec = {"size": size, "resize": "letterbox", "crop_fraction": 1.0, "interpolation": "bilinear", "pad": 114, **FEW}
    return gd.export(
        made(kind, size),
        target=target,
        precision=precision,
        calibration=scenes(96, size),
        preprocess=spec,
        out=out,
        name=name,
        **(options | changes),
    )


@pytest.mark.parametrize("target", further(EVERY, usual=("onnx",)))
@pytest.mark.parametrize("name", NETWORKS)
def test_float32_is_exact_on_every_target(name, target, tmp_path):
    require(target, execution=True)
    bundle = exported(name, target, "fp32", tmp_path)

    assert bundle.manifest.verdict == "passed", bundle.manifest.failed_because
    assert gd.verify(bundle.path).verdict == "passed"
    with gd.load(bundle.path) as model:
        assert len(model.predict(scenes(1, (120, 90), 9)[0]))


@pytest.mark.parametrize("target", further(("onnx", "openvino", "tflite"), usual=("onnx",)))
@pytest.mark.parametrize("name", NETWORKS)
def test_int8_keeps_every_output(name, target, tmp_path):
    require(target, execution=True)
    manifest = exported(name, target, "int8", tmp_path).manifest

    assert manifest.verdict == "passed", manifest.failed_because
    assert manifest.fidelity is not None
    assert all(one.sqnr_db is None or one.sqnr_db >= 20 for one in manifest.fidelity.outputs)
    assert manifest.precision_achieved.int8_layers >= 3


def test_commands_speak_of_the_outputs_of_the_task(tmp_path, capsys):
    path = exported("vectors", "onnx", "int8", tmp_path).path

    verified, diagnosed = run(capsys, "verify", path), run(capsys, "diagnose", path)

    assert verified.code == diagnosed.code == 0
    assert "classes" not in verified.out + verified.err
    assert "quantized layers; embedding " in " ".join((diagnosed.out + diagnosed.err).split())
