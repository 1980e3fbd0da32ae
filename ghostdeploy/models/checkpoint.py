"""Reads checkpoint files into plain state dicts; `loading` copies them into modules.

    file → container (safetensors, torch zip, torch pickle, see `containers`)
         → the state dict that fits (see `state_dicts`) → float32 → check finite

Pickles are read by torch's restricted unpickler only (`weights_only=True`): a file that needs more runs no code, it is
refused. After this module layouts differ only in names, which `keymaps` handles.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import pickle
import re
import stat
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor

from ghostdeploy.arrays import ALLOWANCE, RATIO
from ghostdeploy.errors import CheckpointError
from ghostdeploy.models.containers import HARMLESS, kind_of
from ghostdeploy.models.loading import is_counter, listed
from ghostdeploy.models.state_dicts import choose

if TYPE_CHECKING:
    from ghostdeploy.models.state_dicts import Misfit

_log = logging.getLogger("ghostdeploy")

WRAPPERS = ("state_dict_ema", "model_ema", "ema_state_dict", "ema", "state_dict", "model_state_dict", "model", "net")
"""Keys under which training scripts keep the weights, best first; for messages where nothing fits."""

PREFIXES = ("module.", "_orig_mod.")
"""Put before every key by DataParallel and torch.compile."""

PLAIN_HINT = "in the training code, torch.save(model.state_dict(), FILE) and load that file"


@dataclass(frozen=True)
class Checkpoint:
    """The weights of a file."""

    path: Path
    state: dict[str, Tensor]
    """float32 (or integer) CPU tensors by key, without wrapper and prefix."""
    sha256: str
    """Of the file, hexadecimal."""
    metadata: dict[str, str] = field(default_factory=dict)
    """Header of a safetensors file."""
    key: str | None = None
    """Name of the state dict where the file wraps it, see `state_dicts`."""
    extra: dict[str, Any] = field(default_factory=dict)
    """What modules added to it beside tensors (`get_extra_state`), by key."""


def read_checkpoint(path: Path, *, misfit: Misfit | None = None, key: str | None = None) -> Checkpoint:
    """Reads `.pth`, `.pt`, `.pth.tar` or `.safetensors`.

    Args:
        path: The file.
        misfit: How far tensors are from being the weights of the network that is to get them; the nearest, see
            `state_dicts`, are the checkpoint's. Without it the usual keys and prefixes decide.
        key: Name of the state dict to take where the file holds several.

    Raises:
        UsageError: The file holds no state dict called `key`.
        CheckpointError: The file is missing, unreadable, damaged, no checkpoint, needs more than tensors, or holds NaN
            or infinite weights.
    """
    path = Path(path)
    data = _read(path)
    digest = hashlib.sha256(data).hexdigest()
    metadata: dict[str, str] = {}
    if kind_of(path, data) == "safetensors":
        state, metadata = _read_safetensors(path, data)
    else:
        state = _read_torch(path, data)
    name, extra = None, {}
    if misfit is not None or key is not None:
        chosen, said = choose(state, misfit or (lambda _: 0.0), key=key, source=f"checkpoint {path}")
        if said is not None:
            _log.warning("%s", said)
        if chosen is not None:
            state, name, extra = chosen.tensors, chosen.name or None, chosen.extra
    return Checkpoint(path, _clean(state, path, len(data)), digest, metadata, name, extra)


def _read(path: Path) -> bytes:
    """Returns the file: the hashed bytes are the parsed ones, even while a training run writes the next file."""
    try:
        if not stat.S_ISREG(mode := path.stat().st_mode):
            kind = "a folder" if stat.S_ISDIR(mode) else "no regular file"
            raise CheckpointError(f"checkpoint {path} is {kind}, expected a file")
        with path.open("rb") as file:
            return file.read()
    except FileNotFoundError as error:
        raise CheckpointError(f"checkpoint {path} does not exist") from error
    except OSError as error:
        raise CheckpointError(f"checkpoint {path} cannot be read: {error.strerror}") from error


def _read_safetensors(path: Path, data: bytes) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        state = load_safetensors(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        return state, dict(header.get("__metadata__") or {})
    except (SafetensorError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(f"checkpoint {path} is a damaged safetensors file: {_first_sentence(error)}") from error


def _read_torch(path: Path, data: bytes) -> Any:
    try:
        with torch.serialization.safe_globals(list(HARMLESS)), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about pickle protocols; what cannot be read raises
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        if found is None:
            raise CheckpointError(
                f"checkpoint {path} is damaged or not a pickle of tensors", hint=PLAIN_HINT
            ) from error
        raise CheckpointError(
            f"checkpoint {path} is refused: it needs {found[1]}, and loading that could run code", hint=PLAIN_HINT
        ) from error
    except Exception as error:  # damaged bytes make the unpickler raise anything, AssertionError included
        if "TorchScript" in str(error):
            raise CheckpointError(f"checkpoint {path} is a TorchScript program", hint=PLAIN_HINT) from error
        raise CheckpointError(f"checkpoint {path} is damaged: {_first_sentence(error)}") from error


def _refuse_huge(state: dict[str, Tensor], path: Path, size: int) -> None:
    """Refuses tensors that repeat a few stored bytes by a stride of 0 until they fill the memory.

    Raises:
        CheckpointError: Their float32 forms are larger than a file of `size` bytes can hold.
    """
    claimed = {key: 4 * value.numel() for key, value in state.items()}
    if sum(claimed.values()) > RATIO * size + ALLOWANCE:
        key = max(claimed, key=lambda name: claimed[name])
        raise CheckpointError(
            f"checkpoint {path} declares {sum(claimed.values()) / 1e6:.0f} MB in a file of {size} bytes: {key} has "
            f"shape {tuple(state[key].shape)}",
            hint="save it again with contiguous tensors",
        )


def _first_sentence(error: Exception) -> str:
    return re.split(r"\.\s|\n", str(error))[0].rstrip(".") or type(error).__name__


def _clean(loaded: Any, path: Path, size: int) -> dict[str, Tensor]:
    state = _unwrap(loaded)
    if not isinstance(state, dict):
        raise CheckpointError(
            f"checkpoint {path} holds a {type(state).__name__}, expected tensors by name", hint=PLAIN_HINT
        )
    state = _strip_prefixes({str(key): value for key, value in state.items() if key != "n_averaged"})
    # Profilers leave their counters in every module.
    state = {key: value for key, value in state.items() if key.rpartition(".")[2] not in {"total_ops", "total_params"}}
    others = [key for key, value in state.items() if not isinstance(value, Tensor)]
    if others or not state:
        found = listed("holds things other than tensors:", others) if others else "holds no tensors"
        raise CheckpointError(f"checkpoint {path} {found}", hint=PLAIN_HINT)
    _refuse_huge(state, path, size)
    # Half precision ends at 65504; a counter beyond that is infinite there, and nobody needs it.
    state = {key: value for key, value in state.items() if not (is_counter(key) and value.is_floating_point())}
    state = {key: _as_float32(value, key, path) for key, value in state.items()}
    _refuse_not_finite(state, path)
    return state


def _unwrap(loaded: Any) -> Any:
    for _ in range(3):  # {"model": {"state_dict": …}} occurs
        if not isinstance(loaded, dict):
            break
        inner = next((loaded[key] for key in WRAPPERS if isinstance(loaded.get(key), dict) and loaded[key]), None)
        if inner is None:
            break
        loaded = inner
    return loaded


def _strip_prefixes(state: dict[str, Any]) -> dict[str, Any]:
    while prefix := next((p for p in PREFIXES if state and all(key.startswith(p) for key in state)), None):
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def _as_float32(tensor: Tensor, key: str, path: Path) -> Tensor:
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex() or tensor.device.type != "cpu":
        raise CheckpointError(
            f"checkpoint {path}: {key} is not a dense real tensor but {tensor.dtype}, {tensor.layout}"
        )
    return tensor.detach().float() if tensor.is_floating_point() else tensor.detach()


def _refuse_not_finite(state: dict[str, Tensor], path: Path) -> None:
    counts = {key: int((~torch.isfinite(value)).sum()) for key, value in state.items() if value.is_floating_point()}
    bad = {key: count for key, count in counts.items() if count}
    if bad:
        key, count = next(iter(bad.items()))
        more = f" (and {len(bad) - 1} more such tensors)" if len(bad) > 1 else ""
        raise CheckpointError(
            f"checkpoint {path}: {key} holds {count} NaN or infinite values of {state[key].numel()}{more}",
            hint="the training diverged; use an earlier checkpoint",
        )
    negative = [key for key, value in state.items() if key.endswith("running_var") and bool((value < 0).any())]
    if negative:
        raise CheckpointError(f"checkpoint {path}: {negative[0]} holds negative variances, expected at least 0")
