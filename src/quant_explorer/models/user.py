"""A user's own model: `path/to/file.py:function`."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from quant_explorer.core.errors import ModelError, explain
from quant_explorer.models.architecture import Shape

if TYPE_CHECKING:
    from torch import nn

Factory = Callable[..., object]


@dataclass(frozen=True)
class UserModel:
    """A function (or class) in a Python file that returns an `nn.Module`.

    It is called without arguments, or with `num_classes` when it has a parameter of that name. While it
    is imported and called, its folder can be imported from, as when Python runs the file.
    """

    name: str
    path: Path
    function: str

    @property
    def description(self) -> str:
        """Where the model comes from."""
        return f"{self.function} in {self.path}"

    def input_shape(self, image_shape: Shape) -> Shape:
        """Return the shape of the images."""
        return image_shape

    def build(self, classes: int, input_shape: Shape) -> nn.Module:
        """Import the file and call the function.

        Raises ModelError, chained to the user's own exception, when the file or the function is missing,
        when either raises, and when what is returned is no `nn.Module`.
        """
        from torch import nn

        if not self.path.is_file():
            raise ModelError(f"--model {self.name}: no file {self.path}")
        with _importable(self.path.parent):
            factory = self._factory(self._imported())
            model = self._called(factory, classes)
        if not isinstance(model, nn.Module):
            kind = type(model).__name__
            raise ModelError(f"{self.path}: {self.function}() returned {kind}, not a torch.nn.Module")
        return model

    def _imported(self) -> ModuleType:
        # Registered under a name of its own: dataclasses, pickling and tracing look modules up by name.
        digest = hashlib.sha256(str(self.path.resolve()).encode(errors="surrogateescape")).hexdigest()[:8]
        name = f"quant_explorer_user_{digest}_{self.path.stem}"
        spec = importlib.util.spec_from_file_location(name, self.path)
        if spec is None or spec.loader is None:
            raise ModelError(f"{self.path}: not a Python file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except (Exception, SystemExit) as error:
            del sys.modules[name]
            raise ModelError(f"{self.path}: importing it failed with {explain(error)}") from error
        return module

    def _factory(self, module: ModuleType) -> Factory:
        factory: Factory | None = getattr(module, self.function, None)
        if callable(factory):
            return factory
        own = [
            name
            for name, member in vars(module).items()
            if callable(member) and getattr(member, "__module__", None) == module.__name__
        ]
        found = f"It has: {', '.join(own)}." if own else "It has none."
        raise ModelError(f"{self.path}: no function {self.function!r}. {found}")

    def _called(self, factory: Factory, classes: int) -> object:
        try:
            if "num_classes" in inspect.signature(factory).parameters:
                return factory(num_classes=classes)
            return factory()
        except (Exception, SystemExit) as error:
            raise ModelError(f"{self.path}: {self.function}() failed with {explain(error)}") from error


def parse_user_model(name: str) -> UserModel | None:
    """Return the model that `name` (`path/to/file.py:function`) stands for, or None for any other name.

    Raises ModelError for the path of a Python file without a function.
    """
    path, _, function = name.rpartition(":")
    if path.endswith(".py") and function:
        return UserModel(name, Path(path).expanduser(), function)
    if name.rstrip(":").endswith(".py"):
        raise ModelError(f"--model {name}: the function is missing. Allowed: path/to/file.py:function.")
    return None


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    entry = str(folder.resolve())
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        if entry in sys.path:
            sys.path.remove(entry)
