"""Drafters whose card names a target: on the Hub, or in the local cache.

Asks and reads; prints nothing. What it returns was written by strangers.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, HfApi, ModelCard, scan_cache_dir
from huggingface_hub.errors import CacheNotFound, HfHubHTTPError
from huggingface_hub.repocard_data import model_index_to_eval_results
from huggingface_hub.utils import validate_repo_id

from ..modeling import FAMILIES
from .card_metadata import ALL_TASKS, TAGS

# What the Hub's client raises, whichever HTTP library it is built on.
UNREACHABLE: tuple[type[BaseException], ...] = (OSError, *HfHubHTTPError.__bases__)


@dataclass(frozen=True)
class Listed:
    """A drafter as its repository describes it.

    Args:
        repo_id: on the Hub.
        family: `model_type` of one of our families; None for other kinds of drafters.
        acceptance_lengths, decode_speedups: as its card says, over all tasks or by task, none where it does not.
        downloads: in the last month; None where the Hub was not asked.
    """

    repo_id: str
    family: str | None
    acceptance_lengths: tuple[float, ...] = ()
    decode_speedups: tuple[float, ...] = ()
    downloads: int | None = None


def check_target(target: str) -> None:
    """Raises ValueError where `target` cannot be the name of a repository."""
    if Path(target).exists():
        raise ValueError(f"{target} is here on this machine, and cards name repositories: give ORGANISATION/NAME")
    validate_repo_id(target)


def on_hub(target: str, api: HfApi | None = None) -> list[Listed]:
    """Drafters for the repository `target`, the most downloaded first.

    Raises:
        UNREACHABLE: one of these errors, where the Hub does not answer or the client is offline.
    """
    found = (api or HfApi()).list_models(
        filter=[TAGS[0], f"base_model:{target}"],
        sort="downloads",
        expand=["cardData", "downloads", "model-index", "tags"],
    )
    return [
        _listed(info.id, info.tags or (), _results(info.model_index, info.card_data), info.downloads) for info in found
    ]


def in_cache(target: str) -> list[Listed]:
    """The same among the repositories whose card is in the local cache, by name."""
    try:
        repositories = scan_cache_dir().repos
    except CacheNotFound:
        return []
    found = []
    for repository in sorted(repositories, key=lambda each: each.repo_id):
        card = _cached_card(repository) if repository.repo_type == "model" else None
        data: Any = getattr(card, "data", None)
        if data is not None and TAGS[0] in (data.tags or ()) and target in _as_list(data.base_model):
            found.append(_listed(repository.repo_id, data.tags, data.eval_results or ()))
    return found


def _listed(repo_id: str, tags: Iterable[str], results: Iterable[EvalResult], downloads: int | None = None) -> Listed:
    results, tags = list(results), set(tags)
    return Listed(
        repo_id=repo_id,
        family=next((family for family in FAMILIES if family in tags), None),
        acceptance_lengths=_values(results, "acceptance_length"),
        decode_speedups=_values(results, "decode_speedup"),
        downloads=downloads,
    )


def _values(results: Sequence[EvalResult], metric: str) -> tuple[float, ...]:
    """Over all tasks where the card has that, else by task."""
    chosen = [each for each in results if each.metric_type == metric and isinstance(each.metric_value, int | float)]
    overall = [each for each in chosen if (each.dataset_config or "").startswith(ALL_TASKS)]
    return tuple(float(each.metric_value) for each in overall or chosen)


def _results(index: Any, card_data: Any) -> list[EvalResult]:
    """The Hub gives a model-index of its own or within the card; a malformed one says nothing."""
    try:
        return model_index_to_eval_results(index)[1] if index else getattr(card_data, "eval_results", None) or []
    except (AttributeError, KeyError, TypeError):
        return []


def _cached_card(repository: Any) -> ModelCard | None:
    """The card of the newest revision that has one; None where it cannot be read."""
    for revision in sorted(repository.revisions, key=lambda each: each.last_modified, reverse=True):
        for file in revision.files:
            if file.file_name == "README.md":
                try:
                    return ModelCard.load(file.file_path, ignore_metadata_errors=True)
                except (OSError, TypeError, ValueError, yaml.YAMLError):
                    return None
    return None


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
