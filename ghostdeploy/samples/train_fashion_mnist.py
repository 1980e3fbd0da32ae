"""Trains the sample models that ship with ghostdeploy.

    python -m ghostdeploy.samples.train_fashion_mnist --model ghostnet_050 --cycles 18:0.003,8:0.001 --out FOLDER

Official architecture, 64×64 RGB input through ghostdeploy's own preprocessing, AdamW with a learning rate in one or
more cycles (Loshchilov and Hutter, SGDR, 2017), label smoothing, an exponential moving average of weights, and three
augmentations (flip, shift, erase). 2,000 images of the training split are held out to watch the run; the test split is
looked at after the last epoch of a call. Writes `<model>.safetensors`, whose header carries preprocessing and labels,
and a model card `<model>.md`. A call in a folder with `<model>.training.pt` resumes where that one stopped.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ghostdeploy.models import create_model
from ghostdeploy.preprocess import Preprocess, normalise, to_pixels
from ghostdeploy.samples.prepare_fashion_mnist import LABELS, read_split

if TYPE_CHECKING:
    from numpy.typing import NDArray

SPEC = Preprocess(
    size=64, crop_fraction=1.0, interpolation="bilinear", mean=(0.286, 0.286, 0.286), std=(0.353, 0.353, 0.353)
)
HELD_OUT = 2000
SHIFT = 4
EMA_DECAY = 0.998


def resized(images: NDArray[np.uint8]) -> Tensor:
    """Returns uint8 (N, 64, 64): one channel, because the three are equal."""
    return torch.from_numpy(np.stack([to_pixels(image, SPEC)[..., 0] for image in images]))


def to_input(pixels: Tensor) -> Tensor:
    """Maps uint8 (N, 64, 64) to the normalised model input (N, 3, 64, 64)."""
    one = torch.from_numpy(normalise(pixels.numpy()[..., None].repeat(3, axis=3), SPEC))
    return one.to(memory_format=torch.channels_last)


def augment(pixels: Tensor, rng: torch.Generator) -> Tensor:
    """Flips half of the images, shifts each by up to four pixels, and erases a patch in half of them."""
    count, side = len(pixels), SPEC.sides[0]
    flip = torch.rand(count, generator=rng) < 0.5
    pixels = torch.where(flip[:, None, None], pixels.flip(2), pixels)
    padded = nn.functional.pad(pixels, (SHIFT, SHIFT, SHIFT, SHIFT))
    dy, dx = torch.randint(0, 2 * SHIFT + 1, (2, count), generator=rng)
    rows = (dy[:, None] + torch.arange(side))[:, :, None]
    columns = (dx[:, None] + torch.arange(side))[:, None, :]
    pixels = padded[torch.arange(count)[:, None, None], rows, columns]
    size = torch.randint(8, 25, (2, count), generator=rng)
    corner = torch.randint(0, side, (2, count), generator=rng)
    grid = torch.arange(side)
    in_rows = (grid >= corner[0][:, None]) & (grid < (corner[0] + size[0])[:, None])
    in_columns = (grid >= corner[1][:, None]) & (grid < (corner[1] + size[1])[:, None])
    erase = in_rows[:, :, None] & in_columns[:, None, :] & (torch.rand(count, generator=rng) < 0.5)[:, None, None]
    return pixels.masked_fill(erase, 73)  # the mean gray value


@torch.no_grad()
def predict(model: nn.Module, pixels: Tensor) -> Tensor:
    """Returns the class of each image, in float32 and eval mode."""
    model.eval()
    return torch.cat([model(to_input(part)).argmax(1) for part in torch.split(pixels, 250)])


class Trainer:
    """One training run, resumable after each epoch."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        torch.manual_seed(options.seed)
        torch.set_num_threads(options.threads)
        images, labels = read_split(options.source, "train")
        order = np.random.default_rng(options.seed).permutation(len(images))
        self.pixels, self.labels = resized(images[order]), torch.from_numpy(labels[order])
        self.model = create_model(options.model, num_classes=len(LABELS)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks it
        self.average = copy.deepcopy(self.model)
        decayed = [p for p in self.model.parameters() if p.ndim > 1]
        plain = [p for p in self.model.parameters() if p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": 0.05}, {"params": plain, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=options.cycles[0][1])
        self.steps = (len(self.pixels) - HELD_OUT) // options.batch
        self.step = 0
        self.epoch = 0
        self.state_file = options.out / f"{options.model}.training.pt"
        if self.state_file.exists():
            self._resume()

    def run(self) -> None:
        """Trains to the last epoch."""
        while self.epoch < sum(epochs for epochs, _ in self.options.cycles):
            begin = time.time()
            loss = self._one_epoch()
            self.epoch += 1
            held_out = self.pixels[:HELD_OUT]
            right = (predict(self.average, held_out) == self.labels[:HELD_OUT]).float().mean().item()
            seconds = time.time() - begin
            print(f"epoch {self.epoch} loss {loss:.4f} held-out top-1 {right:.4f} {seconds:.0f} s", flush=True)
            parts = {"model": self.model, "average": self.average, "optimizer": self.optimizer}
            state = {name: part.state_dict() for name, part in parts.items()}
            torch.save(state | {"epoch": self.epoch, "step": self.step}, self.state_file)

    def _one_epoch(self) -> float:
        rng = torch.Generator().manual_seed(self.options.seed * 1000 + self.epoch)
        order = HELD_OUT + torch.randperm(len(self.pixels) - HELD_OUT, generator=rng)
        loss_of = nn.CrossEntropyLoss(label_smoothing=0.1)
        self.model.train()
        total = 0.0
        for chosen in torch.split(order[: self.steps * self.options.batch], self.options.batch):
            for group in self.optimizer.param_groups:
                group["lr"] = self._rate()
            images = to_input(augment(self.pixels[chosen], rng))
            with torch.autocast("cpu", torch.bfloat16, enabled=self.options.bf16):
                logits = self.model(images)
            loss = loss_of(logits.float(), self.labels[chosen])
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.step += 1
            self._update_average()
            total += loss.item()
        return float(total / self.steps)

    def _rate(self) -> float:
        """In each cycle: a linear warm-up over one epoch, then half a cosine to zero."""
        step, cycles = self.step, list(self.options.cycles)
        while len(cycles) > 1 and step >= cycles[0][0] * self.steps:
            step -= cycles.pop(0)[0] * self.steps
        steps, peak = cycles[0][0] * self.steps, cycles[0][1]
        if step < self.steps:
            return float(peak * (step + 1) / self.steps)
        return float(peak * 0.5 * (1 + math.cos(math.pi * (step - self.steps) / (steps - self.steps))))

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = min(EMA_DECAY, self.step / (self.step + 10))
        for mean, value in zip(self.average.state_dict().values(), self.model.state_dict().values(), strict=True):
            if mean.is_floating_point():
                mean.lerp_(value, 1 - decay)
            else:
                mean.copy_(value)

    def _resume(self) -> None:
        state = torch.load(self.state_file, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.epoch, self.step = state["epoch"], state["step"]


def write(trainer: Trainer) -> None:
    """Measures the averaged model on all test images and writes checkpoint and card."""
    options = trainer.options
    images, labels = read_split(options.source, "t10k")
    right = (predict(trainer.average, resized(images)) == torch.from_numpy(labels)).numpy()
    top1 = float(right.mean())
    command = (
        f"python -m ghostdeploy.samples.train_fashion_mnist --model {options.model} "
        f"--cycles {','.join(f'{epochs}:{peak:g}' for epochs, peak in options.cycles)} "
        f"--batch {options.batch} --seed {options.seed}{' --bf16' if options.bf16 else ''}"
    )
    header = {
        "model": options.model,
        "num_classes": str(len(LABELS)),
        "preprocess": msgspec.json.encode(SPEC).decode(),
        "labels": json.dumps(LABELS),
        "top1": f"{top1:.4f}",
        "seed": str(options.seed),
        "command": command,
        "licence": "Apache-2.0",
    }
    state = {key: value.contiguous() for key, value in trainer.average.state_dict().items()}
    save_file(state, options.out / f"{options.model}.safetensors", metadata=header)
    per_class = [(name, float(right[labels == index].mean())) for index, name in enumerate(LABELS)]
    (options.out / f"{options.model}.md").write_text(card(header, per_class), "utf-8")
    print(f"test top-1 {top1:.4f} on {len(labels)} images", flush=True)


def card(header: dict[str, str], per_class: list[tuple[str, float]]) -> str:
    """Returns the model card in Markdown."""
    rows = "\n".join(f"| {name} | {share:.1%} |" for name, share in per_class)
    return f"""# {header["model"]}, trained on Fashion-MNIST

A small trained network to try ghostdeploy with. Not meant for anything else: the data are 28×28 gray thumbnails.

- Architecture: `ghostdeploy.create_model("{header["model"]}", num_classes=10)`, the official layer table, unchanged.
- Data: Fashion-MNIST (Xiao, Rasul and Vollgraf, arXiv 1708.07747; MIT licence, Zalando SE 2017), 58,000 training
  images; 2,000 more were held out to watch the run; the 10,000 test images were looked at after each cycle only, and
  the weights are those of the last epoch.
- Input: 64×64 RGB, the gray image in all three channels, resized with Pillow's bilinear filter.
- Accuracy: **{float(header["top1"]):.2%} top-1 on all 10,000 test images**, float32, PyTorch.
- Made by: `{header["command"]}`
- Licence of the weights: {header["licence"]}.

| class | right |
|---|---|
{rows}
"""


def _cycles(text: str) -> list[tuple[int, float]]:
    return [(int(epochs), float(peak)) for epochs, _, peak in (cycle.partition(":") for cycle in text.split(","))]


def main(arguments: list[str] | None = None) -> int:
    """Trains, measures, writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="ghostnet_050")
    parser.add_argument("--source", type=Path, default=Path("/usr/share/datasets/fashion-mnist"))
    parser.add_argument("--out", type=Path, default=Path("build/training"))
    parser.add_argument(
        "--cycles", type=_cycles, default="18:0.003,8:0.001", help="epochs:peak learning rate, one per cycle"
    )
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--bf16", action="store_true", help="train in bfloat16 autocast")
    options = parser.parse_args(arguments)
    names = {suffix: options.out / f"{options.model}{suffix}" for suffix in (".training.pt", ".safetensors", ".md")}
    found = [path for path in names.values() if path.exists()]
    if found and names[".training.pt"] not in found:  # with its state it is an earlier training of ours, which goes on
        parser.error(f"{found[0]} exists already and is not of a training run to resume, give another --out")
    options.out.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(options)
    trainer.run()
    write(trainer)
    return 0


if __name__ == "__main__":
    sys.exit(main())
