"""Exported programs as `.pt2` files: read without running code of theirs.

`torch.export.load` unpickles what is no plain tensor, loads compiled libraries, gives text to SymPy's parser,
which evaluates it, and looks operators up by name in all of `torch`. So a file is checked first, and PyTorch
is given a new archive of what was checked: the graph without its comments, and the bytes of its weights.
Source of the format: PyTorch, "PT2 Archive Spec",
https://docs.pytorch.org/docs/2.9/export/pt2_archive.html.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import torch
from torch.export import ExportedProgram

from quant_explorer.core.errors import ModelError, explain

SUFFIX: Final = ".pt2"
_MODEL: Final = "models/model.json"
_WEIGHTS: Final = "data/weights/model_weights_config.json"
_CONSTANTS: Final = "data/constants/model_constants_config.json"
_INPUTS: Final = "data/sample_inputs/model.pt"
_EXTRA: Final = "extra/"
# Of each archive, without its first folder.
_PLAIN: Final = re.compile(
    r"archive_format|archive_version|byteorder|version|\.data/(version|serialization_id|alignment)"
    rf"|data/weights/(weight_\d+|model_weights_config\.json)|{re.escape(_MODEL)}|{re.escape(_INPUTS)}"
    r"|data/constants/(tensor_\d+|model_constants_config\.json)|extra/[\w.]+"
)
_ATEN: Final = re.compile(r"torch\.ops\.aten\.\w+\.\w+")
_ARITHMETIC: Final = re.compile(
    r"(_operator\.(add|sub|mul|floordiv|truediv|mod|neg|pow|getitem|eq|ne|lt|le|gt|ge|and_|or_|not_)"
    r"|math\.(ceil|floor|trunc|sqrt)|torch\.sym_(int|float|max|min|not|ite|sum))"
)
_NESTED: Final = tuple(f"torch.ops.higher_order.{name}" for name in ("cond", "wrap_with_set_grad_enabled"))
# Sizes as sums and products of symbols, as SymPy's srepr and str write them.
_NAMES_IN_SIZES: Final = re.compile(
    r"[su]\d+|zuf\d+|Symbol|Integer|Add|Mul|Pow|Max|Min|Mod|FloorDiv|CleanDiv|CeilDiv|PythonMod|positive|integer"
    r"|nonnegative|True|False|Eq|Ne|Lt|Le|Gt|Ge|Equality|Unequality|StrictLessThan|LessThan|StrictGreaterThan"
    r"|GreaterThan|And|Or|Not"
)
_WORD: Final = re.compile(r"[A-Za-z_]\w*")
_SIZE_CHARACTERS: Final = re.compile(r"[\w\s'()+\-*/,=<>]*")
_QUALIFIED: Final = re.compile(r"\w+(\.\w+)*")
_CONTAINERS: Final = {"builtins.tuple", "builtins.list", "builtins.dict"}
# What else has a name in PyTorch and would be looked up, compiled or unpickled.
_REFUSED_KINDS: Final = ("as_custom_obj", "as_operator", "as_opaque_obj")
_ADVICE: Final = "Allowed: what torch.export.save writes of a model of PyTorch's own operators"


def write_program(program: ExportedProgram, path: Path) -> None:
    """Write `program` for `read_program`, without the example it was captured with and without comments."""
    buffer = io.BytesIO()
    example, program._example_inputs = program._example_inputs, None
    try:
        torch.export.save(program, buffer)
    finally:
        program._example_inputs = example
    with zipfile.ZipFile(buffer) as archive:
        entries = {item.filename.partition("/")[2]: archive.read(item) for item in archive.infolist()}
    model = json.loads(entries[_MODEL])
    _clean(model)
    path.write_bytes(_archive({**entries, _MODEL: json.dumps(model).encode()}).getvalue())


def read_program(path: Path) -> tuple[ExportedProgram, Mapping[str, str]]:
    """Return the program in `path`, and the texts saved beside it (`extra_files`) by name.

    Raises ModelError for a file that is none or of another version, and for one that holds what could run
    code: a pickle of more than tensors, compiled code, other operators than PyTorch's, odd names and sizes.
    """
    try:
        return _read(path)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror or explain(error)})") from error


def _read(path: Path) -> tuple[ExportedProgram, Mapping[str, str]]:
    try:
        entries = dict(_entries(path))
        for config in (_WEIGHTS, _CONSTANTS):
            _check_payloads(path, json.loads(entries[config]))
        model = json.loads(entries[_MODEL])
    except zipfile.BadZipFile as error:
        raise ModelError(f"{path}: not an exported program, or damaged ({explain(error)})") from error
    except KeyError as error:
        raise ModelError(
            f"{path}: not an exported program of PyTorch {torch.__version__}, for it has no {error}. "
            "Save it again: torch.export.save(program, path)."
        ) from error
    except ValueError as error:
        raise ModelError(f"{path}: not an exported program, or damaged ({explain(error)})") from error
    _check_inputs(path, entries[_INPUTS])
    _clean(model)
    for where, key, text in _texts(model):
        _check_text(path, where, key, text)
    entries[_MODEL] = json.dumps(model).encode()
    extra = {
        name.removeprefix(_EXTRA): content.decode(errors="replace")
        for name, content in entries.items()
        if name.startswith(_EXTRA)
    }
    try:
        return torch.export.load(_archive(entries)), extra
    except Exception as error:  # deserialization asserts and looks things up in many ways
        raise ModelError(f"{path}: PyTorch {torch.__version__} cannot read it ({explain(error)})") from error


def _entries(path: Path) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(path) as archive:
        for item in archive.infolist():
            name = item.filename.partition("/")[2]
            if not _PLAIN.fullmatch(name):
                raise ModelError(
                    f"{path}: holds {item.filename}, which could run code, so it is refused. {_ADVICE}."
                )
            # PyTorch stores; what is packed could be of any size.
            if item.compress_type != zipfile.ZIP_STORED:
                raise ModelError(f"{path}: {item.filename} is compressed. {_ADVICE}.")
            yield name, archive.read(item)


def _archive(entries: Mapping[str, bytes]) -> io.BytesIO:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in entries.items():
            if not name.startswith(_EXTRA):
                # With the time of writing in it, equal programs would be different files.
                archive.writestr(zipfile.ZipInfo(f"model/{name}"), content)
    buffer.seek(0)
    return buffer


def _check_payloads(path: Path, config: Mapping[str, Mapping[str, Mapping[str, object]]]) -> None:
    for name, payload in config["config"].items():
        if payload["use_pickle"] or not _QUALIFIED.fullmatch(name):
            raise ModelError(f"{path}: the tensor {name!r} is pickled or oddly named. {_ADVICE}.")


def _check_inputs(path: Path, content: bytes) -> None:
    if not content:
        return
    try:
        torch.load(io.BytesIO(content), weights_only=True)
    except Exception as error:  # a pickle made to break the reader may raise anything
        raise ModelError(
            f"{path}: its example inputs are no plain tensors, and loading them could run code, so it is "
            f"refused. {_ADVICE}."
        ) from error


def _clean(value: object) -> None:
    """Drop comments (stack traces, names of classes) and guards, which are Python code as text."""
    if isinstance(value, dict):
        for key in ("metadata", "treespec_namedtuple_fields"):
            if key in value:
                value[key] = {}
        if "guards_code" in value:
            value["guards_code"] = []
        for inner in value.values():
            _clean(inner)
    elif isinstance(value, list):
        for inner in value:
            _clean(inner)


def _texts(value: object, where: str = "", key: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield each text, and each key of a dict, with what it is under and the one above that."""
    if isinstance(value, str):
        yield where, key, value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield key, "", name
            if name in _REFUSED_KINDS and inner is not None:
                yield key, name, ""
            yield from _texts(inner, key, name)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner, where, key)


def _check_text(path: Path, where: str, key: str, text: str) -> None:
    problem = _find_problem(where, key, text)
    if problem:
        raise ModelError(f"{path}: {problem}. {_ADVICE}.")


def _find_problem(where: str, key: str, text: str) -> str | None:
    """Return what is wrong with a text of the graph, which is under `key` under `where`."""
    if key in ("as_string", "as_strings", "torch_version", "verifiers"):
        # Arguments of operators, which PyTorch writes with quotes, and what only describes.
        return None
    if key in _REFUSED_KINDS:
        return f"it holds an object of another kind ({key})"
    if key == "target":
        return None if _is_operator(text) else f"it calls {text!r}, which is no operator of a model"
    if key == "expr_str":
        return None if _is_size(text) else f"{text!r} is no size of a tensor"
    if key in ("in_spec", "out_spec"):
        kinds = set(re.findall(r'"type":\s*"([^"]*)"', text)) - _CONTAINERS
        return f"it takes or returns {', '.join(sorted(kinds))}" if kinds else None
    if (where, key) == ("device", "type") and text != "cpu":
        return f"its tensors are on {text!r}, not on the CPU"
    # Names end up in Python code that PyTorch writes.
    return f"the name {text!r} could be code" if text and not _QUALIFIED.fullmatch(text) else None


def _is_operator(target: str) -> bool:
    if _ARITHMETIC.fullmatch(target) or target in _NESTED:
        return True
    return _ATEN.fullmatch(target) is not None and _opens_no_file(target)


def _is_size(text: str) -> bool:
    words = _WORD.findall(text)
    return _SIZE_CHARACTERS.fullmatch(text) is not None and all(map(_NAMES_IN_SIZES.fullmatch, words))


def _opens_no_file(target: str) -> bool:
    operator: object = torch
    for part in target.split(".")[1:]:
        operator = getattr(operator, part, None)
    schema = getattr(operator, "_schema", None)
    return schema is not None and not any("file" in argument.name for argument in schema.arguments)
