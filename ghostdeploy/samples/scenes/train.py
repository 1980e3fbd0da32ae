"""Trains a sample network for detection, landmarks, embeddings or segmentation.

    python -m ghostdeploy.samples.scenes.train ghost_nanodet --out FOLDER

The detector's backbone starts from the classifier `ghostnet_050` that ships, the others' from the detector's. AdamW
with a linear warm-up and half a cosine, and an exponential moving average of weights and statistics, which is what is
kept. With `--noise B`, in the last two fifths of the epochs, the data x of every convolution gets the noise of B bits,

    x + u·(max x − min x)/(2^B − 1),   u uniform in [−½, ½]

so that the network learns to do with few. Training images are drawn once into the folder. The evaluation set is looked
at after the last epoch only. Writes `NAME.safetensors`, in half precision and judged as it is written, and a card
`NAME.md`. A call in a folder with `NAME.training.pt` resumes where that one stopped, with the cosine of its own epochs.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from ghostdeploy import samples
from ghostdeploy.samples.records import RECORDS
from ghostdeploy.samples.scenes.card import card
from ghostdeploy.samples.scenes.figures import figures
from ghostdeploy.samples.scenes.jobs import JOBS, to_input

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from ghostdeploy.samples.scenes.jobs import Job

EMA_DECAY = 0.998
WARM_UP = 200
"""Steps."""
WEIGHT_DECAY = 0.02
NOISY = 0.6
"""Share of the epochs without noise."""


class Trainer:
    """One training run, resumable after each epoch."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        torch.manual_seed(options.seed)
        torch.set_num_threads(options.threads)
        self.job: Job = JOBS[options.name](options)
        self.model = self.job.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks it
        self.model.backbone.load_classifier(start_of(self.job.record.start))
        self.average = copy.deepcopy(self.model)
        for layer in self.model.modules():
            if isinstance(layer, nn.Conv2d):
                layer.register_forward_pre_hook(self._rounded)
        parameters = [*self.model.parameters(), *self.job.extra.parameters()]
        groups = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": WEIGHT_DECAY},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=options.rate)
        self.steps: int = self.job.count // options.batch
        self.step = self.epoch = 0
        self.state_file = options.out / f"{options.name}.training.pt"
        if self.state_file.exists():
            self._resume()

    def run(self) -> None:
        """Trains to the last epoch."""
        while self.epoch < self.options.epochs:
            begin = time.time()
            loss = self._one_epoch()
            self.epoch += 1
            print(f"epoch {self.epoch} loss {loss:.4f} {time.time() - begin:.0f} s", flush=True)
            state = {name: part.state_dict() for name, part in self._parts().items()}
            torch.save(state | {"epoch": self.epoch, "step": self.step}, self.state_file)

    def _rounded(self, layer: nn.Module, given: tuple[Tensor]) -> tuple[Tensor] | None:
        bits, share = self.options.noise, self.epoch / self.options.epochs
        if not bits or share < NOISY or not layer.training:
            return None
        (x,) = given
        step = (x.detach().amax() - x.detach().amin()) / (2**bits - 1)
        return (x + (torch.rand_like(x) - 0.5) * step,)

    def _parts(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        return {"model": self.model, "average": self.average, "extra": self.job.extra, "optimizer": self.optimizer}

    def _one_epoch(self) -> float:
        rng = torch.Generator().manual_seed(self.options.seed * 1000 + self.epoch)
        order = torch.randperm(self.job.count, generator=rng)[: self.steps * self.options.batch]
        self.model.train()
        total: float = 0.0
        for chosen in torch.split(order, self.options.batch):
            for group in self.optimizer.param_groups:
                group["lr"] = self._rate()
            loss = self.job.loss(self.model, chosen, rng)
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(self.model.parameters(), 10.0)
            self.optimizer.step()
            self.step += 1
            self._update_average()
            total += loss.item()
        return total / self.steps

    def _rate(self) -> float:
        share = self.step / (self.steps * self.options.epochs)
        peak: float = self.options.rate
        return peak * min((self.step + 1) / WARM_UP, 0.5 * (1.0 + math.cos(math.pi * share)))

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
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        self.epoch, self.step = state["epoch"], state["step"]


def start_of(name: str) -> dict[str, Tensor]:
    """Returns the backbone's weights of a sample, a classifier or not."""
    prefix = "backbone." if name in RECORDS else ""
    state = load_file(samples.checkpoint(name))
    return {key.removeprefix(prefix): value.float() for key, value in state.items() if key.startswith(prefix)}


@torch.no_grad()
def outputs(model: nn.Module, images: NDArray[np.uint8]) -> NDArray[Any]:
    """Returns what a model in eval mode gives for images (N, H, W, 3)."""
    parts = torch.from_numpy(images).split(50)  # type: ignore[no-untyped-call]
    found: NDArray[Any] = torch.cat([model(to_input(part)) for part in parts]).numpy()
    return found


def write(trainer: Trainer) -> None:
    """Rounds the averaged weights to half precision, measures them, and writes checkpoint and card."""
    options, record = trainer.options, RECORDS[trainer.options.name]
    state = {key: value for key, value in trainer.average.state_dict().items() if value.is_floating_point()}
    half = {key: value.half().contiguous() for key, value in state.items()}
    trainer.average.load_state_dict({key: value.float() for key, value in half.items()}, strict=False)
    reached = figures(record, lambda images: outputs(trainer.average.eval(), images))
    rounded = {name: round(value, 4) for name, value in reached.items()}
    command = (
        f"python -m ghostdeploy.samples.scenes.train {options.name} --epochs {options.epochs} --rate {options.rate:g} "
        f"--batch {options.batch} --seed {options.seed}" + (f" --noise {options.noise}" if options.noise else "")
    )
    header = {"sample": record.name, "figures": json.dumps(rounded), "command": command, "licence": "Apache-2.0"}
    save_file(half, options.out / f"{record.name}.safetensors", metadata=header)
    (options.out / f"{record.name}.md").write_text(card(record, header), "utf-8")
    print(json.dumps(rounded), flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Trains, measures, writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=list(JOBS))
    parser.add_argument("--source", type=Path, default=Path("/usr/share/datasets/fashion-mnist"))
    parser.add_argument("--out", type=Path, default=Path("build/training"))
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--rate", type=float, default=0.002)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--noise", type=int, default=0, metavar="BITS")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    names = {suffix: options.out / f"{options.name}{suffix}" for suffix in (".training.pt", ".safetensors", ".md")}
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
