"""From what the user names to a module with weights, preprocessing and labels.

    nothing, sample:NAME          the trained sample that ships with ghostdeploy
    nothing with weights          the zoo entry that the checkpoint's keys and shapes name
    zoo name                      that network, with the weights if given, else untrained, with a warning
    timm:NAME                     timm's network, pretrained unless weights are given
    module:factory, file.py:factory   whatever the callable returns

What a safetensors header may add is in `ghostdeploy.models.identify`.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ghostdeploy.errors import CheckpointError, UsageError, did_you_mean
from ghostdeploy.files import is_there
from ghostdeploy.models import build, create_model, find
from ghostdeploy.models.checkpoint import Checkpoint, read_checkpoint
from ghostdeploy.models.factory import call_factory, plain_module
from ghostdeploy.models.identify import Identity, check_identity, identify, read_header
from ghostdeploy.models.keymaps import canonicalise
from ghostdeploy.models.loading import load_state, misfit_of
from ghostdeploy.models.timm_source import create_timm_model
from ghostdeploy.models.zoo import ZOO
from ghostdeploy.module_copies import in_eval_mode, tensors_of
from ghostdeploy.preprocess import Preprocess
from ghostdeploy.samples.records import RECORDS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from ghostdeploy.models.state_dicts import Misfit
    from ghostdeploy.samples.records import SampleRecord
    from ghostdeploy.tasks.base import TaskInfo

log = logging.getLogger(__name__)

SAMPLES = Path(__file__).parent.parent / "samples" / "data"
DEFAULT_SAMPLE = "ghostnet_050"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """A module in eval mode and what is known about it."""

    module: nn.Module
    name: str
    family: str
    source: str
    """Where it comes from, for the manifest; starts with `sample:` for the shipped models."""
    weights_sha256: str | None = None
    weights_key: str | None = None
    """Name of the state dict in the checkpoint, where the checkpoint wraps it."""
    num_classes: int | None = None
    """`None` where only a run can tell."""
    preprocess: Preprocess = field(default_factory=Preprocess)
    labels: list[str] | None = None
    task: TaskInfo | None = None
    """What its outputs mean, where that is known and no classification."""
    trained: bool = True
    """False for random weights."""
    shared: bool = False
    """The module is the caller's, who continues using it."""

    @property
    def weight_bytes(self) -> int:
        """Memory that the weights take."""
        return sum(tensor.nbytes for tensor in tensors_of(self.module).values())


def load_model(
    spec: str | None, *, weights: Path | None = None, weights_key: str | None = None, num_classes: int | None = None
) -> LoadedModel:
    """Builds the module that `spec` names and loads `weights` into it.

    Args:
        spec: See the module docstring.
        weights: A checkpoint file; required to fit exactly.
        weights_key: Name of the state dict in it, where it holds several; by default the averaged one.
        num_classes: Outputs of the classifier; by default the checkpoint's, the zoo's or the factory's.

    Raises:
        UsageError: `spec` names nothing, or excludes the other arguments.
        CheckpointError: The weights or the factory are unusable.
        MissingDependency: `timm:NAME` without timm.
    """
    if weights_key is not None and weights is None:
        raise UsageError("--weights-key needs --weights", hint="add --weights FILE")
    if spec is None and weights is not None:
        return _from_weights(weights, weights_key, num_classes)
    if spec is None or spec.startswith("sample:"):
        return _from_sample(spec, weights, num_classes)
    if spec.startswith("timm:"):
        model = _from_timm(spec, num_classes, pretrained=weights is None)
    elif ":" in spec:
        name = spec.rpartition(":")[2]
        module = in_eval_mode(call_factory(spec, num_classes))
        # What the factory made of num_classes, only a run can tell.
        model = LoadedModel(module=module, name=name, family="custom", source=spec)
    else:
        return _from_zoo(spec, weights, weights_key, num_classes)
    if weights is not None:
        return _with_weights(model, weights, weights_key)
    return model if model.trained else _untrained(model)


def from_module(module: nn.Module, *, name: str | None = None, preprocess: Preprocess | None = None) -> LoadedModel:
    """Wraps a module the caller built and trained.

    A network of `create_model` is recognised. Others are taken as they are, even where keys and shapes equal a zoo
    network's: the arithmetic in between may differ.

    Args:
        module: Any module; it is neither copied nor changed.
        name: By default the zoo name, else the class name in snake case.
        preprocess: By default the zoo's, else ImageNet's.
    """
    module = plain_module(module, "the model is")
    kind = type(module)
    model = LoadedModel(
        module=module,
        name=name or _snake_case(kind.__name__),
        family="custom",
        source=f"{kind.__module__}:{kind.__qualname__}",
        preprocess=preprocess or Preprocess(),
        shared=True,
    )
    known = _identity_of_ours(module)
    if known is None:
        return model
    spec = preprocess or find(known.name).preprocess
    return replace(model, name=name or known.name, family=known.family, num_classes=known.num_classes, preprocess=spec)


def _identity_of_ours(module: nn.Module) -> Identity | None:
    if not type(module).__module__.startswith("ghostdeploy.models."):
        return None
    try:
        return identify(module.state_dict())
    except CheckpointError:  # one of our classes with a width or block of the caller's
        return None


def _snake_case(name: str) -> str:
    """Turns `MyGhostNet` into `my_ghost_net` and `ResNet50` into `res_net50`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def _from_zoo(name: str, weights: Path | None, key: str | None, num_classes: int | None) -> LoadedModel:
    if name not in ZOO and (name.endswith(".py") or "/" in name or is_there(Path(name))):
        kind = f"{name}:FACTORY" if name.endswith(".py") else f"--weights {name}"
        raise UsageError(f"MODEL is {name!r}, a path, expected a model", hint=f"did you mean {kind}?")
    entry = find(name)
    module = create_model(name, num_classes=num_classes)
    classes = num_classes or entry.num_classes
    if weights is None:
        spec = entry.preprocess
        return _untrained(
            LoadedModel(
                module=module, name=name, family=entry.family, source=name, num_classes=classes, preprocess=spec
            )
        )
    checkpoint = read_checkpoint(weights, misfit=_understood(lambda state: misfit_of(module, state)), key=key)
    state = canonicalise(checkpoint.state, source=f"checkpoint {checkpoint.path}")
    wanted = Identity(name, entry.family, classes)
    _load_zoo_state(module, state, checkpoint, wanted)
    return _described(module, wanted, checkpoint)


def _understood(misfit: Misfit) -> Misfit:
    """Returns the same measure for tensors in any spelling that `canonicalise` supports."""

    def measure(state: Mapping[str, Tensor]) -> float:
        try:
            return misfit(canonicalise(dict(state), source="the checkpoint"))
        except CheckpointError:  # a look-alike, or no network of the zoo
            return 1.0

    return measure


def _misfit_of_zoo(state: Mapping[str, Tensor]) -> float:
    """Returns how far the state is from the zoo's network that it looks like."""
    found = identify(state)
    with torch.device("meta"):
        return misfit_of(build(find(found.name), found.num_classes), state)


def _from_weights(weights: Path, key: str | None, num_classes: int | None) -> LoadedModel:
    checkpoint = read_checkpoint(weights, misfit=_understood(_misfit_of_zoo), key=key)
    source = f"checkpoint {checkpoint.path}"
    state = canonicalise(checkpoint.state, source=source)
    found = identify(state, source=source)
    if num_classes is not None and num_classes != found.num_classes:
        raise CheckpointError(
            f"{source} has {found.num_classes} classes, {num_classes} were asked for", hint="leave out --num-classes"
        )
    module = create_model(found.name, num_classes=found.num_classes)
    _load_zoo_state(module, state, checkpoint, found)
    return _described(module, found, checkpoint)


def _from_sample(spec: str | None, weights: Path | None, num_classes: int | None) -> LoadedModel:
    name = DEFAULT_SAMPLE if spec is None else spec.removeprefix("sample:")
    if weights is not None or num_classes is not None:
        raise UsageError(
            "a sample model brings its own weights and classes", hint=f"name the network: {name} --weights FILE"
        )
    path = SAMPLES / f"{name}.safetensors"
    if not (is_there(path) and path.is_file()):
        known = sorted(file.stem for file in SAMPLES.glob("*.safetensors"))
        otherwise = f"the samples are {', '.join(known)}" if known else "reinstall ghostdeploy"
        raise UsageError(f"no sample model is called {name!r}", hint=did_you_mean(name, known, otherwise=otherwise))
    record = RECORDS.get(name)
    model = _from_weights(path, None, None) if record is None else _from_record(record)
    return replace(model, source=f"sample:{name}")


def _from_record(record: SampleRecord) -> LoadedModel:
    """Builds a sample that is no network of the zoo."""
    built = load_model(record.factory, weights=record.weights)
    return replace(
        built,
        name=record.name,
        preprocess=Preprocess(**record.preprocess),
        labels=list(record.labels) or None,
        task=record.info,
    )


def _from_timm(spec: str, num_classes: int | None, *, pretrained: bool) -> LoadedModel:
    name = spec.removeprefix("timm:")
    built = create_timm_model(name, num_classes, pretrained=pretrained)
    return LoadedModel(
        module=built.module,
        name=name,
        family="timm",
        source=spec,
        num_classes=built.num_classes,
        preprocess=built.preprocess,
        trained=built.pretrained,
    )


def _untrained(model: LoadedModel) -> LoadedModel:
    log.warning("%s has random weights: give a trained checkpoint with --weights FILE", model.source)
    return replace(model, source=f"{model.source} with random weights", trained=False)


def _load_zoo_state(module: nn.Module, state: Mapping[str, Tensor], checkpoint: Checkpoint, wanted: Identity) -> None:
    source = f"checkpoint {checkpoint.path}"

    def explain() -> str | None:
        try:
            found = identify(state, source=source)
        except CheckpointError as error:
            return error.message
        if found.name != wanted.name:
            return f"{source} is {found}, the model is {wanted}"
        if found.num_classes != wanted.num_classes:
            raise CheckpointError(
                f"{source} has {found.num_classes} classes, {wanted.name} was asked for with {wanted.num_classes}",
                hint=f"add --num-classes {found.num_classes}, or leave out MODEL to read family, width and classes "
                "from the checkpoint",
            )
        return None

    load_state(module, state, source=source, explain=explain)


def _described(module: nn.Module, identity: Identity, checkpoint: Checkpoint) -> LoadedModel:
    entry = find(identity.name)
    check_identity(checkpoint, identity)
    preprocess, labels = read_header(checkpoint, identity.num_classes)
    return LoadedModel(
        module=module,
        name=identity.name,
        family=identity.family,
        source=f"file:{checkpoint.path.name}",
        weights_sha256=checkpoint.sha256,
        weights_key=checkpoint.key,
        num_classes=identity.num_classes,
        preprocess=preprocess or entry.preprocess,
        labels=labels,
    )


def _with_weights(model: LoadedModel, weights: Path, key: str | None) -> LoadedModel:
    """Loads a checkpoint into a module that is not ours: its own spelling first, the zoo's if that fits instead."""

    def own(state: Mapping[str, Tensor]) -> float:
        return misfit_of(model.module, state)

    zoos = _understood(own)
    checkpoint = read_checkpoint(weights, misfit=lambda state: own(state) and min(own(state), zoos(state)), key=key)
    source, state = f"checkpoint {checkpoint.path}", checkpoint.state
    if own(state) and not zoos(state):
        state = canonicalise(state, source=source)
    load_state(model.module, state, source=source)
    if checkpoint.extra:
        _load_extra(model.module, checkpoint)
    preprocess, labels = read_header(checkpoint, model.num_classes)
    return replace(
        model,
        source=f"{model.source} with file:{checkpoint.path.name}",
        weights_sha256=checkpoint.sha256,
        weights_key=checkpoint.key,
        preprocess=preprocess or model.preprocess,
        labels=labels,
        trained=True,
    )


def _load_extra(module: nn.Module, checkpoint: Checkpoint) -> None:
    """Hands modules what they added to their state dict; the same call of torch's does it."""
    try:
        module.load_state_dict({**module.state_dict(), **checkpoint.extra})
    except Exception as error:  # whatever the user's set_extra_state raises
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise CheckpointError(
            f"checkpoint {checkpoint.path}: {', '.join(checkpoint.extra)} is refused by the model: {reason}"
        ) from error
