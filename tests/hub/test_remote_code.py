"""The published loop is the package's own: the same statements, with imports of siblings only."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

from hf_mmspec.generation.custom_generate import own_repository
from hf_mmspec.hub.remote_code import flatten, loop_modules, remote_code
from hf_mmspec.modeling import FAMILIES

ROOT = Path(__file__).parents[2]
LOOP = {name: source.decode() for name, source in loop_modules().items()}
COMMIT = "0123456789" * 4


def without_imports(source: str) -> str:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        for field in ("body", "orelse", "finalbody"):
            if isinstance(getattr(node, field, None), list):
                kept = [part for part in getattr(node, field) if not isinstance(part, ast.Import | ast.ImportFrom)]
                setattr(node, field, kept)
    return ast.dump(tree)


def imported_names(source: str) -> set[str]:
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)]
    return {alias.asname or alias.name for node in nodes for alias in node.names}


@pytest.mark.parametrize("name", LOOP)
def test_a_published_module_is_its_source_but_for_where_it_imports_from(name):
    origin = re.match("# Made from hf_mmspec/(.*), where changes belong.\n", LOOP[name])[1]
    path = ROOT / origin if origin.startswith("modeling/") else ROOT / "hf_mmspec" / origin
    source = path.read_text()
    assert without_imports(LOOP[name]) == without_imports(source)
    assert imported_names(LOOP[name]) == imported_names(source)


@pytest.mark.parametrize("name", LOOP)
def test_published_modules_import_siblings_that_are_there_and_define_what_is_imported(name):
    for node in ast.walk(ast.parse(LOOP[name])):
        if isinstance(node, ast.ImportFrom) and node.level:
            assert node.level == 1
            defined = {part.name for part in ast.parse(LOOP[f"{node.module}.py"]).body if hasattr(part, "name")}
            assert {alias.name for alias in node.names} <= defined | imported_and_assigned(LOOP[f"{node.module}.py"])
        elif isinstance(node, ast.ImportFrom | ast.Import):
            names = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            assert not [name for name in names if name.startswith("hf_mmspec")]


def imported_and_assigned(source: str) -> set[str]:
    assigned = [node.targets[0] for node in ast.parse(source).body if isinstance(node, ast.Assign)]
    return imported_names(source) | {target.id for target in assigned if isinstance(target, ast.Name)}


def test_the_loop_is_reproducible_and_has_nothing_that_it_does_not_import():
    assert loop_modules() == loop_modules()
    assert {"generate.py", "loop.py", "strategy.py", "draft_tree.py"} <= LOOP.keys()
    assert not {"candidates.py", "__init__.py", "modeling_vispec.py", "row_drafter.py"} & LOOP.keys()


def test_requirements_are_the_lower_bounds_of_the_package():
    lines = remote_code(FAMILIES["eagle"][1])["custom_generate/requirements.txt"].decode().splitlines()
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert [line.partition(">=")[0] for line in lines] == ["torch", "transformers"]
    assert all(any(wanted.startswith(line) for wanted in declared) for line in lines)


@pytest.mark.parametrize(
    ("line", "flat"),
    [
        ("from .answer import Answer, StepStates as S", "from .answer import Answer, StepStates as S"),
        ("from ..modeling.binding import unwrap", "from .binding import unwrap"),
        (
            "from hf_mmspec.modeling.binding import (\n    unwrap,\n    borrow,\n)",
            "from .binding import unwrap, borrow",
        ),
        (
            "from hf_mmspec.modeling import DraftTree, Drafter as D",
            "from .draft_tree import DraftTree\nfrom .modeling_drafter import Drafter as D",
        ),
        ("def late():\n    from hf_mmspec.generation.loop import walk", "def late():\n    from .loop import walk"),
        ("import torch", "import torch"),
    ],
)
def test_flat_imports(tmp_path, line, flat):
    (tmp_path / "module.py").write_text(f'"""Doc."""\n{line}\nx = 1\n')
    source, _ = flatten(tmp_path / "module.py")
    assert source.endswith(f'"""Doc."""\n{flat}\nx = 1\n')


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("import hf_mmspec.modeling", "line 1: write `from hf_mmspec"),
        ("from hf_mmspec.modeling import FAMILIES", "no module of modeling/ defines FAMILIES"),
        ("from hf_mmspec.data.rows import x", "reaches for what is not published"),
        ("from ..hub import convert", "reaches for what is not published"),
    ],
)
def test_an_import_that_cannot_be_flat_is_an_error(tmp_path, line, message):
    (tmp_path / "module.py").write_text(line)
    with pytest.raises(ValueError, match=message):
        flatten(tmp_path / "module.py")


@pytest.mark.parametrize(
    ("module", "repository"),
    [
        ("org.name", "org/name"),
        ("my_hyphen_org.vispec_hyphen_1_dot_5_hyphen_7b", "my-org/vispec-1.5-7b"),
        ("_01_hyphen_ai._7b", "01-ai/7b"),
        ("_private._x", "_private/_x"),
        ("single", "single"),
    ],
)
def test_a_repository_is_known_by_its_modules_name(module, repository):
    name = f"transformers_modules.{module}.{COMMIT}.custom_generate.generate"
    assert own_repository(name) == (repository, COMMIT)


def test_a_local_folder_is_not():
    with pytest.raises(ValueError, match="pass the folder as assistant_model"):
        own_repository("transformers_modules.folder.0123456789abcdef.custom_generate.generate")
