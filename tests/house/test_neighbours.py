"""Files beside a factory are for the factory's code alone: nothing of them shadows a library, and none is lost."""

from __future__ import annotations

import importlib
import sys

import numpy as np
import pytest
import torch

from ghostdeploy.models.factory import call_factory
from ghostdeploy.models.source import load_model

NET = """
import numpy as np
import torch
from torch import nn

import blocks
from blocks import SIZE
import parts.head as head
from parts import tail

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        import sizes
        self.fc = nn.Linear(SIZE, sizes.CLASSES)
        self.words = (blocks.__name__, head.WORD, tail.WORD, np.__name__)

    def forward(self, x):
        import late
        return self.fc(x) + late.OFFSET

def net():
    return Net()
"""
PRIVATE = ("blocks", "late", "nets", "parts", "sizes")


def write(folder, *, word="one", offset=1.0, poison=()):
    (folder / "parts").mkdir(parents=True)
    files = {
        "nets.py": NET,
        "blocks.py": "import sizes\nSIZE = sizes.SIZE\n",
        "sizes.py": "SIZE, CLASSES = 4, 3\n",
        "late.py": f"OFFSET = {offset}\n",
        "parts/__init__.py": "from . import head\n",
        "parts/head.py": f"import sizes\nWORD = {word!r}\n",
        "parts/tail.py": "from .head import WORD\nfrom parts.head import WORD as SAME\nassert WORD == SAME\n",
    }
    files |= {f"{name}.py": "raise RuntimeError('a neighbour in place of a library')\n" for name in poison}
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder that is not the factory's."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path


def test_a_factory_uses_its_neighbours_now_and_later_and_nothing_of_them_stays(folder):
    path, modules = list(sys.path), set(sys.modules)
    net = call_factory(f"{write(folder / 'a')}/nets.py:net", None)
    net.fc.weight.data.zero_()
    net.fc.bias.data.zero_()

    assert net.words[1:] == ("one", "one", "numpy")
    assert torch.equal(net(torch.zeros(1, 4)), torch.ones(1, 3))
    assert sys.path == path
    assert [name for name in set(sys.modules) - modules if name.partition(".")[0] in PRIVATE] == []
    for name in PRIVATE:
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module(name)


def test_two_factories_with_neighbours_of_one_name_have_each_their_own(folder):
    one = call_factory(f"{write(folder / 'a')}/nets.py:net", None)
    two = call_factory(f"{write(folder / 'b', word='two', offset=2.0)}/nets.py:net", None)
    for net in (one, two):
        net.fc.weight.data.zero_()
        net.fc.bias.data.zero_()

    assert (one.words[1:3], two.words[1:3]) == (("one", "one"), ("two", "two"))
    assert (one(torch.zeros(1, 4))[0, 0].item(), two(torch.zeros(1, 4))[0, 0].item()) == (1.0, 2.0)


POISON = ("numpy", "torch", "onnx", "json", "timeit", "wave", "msgspec", "openvino", "timm", "antigravity")


@pytest.mark.parametrize("where", ["file", "module"])
def test_no_neighbour_stands_for_a_library(where, folder, monkeypatch):
    place = write(folder / "a", poison=POISON)
    if where == "module":
        monkeypatch.chdir(place)
    for name in ("wave", "timeit"):
        monkeypatch.delitem(sys.modules, name, raising=False)

    net = call_factory("nets:net" if where == "module" else f"{place}/nets.py:net", None)

    assert net.words[3] == "numpy"
    assert importlib.import_module("wave").__file__ != str(place / "wave.py")
    assert not [name for name, module in sys.modules.items() if getattr(module, "__file__", None) == str(place / name)]


def test_a_library_that_the_call_imports_is_the_installed_one(folder):
    (folder / "a").mkdir()
    (folder / "a" / "wave.py").write_text("raise RuntimeError('a neighbour in place of a library')\n")
    (folder / "a" / "nets.py").write_text(
        "from torch import nn\n\ndef net():\n    import wave\n    return nn.Linear(len(wave.__all__), 1)\n"
    )

    assert call_factory(f"{folder / 'a'}/nets.py:net", None).in_features > 1


def test_a_neighbour_wins_over_an_installed_package_in_the_factorys_code_only(folder):
    (folder / "a").mkdir()
    (folder / "a" / "rich.py").write_text("SIZE = 7\n")
    (folder / "a" / "nets.py").write_text(
        "import rich\nfrom torch import nn\n\ndef net():\n    return nn.Linear(rich.SIZE, 1)\n"
    )

    assert call_factory(f"{folder / 'a'}/nets.py:net", None).in_features == 7
    assert hasattr(importlib.import_module("rich.table"), "Table")


def test_a_folder_without_init_counts_only_where_nothing_of_its_name_is_installed(folder):
    place = folder / "a"
    (place / "rich").mkdir(parents=True)
    (place / "nets").mkdir()
    (place / "nets" / "small.py").write_text("SIZE = 5\n")
    (place / "nets.txt").touch()
    (place / "main.py").write_text(
        "import rich.table\nfrom nets.small import SIZE\nfrom torch import nn\n\n"
        "def net():\n    assert rich.table.Table\n    return nn.Linear(SIZE, 1)\n"
    )

    assert call_factory(f"{place}/main.py:net", None).in_features == 5


def test_import_module_finds_neighbours_while_the_factory_is_called(folder):
    place = folder / "a"
    (place / "zoo").mkdir(parents=True)
    (place / "zoo" / "__init__.py").touch()
    (place / "zoo" / "small.py").write_text("SIZE = 5\n")
    (place / "nets.py").write_text(
        "import importlib\nimport zoo\nfrom torch import nn\n\n"
        "def net():\n    found = importlib.import_module('zoo')\n    assert found is zoo\n"
        "    return nn.Linear(importlib.import_module('zoo.small').SIZE, 1)\n"
    )

    assert call_factory(f"{place}/nets.py:net", None).in_features == 5
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("zoo.small")


def test_what_a_factory_puts_on_the_path_is_for_its_code_alone(folder):
    before = list(sys.path)
    for name in ("a", "b"):
        (folder / name / "lib").mkdir(parents=True)
        (folder / name / "lib" / "shared_blocks.py").write_text(f"WORD = {name!r}\n")
        (folder / name / "lib" / "onnx.py").write_text("raise RuntimeError('a neighbour in place of a library')\n")
        (folder / name / "nets.py").write_text(
            "import os, sys\nsys.path.insert(0, os.path.join(os.path.dirname(__file__), 'lib'))\n"
            "from shared_blocks import WORD\nfrom torch import nn\n\n"
            "def net():\n    net = nn.Linear(1, 1)\n    net.word = WORD\n    return net\n"
        )

    words = [call_factory(f"{folder / name}/nets.py:net", None).word for name in ("a", "b")]

    assert words == ["a", "b"]
    assert sys.path == before
    assert "shared_blocks" not in sys.modules


def test_a_changed_neighbour_is_read_again(folder):
    place = write(folder / "a")
    first = call_factory(f"{place}/nets.py:net", None)
    (place / "sizes.py").write_text("SIZE, CLASSES = 40, 30\n")

    assert first.fc.in_features == 4
    assert call_factory(f"{place}/nets.py:net", None).fc.out_features == 30


def test_a_missing_import_of_a_neighbour_is_said_in_the_users_words(folder):
    place = write(folder / "a")
    (place / "blocks.py").write_text("import sizes.missing\n")

    with pytest.raises(Exception, match=r"No module named 'sizes\.missing'"):
        call_factory(f"{place}/nets.py:net", None)


def test_a_network_of_neighbours_is_recorded_with_its_late_imports(folder):
    loaded = load_model(f"{write(folder / 'a')}/nets.py:net")
    program = torch.export.export(loaded.module, (torch.zeros(2, 4),))

    found = program.module()(torch.ones(2, 4))

    assert np.allclose(found.detach(), loaded.module(torch.ones(2, 4)).detach())
