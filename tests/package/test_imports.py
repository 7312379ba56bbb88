"""Imports point one way: modeling/ and generation/ are published and run without the rest; rooms have an order."""

import ast
import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# transformers cannot be installed without the last two, so code that needs them runs wherever transformers does.
THIRD_PARTY = {"torch", "transformers", "huggingface_hub", "safetensors"}
DEMO_ROOMS = ("world", "model", "making")  # each imports from itself and from those before it


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


def _imported_names(path: Path) -> set[str]:
    """Absolute names of all that a file imports: `from ..world import chart` is `hf_mmspec.demo.world.chart`."""
    package = ".".join(path.relative_to(ROOT).parent.parts)
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            names.update(f"{module}.{alias.name}" for alias in node.names)
    return names


def _names_in_room(room: str) -> set[str]:
    return set().union(*(_imported_names(path) for path in (ROOT / "hf_mmspec/demo" / room).glob("*.py")))


def test_demo_consists_of_its_rooms():
    assert {path.parent.name for path in (ROOT / "hf_mmspec/demo").glob("*/*.py")} == set(DEMO_ROOMS)
    assert [path.name for path in (ROOT / "hf_mmspec/demo").glob("*.py")] == ["__init__.py"]


@pytest.mark.parametrize("room", DEMO_ROOMS)
def test_a_room_of_the_demo_imports_from_no_later_one(room):
    allowed = tuple(f"hf_mmspec.demo.{name}." for name in DEMO_ROOMS[: DEMO_ROOMS.index(room) + 1])
    demo = [name for name in _names_in_room(room) if name.startswith("hf_mmspec.demo")]
    assert demo and not [name for name in demo if not name.startswith(allowed)]


def test_the_world_of_the_demo_needs_no_torch():
    assert not [name for name in _names_in_room("world") if name.startswith(("torch", "transformers"))]


def test_nothing_else_imports_the_making_of_the_demo():
    others = [path for path in (ROOT / "hf_mmspec").rglob("*.py") if path.parent.name != "making"]
    assert not [path for path in others if any("demo.making" in name for name in _imported_names(path))]
