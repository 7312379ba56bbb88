"""Imports point one way, since modeling/ and generation/ are published and must run without hf_mmspec installed."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# transformers cannot be installed without the last two, so code that needs them runs wherever transformers does.
THIRD_PARTY = {"torch", "transformers", "huggingface_hub", "safetensors"}


def _imports(path: Path) -> set[str]:
    """Absolute module names that a file imports, at any depth; a relative import is `.` plus its module."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.add("." * node.level + (node.module or ""))
    return names


def _is_outside(name: str) -> bool:
    return name.split(".")[0] not in THIRD_PARTY | set(sys.stdlib_module_names)


def _is_sibling(name: str) -> bool:
    """`.module`, one dot: the folder is flat on the Hub."""
    return name.startswith(".") and not name.startswith("..")


@pytest.mark.parametrize("path", sorted((ROOT / "modeling").glob("*.py")), ids=lambda path: path.name)
def test_modeling_imports_torch_transformers_and_siblings(path):
    assert not [name for name in _imports(path) if not _is_sibling(name) and _is_outside(name)]


@pytest.mark.parametrize("path", sorted((ROOT / "hf_mmspec/generation").glob("*.py")), ids=lambda path: path.name)
def test_generation_imports_torch_transformers_siblings_and_modeling(path):
    foreign = [name for name in _imports(path) if not _is_sibling(name) and _is_outside(name)]
    allowed = ("hf_mmspec.modeling", "hf_mmspec.generation")
    assert not [name for name in foreign if not name.startswith(allowed) and name != "..modeling"]


def test_modeling_folder_is_flat():
    assert not [path for path in (ROOT / "modeling").iterdir() if path.is_dir() and path.name != "__pycache__"]
