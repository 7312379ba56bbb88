"""The code that travels with a drafter, made from this package: its family's modules, and the loop as a whole.

Files are found by their imports. transformers fetches a module's siblings and nothing else, so everything is flat;
knows neither weights nor the Hub.
"""

import ast
import importlib.metadata
import sys
from pathlib import Path

from packaging.requirements import Requirement
from transformers.dynamic_module_utils import get_relative_import_files

from .. import generation, modeling
from ..modeling import Drafter

FOLDER = "custom_generate"
_PACKAGE = __name__.partition(".")[0]
_MODELING, _GENERATION = Path(modeling.__file__), Path(generation.__file__)
# the module that `generate(custom_generate=repo)` calls, and the name that it has to have there
_ENTRY, _ENTRY_THERE = "custom_generate", "generate"
_CHECKED_PACKAGES = ("torch", "transformers")


def remote_code(drafter_class: type[Drafter]) -> dict[str, bytes]:
    """All code of a drafter's repository, by path: what `AutoModel.from_pretrained(repo, trust_remote_code=True)` and
    `target.generate(custom_generate=repo, trust_remote_code=True)` need where hf_mmspec is not installed."""
    loop = {f"{FOLDER}/{name}": source for name, source in loop_modules().items()}
    return {**drafter_modules(drafter_class), **loop, f"{FOLDER}/requirements.txt": _requirements()}


def drafter_modules(drafter_class: type[Drafter]) -> dict[str, bytes]:
    """The modules of one family, by file name, as they are: those that its class imports, directly or not."""
    module = str(sys.modules[drafter_class.__module__].__file__)
    files = {Path(file) for file in [module, *get_relative_import_files(module)]}
    return {file.name: file.read_bytes() for file in sorted(files)}


def loop_modules() -> dict[str, bytes]:
    """The loop by file name: `generate.py` and what it imports of `generation/` and `modeling/`, side by side.

    Raises:
        ValueError: two modules would have the same name there, or an import cannot be written flat.
    """
    found: dict[str, bytes] = {}
    waiting = [_GENERATION.with_name(f"{_ENTRY}.py")]
    origins: dict[str, Path] = {}
    while waiting:
        file = waiting.pop()
        name = _name_there(file)
        if origins.setdefault(name, file) != file:
            raise ValueError(f"{file} and {origins[name]} would both be {FOLDER}/{name}: rename one")
        if name not in found:
            source, imported = flatten(file)
            found[name] = source.encode()
            waiting += imported
    return dict(sorted(found.items()))


def flatten(file: Path) -> tuple[str, list[Path]]:
    """A module's source with its imports of this package as imports of siblings, and the files that it imports."""
    source = file.read_text(encoding="utf-8")
    lines = source.splitlines()
    imported: list[Path] = []
    statements = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Import | ast.ImportFrom)]
    for node in sorted(statements, key=lambda node: -node.lineno):  # from the end, so that line numbers stay true
        siblings = _siblings(file, node)
        if siblings:
            indent = " " * node.col_offset
            lines[node.lineno - 1 : node.end_lineno] = [
                f"{indent}from .{other.stem} import {', '.join(map(ast.unparse, names))}"
                for other, names in siblings.items()
            ]
            imported += siblings
    origin = f"{_PACKAGE}/{file.parent.name}/{file.name}"
    return "\n".join([f"# Made from {origin}, where changes belong.", *lines]) + "\n", imported


def _siblings(file: Path, node: ast.Import | ast.ImportFrom) -> dict[Path, list[ast.alias]]:
    """What a statement imports from this package: names by the file that defines them. Nothing for other packages."""
    if isinstance(node, ast.Import):
        if any(alias.name.partition(".")[0] == _PACKAGE for alias in node.names):
            raise ValueError(f"{file}, line {node.lineno}: write `from {_PACKAGE}... import ...`")
        return {}
    module = node.module or ""
    if node.level == 1 and module:
        return {file.with_name(f"{module}.py"): node.names}
    if node.level == 0 and module.partition(".")[0] != _PACKAGE:
        return {}
    inside = module.removeprefix(f"{_PACKAGE}.") if node.level == 0 else module
    if inside == "modeling":
        homes = _homes(_MODELING)
        found: dict[Path, list[ast.alias]] = {}
        for alias in node.names:
            if alias.name not in homes:
                raise ValueError(f"{file}, line {node.lineno}: no module of modeling/ defines {alias.name}")
            found.setdefault(homes[alias.name], []).append(alias)
        return found
    room, _, name = inside.partition(".")
    if room not in ("modeling", "generation") or not name or "." in name:
        raise ValueError(f"{file}, line {node.lineno}: {ast.unparse(node)} reaches for what is not published")
    return {(_MODELING if room == "modeling" else _GENERATION).with_name(f"{name}.py"): node.names}


def _homes(package: Path) -> dict[str, Path]:
    """Where the names come from that a package's `__init__.py` imports from its modules."""
    statements = ast.parse(package.read_text(encoding="utf-8")).body
    imports = [node for node in statements if isinstance(node, ast.ImportFrom) and node.level == 1]
    return {alias.name: package.with_name(f"{node.module}.py") for node in imports for alias in node.names}


def _name_there(file: Path) -> str:
    is_entry = file == _GENERATION.with_name(f"{_ENTRY}.py")
    return f"{_ENTRY_THERE if is_entry else file.stem}.py"


def _requirements() -> bytes:
    """Lower bounds of this package's own requirements, in the form that transformers checks before it runs code."""
    lines = []
    for requirement in map(Requirement, importlib.metadata.requires("hf-mmspec") or ()):
        if requirement.name in _CHECKED_PACKAGES:
            lines += [f"{requirement.name}{bound}" for bound in requirement.specifier if bound.operator == ">="]
    return "".join(f"{line}\n" for line in sorted(lines)).encode()
