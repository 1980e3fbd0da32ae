"""The text of a `model.param`: one line per layer.

    7767517                                   magic number
    187 221                                   layers, blobs
    Convolution conv 1 1 in0 1 0=8 1=3 6=216  kind, name, counts of inputs and outputs, their names, parameters

A parameter is `number=value`, a list `-23300-number=count,value,…`. A blob is one image: there is no batch in the file.
The file has no types and no sizes of inputs either. Ours store them in parameters of the Input layers, where readers
look for nothing (`TYPE`) or for the sizes of a blob.
"""

from __future__ import annotations

from typing import NamedTuple

MAGIC = "7767517"
WIDTH, HEIGHT, CHANNELS, DEPTH = 0, 1, 2, 11
"""Parameters of an Input layer: sizes of its blob, those that it has."""
TYPE = 20
"""Parameter of an Input layer, ours: 1 where images are given as uint8; ncnn itself takes their floats."""


class Layer(NamedTuple):
    """One line."""

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    params: dict[int, str]

    def number(self, key: int, default: int = 0) -> int:
        """Returns a parameter that is a whole number."""
        return int(self.params.get(key, default))


def parse(text: str) -> list[Layer]:
    """Returns the layers of a file.

    Raises:
        ValueError: It is no such file, or not whole; ncnn itself would read on past its end.
    """
    lines = [line.split() for line in text.splitlines() if line.strip()]
    if not lines or lines[0] != [MAGIC]:
        raise ValueError(f"it is not an ncnn param file: it does not begin with {MAGIC}")
    counts, rows = lines[1:2], lines[2:]
    if not counts or len(counts[0]) != 2 or counts[0][0] != str(len(rows)):
        found = " ".join(counts[0]) if counts else "nothing"
        raise ValueError(f"it declares {found} layers and blobs, and has {len(rows)} layers")
    layers = [_layer(words) for words in rows]
    made = [name for layer in layers for name in layer.outputs]
    if counts[0][1] != str(len(made)) or len(set(made)) < len(made):
        raise ValueError(f"it declares {counts[0][1]} blobs, and has {len(set(made))}")
    if missing := {name for layer in layers for name in layer.inputs} - set(made):
        raise ValueError(f"no layer makes {', '.join(sorted(missing))}")
    return layers


def _layer(words: list[str]) -> Layer:
    if len(words) < 4 or not (words[2].isdigit() and words[3].isdigit()):
        raise ValueError(f"this is not a layer: {' '.join(words)[:80]}")
    reads, writes = int(words[2]), int(words[3])
    names, params = words[4 : 4 + reads + writes], words[4 + reads + writes :]
    if len(names) < reads + writes or any("=" not in one for one in params):
        raise ValueError(f"this is not a whole layer: {' '.join(words)[:80]}")
    pairs = (one.split("=", 1) for one in params)
    return Layer(words[0], words[1], tuple(names[:reads]), tuple(names[reads:]), {int(k): v for k, v in pairs})


def render(layers: list[Layer]) -> str:
    """Returns the text of a file."""
    blobs = sum(len(layer.outputs) for layer in layers)
    lines = [MAGIC, f"{len(layers)} {blobs}"]
    for kind, name, inputs, outputs, params in layers:
        words = [kind, name, str(len(inputs)), str(len(outputs)), *inputs, *outputs]
        lines.append(" ".join((*words, *(f"{key}={value}" for key, value in params.items()))))
    return "\n".join(lines) + "\n"


def with_shape(layer: Layer, shape: tuple[int, ...], dtype: str) -> Layer:
    """Returns an Input layer that declares its type and sizes.

    Args:
        layer: As pnnx writes it, without parameters.
        shape: Of one image, one to four sizes.
        dtype: `float32` or `uint8`.
    """
    keys = {1: (WIDTH,), 2: (HEIGHT, WIDTH), 3: (CHANNELS, HEIGHT, WIDTH), 4: (CHANNELS, DEPTH, HEIGHT, WIDTH)}
    params = {key: str(size) for key, size in zip(keys[len(shape)], shape, strict=True)}
    typed = {TYPE: "1"} if dtype == "uint8" else {}
    return layer._replace(params=dict(sorted((params | typed).items())))


def shape_of(layer: Layer) -> tuple[int, ...]:
    """Returns the sizes of one image that an Input layer declares; none where it declares none."""
    sizes = (layer.number(key) for key in (CHANNELS, DEPTH, HEIGHT, WIDTH))
    return tuple(size for size in sizes if size)


def dtype_of(layer: Layer) -> str:
    """Returns the type in which images are given for an Input layer."""
    return "uint8" if layer.number(TYPE) == 1 else "float32"
