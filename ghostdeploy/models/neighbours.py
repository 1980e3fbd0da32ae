"""Files beside a factory: imported for the factory's code alone, under private names.

`import blocks` in a factory file means the `blocks.py` beside it, as it does where the file is run as a script. On
`sys.path` that folder would also shadow every library that is imported later, an `onnx.py` in place of onnx. So
the folder is never on `sys.path`. It is the `__path__` of a private package, and the code in it, the factory's own
included, gets an `__import__` of its own, which looks there first:

    import blocks    in the factory's code, now or later in forward()    _ghostdeploy_<hash>.blocks
    import blocks    anywhere else                                       what is installed

Two factories with neighbours of one name each get their own. These names stay with what is installed even in the
factory's code: the standard library and `OURS`, without which no network can be made here. A folder without
`__init__.py` counts only where nothing of its name is installed, as everywhere in Python. `importlib.import_module`
looks up public names; while a factory is imported and called, it falls back to neighbours.
"""

from __future__ import annotations

import builtins
import hashlib
import importlib
import sys
import threading
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

OURS = frozenset({"PIL", "ghostdeploy", "numpy", "onnx", "onnxruntime", "openvino", "safetensors", "torch"})
"""Libraries that win over neighbours of their name."""
_PREFIX = "_ghostdeploy_"
_known: dict[str, Neighbours] = {}
"""By name of the private package."""
_public: dict[str, str] = {}
"""The private package that currently serves a public name."""
_one_at_a_time = threading.RLock()


@contextmanager
def beside(folder: Path) -> Iterator[Neighbours]:
    """Gives the neighbours in a folder, imported afresh, which answer `import_module` while the block runs.

    What the factory's code puts on `sys.path` is searched for that code from then on, and for nobody else.

    Args:
        folder: Absolute.
    """
    with _one_at_a_time:
        neighbours = Neighbours(folder)
        finder = _Last(neighbours)
        sys.meta_path.append(finder)
        try:
            yield neighbours
        finally:
            sys.meta_path.remove(finder)
            neighbours.leave()


class Neighbours:
    """The importable files of one folder.

    Args:
        folder: Absolute.
    """

    def __init__(self, folder: Path) -> None:
        self.name = _PREFIX + hashlib.sha256(str(folder).encode()).hexdigest()[:12]
        package = ModuleType(self.name)
        package.__path__ = [str(folder)]
        for name in [one for one in sys.modules if f"{one}.".startswith(f"{self.name}.")]:
            del sys.modules[name]  # files may have changed since an earlier call
        importlib.invalidate_caches()
        self._folders = package.__path__
        self._before: list[str] | None = list(sys.path)
        sys.modules[self.name] = package
        _known[self.name] = self
        self.builtins = vars(builtins) | {"__import__": self._import}

    def has(self, name: str) -> bool:
        """Returns whether the first part of a dotted name is a neighbour's."""
        first = name.partition(".")[0]
        if first in OURS or first in sys.stdlib_module_names or not first:
            return False
        if f"{self.name}.{first}" in sys.modules:
            return True
        self._take_added()
        spec = PathFinder.find_spec(f"{self.name}.{first}", self._folders)
        if spec is None:
            return False
        return spec.origin is not None or (first not in sys.modules and PathFinder.find_spec(first) is None)

    def load(self, name: str) -> ModuleType:
        """Imports a neighbour by its dotted name."""
        return importlib.import_module(f"{self.name}.{name}")

    def load_file(self, path: Path) -> ModuleType:
        """Imports the Python file of a factory; its neighbours can import it by its own name."""
        stem = "".join(sign if sign.isalnum() else "_" for sign in path.stem)
        name = f"{self.name}.{stem}"
        loader = _Loader(name, str(path))
        spec = spec_from_file_location(name, path, loader=loader)
        assert spec is not None  # there is a loader
        module = module_from_spec(spec)
        sys.modules[name] = module  # dataclasses and pickling look their module up there
        try:
            loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
        return module

    def leave(self) -> None:
        """Cleans up after the factory: `sys.path` as it was, and no neighbour under a public name."""
        self._take_added()
        sys.path[:] = [entry for entry in sys.path if entry in (self._before or ())]
        self._before = None
        for name in [one for one, module in sys.modules.items() if self._is_public(one, module)]:
            del sys.modules[name]
        _public.clear()

    def _take_added(self) -> None:
        if self._before is not None:  # the factory is being imported or called
            known = {*self._folders, *self._before}
            self._folders += [entry for entry in sys.path if entry not in known]

    def _is_public(self, name: str, module: ModuleType) -> bool:
        """Returns whether a neighbour is registered under a name that others might import."""
        own = getattr(module, "__name__", "")
        return not name.startswith(_PREFIX) and isinstance(own, str) and own.startswith(f"{self.name}.")

    def _import(
        self,
        name: str,
        globals: Mapping[str, Any] | None = None,
        locals: Mapping[str, Any] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        if level or not self.has(name):
            return builtins.__import__(name, globals, locals, fromlist or (), level)
        found = builtins.__import__(f"{self.name}.{name}", globals, locals, fromlist or (), 0)
        return found if fromlist else sys.modules[f"{self.name}.{name.partition('.')[0]}"]


class _Loader(SourceFileLoader):
    """Gives the code of a neighbour its `__import__`."""

    def exec_module(self, module: ModuleType) -> None:
        owner = _known[module.__name__.partition(".")[0]]
        module.__dict__["__builtins__"] = owner.builtins
        super().exec_module(module)


class _First(MetaPathFinder):
    """Finds the modules of private packages, and those below public names that `_Last` has answered."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        top, _, rest = fullname.partition(".")
        if rest and top in _public:
            return ModuleSpec(fullname, _Alias(f"{_public[top]}.{fullname}"))
        if not fullname.startswith(_PREFIX):
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


class _Last(MetaPathFinder):
    """Answers for public names that nothing else has, with the module of the private name."""

    def __init__(self, neighbours: Neighbours) -> None:
        self._neighbours = neighbours

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if path is not None or not self._neighbours.has(fullname):
            return None
        _public[fullname] = self._neighbours.name
        return ModuleSpec(fullname, _Alias(f"{self._neighbours.name}.{fullname}"))


class _Alias(Loader):
    def __init__(self, private: str) -> None:
        self._private = private
        self._spec: ModuleSpec | None = None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(self._private)
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec


sys.meta_path.insert(0, _First())
