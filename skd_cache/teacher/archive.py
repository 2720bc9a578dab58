"""What a .pt2 file holds, looked at before torch reads it.

``torch.export.load`` unpickles some parts of a file, evaluates others as Python expressions and
imports modules that it names. What could so run code is refused here; weights as plain bytes,
operators of torch and arithmetic of sizes, which is all a network needs, pass.
"""

import ast
import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from skd_cache.errors import InputError

_CONFIGS = ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json")
_GRAPH = "models/model.json"
_SAMPLES = "data/sample_inputs/model.pt"
_PLAIN = re.compile(
    r"data/(weights/weight_\d+|constants/tensor_\d+)|extra/.*|archive_\w+|byteorder|\.data/\w+"
)
_ARITHMETIC = "getitem|add|sub|mul|truediv|floordiv|mod|neg|pow|abs|eq|ne|lt|le|gt|ge|and_|or_|not_"
_OPERATOR = re.compile(
    r"torch\.ops\.(aten|prims|torchvision|quantized_decomposed)\.(?!__)\w+\.(?!_)\w+"
    r"|torch\.ops\.higher_order\.(wrap_with_set_grad_enabled|wrap_with_autocast|cond)"
    rf"|_operator\.({_ARITHMETIC})|math\.[a-z]\w*|torch\.(_sym_\w+|sym_\w+)"
)
_OPENS_FILES = re.compile(r"torch\.ops\.aten\.(from_file|save)\b.*")
# Names go into Python source that torch writes and runs.
_NAME = re.compile(r"[\w.@:/+ -]*")
_VARIABLE = re.compile(r"\w*")
_VARIABLES = ("name", "forward_arg_names")
_ANY_TEXT = ("as_string", "guards_code")  # the one quoted there, the other never used by us
_TREES = (None, "builtins.tuple", "builtins.list", "builtins.dict")
_SYMBOL = re.compile(r"[a-z]{1,3}\d+")  # s77, u0
_FUNCTION = re.compile(r"[A-Z]\w*|true|false|oo|int_oo")
_SIZE = (
    *(ast.Expression, ast.Call, ast.Name, ast.Load, ast.Constant, ast.keyword, ast.BinOp),
    *(ast.UnaryOp, ast.Compare, ast.operator, ast.unaryop, ast.cmpop),
)


def vet(path: Path) -> None:
    """See that reading the file with ``torch.export.load`` runs nothing but torch's own code.

    Raises:
        InputError: it is no such file, or holds what could run other code.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            _vet_members(path, _members(path, archive), archive)
    except InputError:
        raise
    except Exception as error:  # what zipfile and json make of any bytes at all
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        raise _not_one(path, reason) from error


def _members(path: Path, archive: zipfile.ZipFile) -> dict[str, str]:
    """Full names by what follows the first slash, each name once."""
    full = archive.namelist()
    names = {name.partition("/")[2]: name for name in full}
    if len(names) != len(full) or len({name.partition("/")[0] for name in full}) != 1:
        raise _not_one(path, "its entries are not those of one folder")
    if "archive_version" not in names or _GRAPH not in names:
        raise _not_one(path, f"it has no {_GRAPH}")
    return names


def _vet_members(path: Path, names: dict[str, str], archive: zipfile.ZipFile) -> None:
    for name in names:
        if name not in (*_CONFIGS, _GRAPH, _SAMPLES) and not _PLAIN.fullmatch(name):
            raise _unsafe(path, f"the entry '{name}'")
    for config in _CONFIGS:
        for tensor, told in json.loads(archive.read(names[config]))["config"].items():
            place = f"{config.rpartition('/')[0]}/{told['path_name']}"
            if told["use_pickle"] or not _PLAIN.fullmatch(place):
                raise _unsafe(path, f"'{tensor}', which is not stored as plain bytes,")
    if _SAMPLES in names and (samples := archive.read(names[_SAMPLES])):
        try:
            torch.load(io.BytesIO(samples), weights_only=True)
        except Exception as error:
            raise _unsafe(path, "sample inputs that are not plain tensors") from error
    for key, text in _entries(json.loads(archive.read(names[_GRAPH]))):
        _vet_text(path, key, text)


def _entries(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Every text of a JSON document with the key it is under, and every key as a text of none.

    What torch remembers for its own messages, texts under ``metadata``, is left out.
    """
    if isinstance(value, dict):
        for name, inner in value.items():
            yield "", name
            told = isinstance(inner, dict) and all(isinstance(one, str) for one in inner.values())
            if name != "metadata" or not told:  # a tensor may bear that name too
                yield from _entries(inner, name)
    elif isinstance(value, list):
        for inner in value:
            yield from _entries(inner, key)
    elif isinstance(value, str):
        yield key, value


def _vet_text(path: Path, key: str, text: str) -> None:
    if key in ("target", "as_operator"):
        if not _OPERATOR.fullmatch(text) or _OPENS_FILES.fullmatch(text):
            raise _unsafe(path, f"the operator '{text}'")
    elif key == "expr_str":
        if not _is_size(text):
            raise _unsafe(path, f"the size '{text}'")
    elif key in ("in_spec", "out_spec"):
        if not _is_plain_tree(json.loads(text)[1]):
            raise _unsafe(path, "inputs or outputs of other types than tuples, lists and dicts")
    elif key not in _ANY_TEXT:
        wanted = _VARIABLE if key in _VARIABLES else _NAME
        if not wanted.fullmatch(text):
            raise _unsafe(path, f"the name '{text}'")


def _is_size(text: str) -> bool:
    """Whether an expression is a call of sympy's classes on symbols and numbers."""
    for node in ast.walk(ast.parse(text.strip(), mode="eval")):
        if not isinstance(node, _SIZE):
            return False
        if isinstance(node, ast.Name) and not (
            _FUNCTION.fullmatch(node.id) or _SYMBOL.fullmatch(node.id)
        ):
            return False
        if isinstance(node, ast.Constant):
            symbol = isinstance(node.value, str) and _SYMBOL.fullmatch(node.value)
            if not symbol and not isinstance(node.value, int | float):
                return False
    return True


def _is_plain_tree(spec: Any) -> bool:
    """Whether a torch.utils._pytree specification is of Python's own containers with text keys."""
    context = json.loads(spec["context"]) if spec["context"] else None
    keys = context is None or all(isinstance(key, str) for key in context)
    return spec["type"] in _TREES and keys and all(map(_is_plain_tree, spec["children_spec"]))


def _unsafe(path: Path, what: str) -> InputError:
    return InputError(f"'{path}' holds {what} and reading that could run code: it is not read.")


def _not_one(path: Path, reason: str) -> InputError:
    return InputError(
        f"'{path}' cannot be read as a program saved with torch.export.save: {reason}."
    )
