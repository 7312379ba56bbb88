"""What decides speed here: versions, processor, fast dtype, measured forward costs, cached models.

Gathers and prints; changes nothing but the caches it fills.
"""

from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import scan_cache_dir
from huggingface_hub.errors import CacheNotFound
from rich import box
from rich.console import Console
from rich.table import Table
from transformers import PreTrainedModel

from hf_mmspec.demo import fast_dtype
from hf_mmspec.demo.model.loader import cache_home
from hf_mmspec.evaluation.machine import machine_facts
from hf_mmspec.generation.cost_cache import forget
from hf_mmspec.generation.costs import CONTEXT, measure_verify
from hf_mmspec.generation.few_rows import ways_of

SIZES = (1, 8, 32, 16, 4, 64, 2)


def show_machine(console: Console) -> None:
    """Versions, processor, threads and the dtype that is fastest here."""
    dtype = fast_dtype()
    facts = machine_facts(dtype, "cuda" if torch.cuda.is_available() else "cpu")
    table = _table()
    for name, version in facts["versions"].items():
        table.add_row(name, version or "not installed")
    table.add_row("python", facts["python"])
    table.add_row("processor", f"{facts['cpu']}, {facts['cores']} cores, {facts['threads']} threads used")
    features = {"AMX": facts["amx"], "AVX512-BF16": facts["avx512_bf16"], "AVX2": facts["avx2"]}
    table.add_row("instructions", ", ".join(f"{name}: {'yes' if has else 'no'}" for name, has in features.items()))
    table.add_row("accelerator", facts["accelerator"] or "none")
    table.add_row("fast dtype", f"{facts['dtype']} (measured)")
    _print(console, "this machine", table)


def show_costs(console: Console, target: PreTrainedModel) -> dict[int, float]:
    """Measure the target's forward now; returns seconds by number of tokens.

    Costs that were measured before are forgotten, so that the next request chooses its draft budget afresh.
    """
    forget()
    seconds = measure_verify(target, SIZES, time_limit=4.0)
    table = Table(box=box.SIMPLE_HEAD)
    for column in ("n", "ms", "v(n)"):
        table.add_column(column, justify="right")
    for size in sorted(seconds):
        table.add_row(str(size), f"{seconds[size] * 1000:.1f}", f"{seconds[size] / seconds[1]:.2f}")
    name = f"{type(target).__name__}, {str(target.dtype).removeprefix('torch.')}"
    _print(console, f"forward of n tokens over {CONTEXT} cached ones ({name})", table)
    if ways := ways_of(target):
        told = ", ".join(f"{rows} {way}" for way, rows in _row_ranges(ways))
        console.print(f"rows that layers multiply otherwise, since it is faster: {told}\n")
    return seconds


def _row_ranges(ways: Mapping[int, str]) -> Iterator[tuple[str, str]]:
    """Each way with its numbers of rows, as "4 to 16"."""
    for way, group in groupby(sorted(ways), key=ways.__getitem__):
        rows = list(group)
        yield way, f"{rows[0]} to {rows[-1]}" if len(rows) > 1 else f"{rows[0]}"


def show_cached_models(console: Console) -> None:
    """What needs no download or merging any more."""
    table = _table()
    for name, size in cached_models():
        table.add_row(name, f"{size / 2**20:.0f} MB")
    if not table.row_count:
        table.add_row("none", "")
    _print(console, "cached models", table)


def cached_models() -> list[tuple[str, int]]:
    """Names and bytes: merged embedded targets, then the models of the Hugging Face cache."""
    merged = [(f"embedded default ({path.name})", _size(path)) for path in sorted(cache_home().glob("target-*"))]
    try:
        repositories: Any = scan_cache_dir().repos
    except CacheNotFound:
        repositories = ()
    return merged + sorted((each.repo_id, each.size_on_disk) for each in repositories if each.repo_type == "model")


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _table() -> Table:
    table = Table(show_header=False, box=box.SIMPLE)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    return table


def _print(console: Console, title: str, table: Table) -> None:
    console.print(f"[bold green]{title}[/bold green]", table)
