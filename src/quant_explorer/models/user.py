"""A user's own model: `path/to/file.py:function` or `package.module:function`."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, TypeVar

from quant_explorer.core.data.preprocessing import Preprocessing
from quant_explorer.core.errors import ModelError, SettingsError, explain
from quant_explorer.models.architecture import Shape

if TYPE_CHECKING:
    from torch import nn

Factory = Callable[..., object]
T = TypeVar("T")

# The function (or dict) of the user's file that says what an image must be like.
PREPROCESSING = "preprocessing"
# Folder of each module that a user's file imported from beside it.
_beside: dict[str, str] = {}


@dataclass(frozen=True)
class UserModel:
    """A function (or class) in a Python file that returns an `nn.Module`.

    It is called without arguments, or with `num_classes` when it has a parameter of that name. While it
    is imported and called, its folder can be imported from, as when Python runs the file; relative imports
    work too. `path` is None for `module`, which is imported by its name.
    """

    name: str
    path: Path | None
    function: str
    module: str = ""

    @property
    def description(self) -> str:
        """Where the model comes from."""
        return f"{self.function} in {self.where}"

    @property
    def where(self) -> str:
        """The file or the module, for messages."""
        return str(self.path or self.module)

    def input_shape(self, image_shape: Shape) -> Shape:
        """Return the shape of the images."""
        return image_shape

    def build(self, classes: int, input_shape: Shape) -> nn.Module:
        """Import the file and call the function.

        Raises ModelError, chained to the user's own exception, when the file or the function is missing,
        when either raises, and when what is returned is no `nn.Module`.
        """
        from torch import nn

        with self._imported() as module:
            factory = self._factory(module)
            model = self._called(factory, classes)
        while isinstance(inner := _wrapped(model), nn.Module):
            model = inner
        if not isinstance(model, nn.Module):
            kind = type(model).__name__
            raise ModelError(f"{self.where}: {self.function}() returned {kind}, not a torch.nn.Module")
        _unwrap_parts(model)
        return model

    def preprocessing(self) -> Preprocessing:
        """Return what `preprocessing` of the user's file asks for: a dict, or a function that returns it.

        Its keys are the fields of `Preprocessing`. Raises ModelError for anything else.
        """
        with self._imported() as module:
            asked: object = getattr(module, PREPROCESSING, None)
            if callable(asked):
                asked = self._called(asked, 0)
        return read_preprocessing(asked, f"{self.where}: {PREPROCESSING}")

    @contextmanager
    def _imported(self) -> Iterator[ModuleType]:
        folders = (Path.cwd(),) if self.path is None else _folders(self.path)
        with _importable(*folders):
            yield self._module

    @cached_property
    def _module(self) -> ModuleType:
        """The file, which runs once for its model and what it says of images."""
        if self.path is None:
            return self._run(lambda: importlib.import_module(self.module))
        if not self.path.is_file():
            raise ModelError(f"--model {self.name}: no file {self.path}")
        return self._from_file(self.path.resolve(), *_folders(self.path))

    def _from_file(self, path: Path, folder: Path, root: Path) -> ModuleType:
        # Dataclasses, pickling and tracing look modules up by name, relative imports by that of the package.
        digest = hashlib.sha256(str(root).encode(errors="surrogateescape")).hexdigest()[:8]
        package = f"quant_explorer_user_{digest}"
        if package not in sys.modules:
            holder = ModuleType(package)
            holder.__path__ = [str(root)]
            sys.modules[package] = holder
        parent = ".".join((package, *folder.relative_to(root).parts))
        if parent != package:
            self._run(lambda: importlib.import_module(parent))
        name = f"{parent}.{path.stem}"
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise ModelError(f"{path}: not a Python file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        loader = spec.loader
        try:
            self._run(lambda: loader.exec_module(module))
        except ModelError:
            del sys.modules[name]
            raise
        return module

    def _run(self, load: Callable[[], T]) -> T:
        try:
            return load()
        except (Exception, SystemExit) as error:
            raise ModelError(
                f"{self.where}: importing it failed with {explain(error)}{self._line(error)}"
            ) from error

    def _factory(self, module: ModuleType) -> Factory:
        from torch import nn

        factory: Factory | None = getattr(module, self.function, None)
        if isinstance(factory, nn.Module):
            raise ModelError(
                f"{self.where}: {self.function} is a module, whose weights would not follow from --seed. "
                f"Allowed: a function or a class; def build(): return {type(factory).__name__}(...)."
            )
        if callable(factory):
            return factory
        own = [
            name
            for name, member in vars(module).items()
            if callable(member) and getattr(member, "__module__", None) == module.__name__
        ]
        found = f"It has: {', '.join(own)}." if own else "It has none."
        raise ModelError(f"{self.where}: no function {self.function!r}. {found}")

    def _called(self, factory: Factory, classes: int) -> object:
        try:
            if "num_classes" in inspect.signature(factory).parameters:
                return factory(num_classes=classes)
            return factory()
        except (Exception, SystemExit) as error:
            name = getattr(factory, "__name__", self.function)
            raise ModelError(
                f"{self.where}: {name}() failed with {explain(error)}{self._line(error)}"
            ) from error

    def _line(self, error: BaseException) -> str:
        """Name the last line that an error passed through of the user's files, not of what is installed."""
        folder = Path.cwd() if self.path is None else _folders(self.path)[1]
        frames = [
            frame
            for frame in traceback.extract_tb(error.__traceback__)
            if Path(frame.filename).is_relative_to(folder) and "site-packages" not in frame.filename
        ]
        return f", at {frames[-1].filename}:{frames[-1].lineno}: {frames[-1].line}" if frames else ""


def _wrapped(model: object) -> object:
    """Return the module that torch.compile or DataParallel wraps, which computes the same; else None."""
    from torch import nn

    return model.module if isinstance(model, nn.DataParallel) else getattr(model, "_orig_mod", None)


def _unwrap_parts(model: nn.Module) -> None:
    from torch import nn

    for module in list(model.modules()):
        # What module.compile() leaves behind; None where it was not called.
        module._compiled_call_impl = None
        compiled = getattr(type(module).forward, "_torchdynamo_orig_callable", None)
        if compiled is not None:
            type(module).forward = compiled
        for name, child in list(module.named_children()):
            while isinstance(inner := _wrapped(child), nn.Module):
                child = inner
            setattr(module, name, child)


def _folders(path: Path) -> tuple[Path, Path]:
    """Return the folder of a file, and that which the outermost package around it is in."""
    folder = path.resolve().parent
    root = next(parent for parent in (folder, *folder.parents) if not (parent / "__init__.py").exists())
    return folder, root


def read_preprocessing(content: object, where: str) -> Preprocessing:
    """Return what a user's dict asks for, nothing for None; raises ModelError naming `where`."""
    if content is None:
        return Preprocessing()
    if not isinstance(content, Mapping):
        raise ModelError(f"{where} is a {type(content).__name__}. Expected: a dict, or a function giving it.")
    try:
        return Preprocessing.of(content, where)
    except SettingsError as error:
        raise ModelError(explain(error)) from error


def parse_user_model(name: str) -> UserModel | None:
    """Return the model that `name` stands for, or None when it is neither a Python file nor a module.

    Raises ModelError for the path of a Python file without a function.
    """
    path, _, function = name.rpartition(":")
    if path.endswith(".py") and function:
        return UserModel(name, Path(path).expanduser(), function)
    if name.rstrip(":").endswith(".py"):
        raise ModelError(f"--model {name}: the function is missing. Allowed: path/to/file.py:function.")
    parts = path.split(".")
    if function and all(part.isidentifier() for part in parts) and _is_module(parts[0]):
        return UserModel(name, None, function, module=path)
    return None


def _is_module(name: str) -> bool:
    return PathFinder.find_spec(name, [str(Path.cwd()), *sys.path]) is not None


@contextmanager
def _importable(*folders: Path) -> Iterator[None]:
    entries = [str(folder.resolve()) for folder in dict.fromkeys(folders)]
    # Another user's file may have imported a module of the same name from beside it.
    for name, folder in list(_beside.items()):
        if folder not in entries:
            sys.modules.pop(name, None)
            del _beside[name]
    before = set(sys.modules)
    sys.path[:0] = entries
    importlib.invalidate_caches()
    try:
        yield
    finally:
        for entry in entries:
            if entry in sys.path:
                sys.path.remove(entry)
        _beside.update(_loaded_from(entries, before))


def _loaded_from(entries: list[str], before: set[str]) -> Iterator[tuple[str, str]]:
    for name in sys.modules.keys() - before:
        file = getattr(sys.modules[name], "__file__", None)
        if not isinstance(file, str) or name.startswith("quant_explorer_user_"):
            continue
        for entry in entries:
            if Path(file).is_relative_to(entry):
                yield name, entry
                break
