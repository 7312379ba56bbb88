"""What a drafter's folder becomes on the Hub: which files, from where, how large, and what stays behind and why.

Everything that can be wrong with a folder is found here; reads no weights and sends nothing.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError

from ..modeling import FAMILIES, Drafter, DrafterLoadError
from ..modeling.strict_loading import check_weight_files
from .card import make_card
from .card_facts import bench_files
from .checkpoint import Checkpoint, open_checkpoint
from .errors import ConversionError, PublishError
from .plan import expected_tensors
from .remote_code import remote_code

CARD = "README.md"
_CONFIG, _WHOLE, _INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
_ALWAYS = (CARD, "generation_config.json", "training.json", "conversion.json")
# What a card may show beside itself (pictures, measurements, answers) goes along up to this size.
_SHOWN_BY_THE_CARD = (".csv", ".jpg", ".json", ".jsonl", ".md", ".png", ".svg", ".yaml")
_LARGEST_SHOWN = 2**20


@dataclass(frozen=True)
class PublishedFile:
    """One file: its path in the repository, and a file here or the bytes themselves."""

    path: str
    content: Path | bytes

    @property
    def nbytes(self) -> int:
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size


@dataclass(frozen=True)
class Publication:
    """All files of a repository, weights first, and the folder's other files with the reason why they stay here."""

    files: tuple[PublishedFile, ...]
    left_out: dict[str, str]

    @property
    def nbytes(self) -> int:
        return sum(file.nbytes for file in self.files)

    @property
    def paths(self) -> set[str]:
        return {file.path for file in self.files}


def plan_publication(folder: str | Path, needs_card: bool = True, repo_id: str | None = None) -> Publication:
    """Decide what of a drafter's folder is published.

    Args:
        folder: as `save_pretrained`, `mmspec train` and `mmspec convert` write it.
        repo_id: where it goes: a card that `mmspec card` made then loads the drafter from there.
        needs_card: whether a missing README.md is an error.

    Raises:
        PublishError: a link leaves the folder, config.json is no drafter's, weights are missing, corrupt, not in
            safetensors or not those of config.json, or there is no card.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise PublishError(f"{folder} is no folder: give the one that the drafter was saved in")
    _check_links(folder)
    if needs_card and not (folder / CARD).is_file():
        raise PublishError(f"{folder} has no {CARD}, by which others find and judge a drafter: write its card first")
    checkpoint = _open(folder)
    drafter_class = _check_weights(checkpoint)
    weights = [*checkpoint.files, *([folder / _INDEX] if len(checkpoint.files) > 1 else [])]
    files = [PublishedFile(file.name, file) for file in weights]
    files.append(PublishedFile(_CONFIG, _config_with_map(folder / _CONFIG, drafter_class)))
    files += [PublishedFile(name, folder / name) for name in _ALWAYS if (folder / name).is_file()]
    files += [PublishedFile(file.name, file) for file in bench_files(folder)]
    if repo_id is not None and _is_made_card(folder):
        card = PublishedFile(CARD, str(make_card(folder, name=repo_id)).encode())
        files = [card if file.path == CARD else file for file in files]
    shown = _shown_by_the_card(folder, checkpoint.readme)
    files += [PublishedFile(name, folder / name) for name in shown if name not in {file.path for file in files}]
    files += [PublishedFile(name, source) for name, source in remote_code(drafter_class).items()]
    return Publication(tuple(files), _left_out(folder, {file.path for file in files}, checkpoint.readme))


def _is_made_card(folder: Path) -> bool:
    """Whether the card is what `mmspec card` makes of the folder, and not somebody's own words."""
    try:
        return (folder / CARD).is_file() and (folder / CARD).read_text(encoding="utf-8") == str(make_card(folder))
    except ValueError:  # a folder that no card can be made of
        return False


def _check_links(folder: Path) -> None:
    root = folder.resolve()
    for path in sorted(folder.rglob("*")):
        if not path.resolve().is_relative_to(root):
            raise PublishError(
                f"{path} is a link to {path.resolve()}, outside of the folder: put a copy in its place (cp -L), or "
                "remove it"
            )


def _open(folder: Path) -> Checkpoint:
    if (folder / _WHOLE).is_file() and (folder / _INDEX).is_file():
        raise PublishError(f"{folder} has {_WHOLE} and {_INDEX}, two sets of weights: remove the older one")
    try:
        check_weight_files(folder, {})
        return open_checkpoint(folder, _check_config)
    except (ConversionError, DrafterLoadError) as error:
        raise PublishError(str(error)) from error


def _check_config(source: str, config: dict[str, Any]) -> None:
    if config.get("model_type") not in FAMILIES:
        raise PublishError(
            f'{source}: config.json says model_type "{config.get("model_type")}", which is no drafter family (known: '
            f"{', '.join(sorted(FAMILIES))}). Convert an authors' checkpoint with `mmspec convert` first."
        )


def _check_weights(checkpoint: Checkpoint) -> type[Drafter]:
    """The drafter's class; its names and shapes are those of the files."""
    pickles = [file.name for file in checkpoint.files if file.suffix != ".safetensors"]
    if pickles:
        raise PublishError(
            f"{checkpoint.source}: the weights are in {', '.join(pickles)}, which may run code when it is opened. "
            "Load the drafter where you trust it and save it again as safetensors."
        )
    config_class, drafter_class = FAMILIES[checkpoint.config["model_type"]]
    try:
        config = config_class.from_pretrained(checkpoint.source)
    except (ValueError, TypeError, StrictDataclassError) as error:
        raise PublishError(f"{checkpoint.source}: config.json: {error}") from error
    expected = {name: tuple(tensor.shape) for name, tensor in expected_tensors(config).items()}
    found = {name: info.shape for name, info in checkpoint.tensors.items()}
    if expected != found:
        differing = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
        raise PublishError(
            f"{checkpoint.source}: config.json and the weights belong to different drafters: {', '.join(differing)} "
            "missing, unexpected or of another shape. Save both again."
        )
    return drafter_class


def _config_with_map(file: Path, drafter_class: type[Drafter]) -> Path | bytes:
    """config.json as it is where it names the published classes already, else with them."""
    config = json.loads(file.read_text(encoding="utf-8"))
    if config.get("auto_map") == drafter_class.auto_map():
        return file
    config["auto_map"] = drafter_class.auto_map()
    return (json.dumps(config, indent=2, sort_keys=True) + "\n").encode()


def _shown_by_the_card(folder: Path, card: str) -> list[str]:
    files = (file.relative_to(folder).as_posix() for file in sorted(folder.rglob("*")) if _may_be_shown(file))
    return [name for name in files if name in card]


def _may_be_shown(file: Path) -> bool:
    return file.suffix in _SHOWN_BY_THE_CARD and file.is_file() and file.stat().st_size <= _LARGEST_SHOWN


def _left_out(folder: Path, taken: set[str], card: str) -> dict[str, str]:
    reasons = {}
    for path in sorted(folder.iterdir()):
        name = path.name + "/" * path.is_dir()
        if path.name in taken or any(other.startswith(name) for other in taken):
            continue
        if path.suffix in (".bin", ".pt", ".pth", ".pkl"):
            reasons[name] = "a pickle, which may run code when it is opened"
        elif path.name in card and path.suffix in _SHOWN_BY_THE_CARD and path.is_file():
            reasons[name] = f"larger than {_LARGEST_SHOWN // 2**20} MiB"
        else:
            reasons[name] = "no part of a drafter, and not shown by its card"
    return reasons
