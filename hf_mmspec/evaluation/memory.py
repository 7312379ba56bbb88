"""Peak memory of answering with or without a drafter, in a process of its own.

Loading is not counted where the system can forget it (Linux): what is asked is how much room answering takes.
"""

import gc
import json
import logging
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from hf_mmspec.data import Columns, Source

from .batches import in_batches
from .contenders import STOCK, Contender, answer
from .drafters import Entry, load_drafters
from .loading import load_target
from .prompts import EMBEDDED_SOURCE, first_prompts, open_data

METHOD = (
    "VmHWM of a fresh process from after loading to the end of one answer (reset through /proc/self/clear_refs); "
    "max_memory_allocated on a GPU; ru_maxrss, loading included, elsewhere"
)


class MeasurementError(RuntimeError):
    """A process that was to measure itself gave no number."""


@dataclass(frozen=True)
class Question:
    """What a process is to answer: the first usable prompts of `source`, `batch` together, with the target `model`
    (None: the embedded one) in `dtype`, packed as `quantize` says, up to `max_new_tokens`."""

    model: str | None
    dtype: str
    max_new_tokens: int
    source: Source = EMBEDDED_SOURCE
    quantize: str | None = None
    batch: int = 1


def peak_memory_ratios(question: Question, drafters: Sequence[Entry]) -> dict[str, float]:
    """Peak memory with each drafter over that of the target alone, each in a fresh process; by name.

    Raises:
        MeasurementError: a process failed, for example because the model does not fit a second time.
    """
    try:
        alone = peak_memory(question, None)
        return {entry.name: peak_memory(question, entry) / alone for entry in drafters}
    except ArithmeticError as error:
        raise MeasurementError(f"peak memory was not measured: {error}") from error


def peak_memory(question: Question, entry: Entry | None) -> int:
    """Bytes at the peak of answering with a drafter, or without one, in a fresh process.

    Raises:
        MeasurementError: the process failed, for example because the model does not fit a second time.
    """
    try:
        return _in_new_process(question, entry)
    except (subprocess.SubprocessError, OSError, ValueError, LookupError, TypeError) as error:
        raise MeasurementError(f"peak memory was not measured: {error}") from error


def _in_new_process(question: Question, entry: Entry | None) -> int:
    asked = {"question": asdict(question), "entry": asdict(entry) if entry else None}
    command = [sys.executable, "-m", __name__, json.dumps(asked), str(torch.get_num_threads())]
    printed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    return json.loads(printed.splitlines()[-1])["peak_bytes"]


def main(arguments: Sequence[str]) -> None:
    """Answer the question and print the peak as JSON.

    Args:
        arguments: question and entry as JSON, and the number of threads.
    """
    asked = json.loads(arguments[0])
    torch.set_num_threads(int(arguments[1]))
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # a warning at every 8-bit layer takes time
    source = Source(**{**asked["question"]["source"], "columns": Columns(**asked["question"]["source"]["columns"])})
    question = Question(**{**asked["question"], "source": source})
    print(json.dumps({"peak_bytes": _peak(question, Entry(**asked["entry"]) if asked["entry"] else None)}))


def _peak(question: Question, entry: Entry | None) -> int:
    target, processor = load_target(question.model, question.dtype, question.quantize)
    contender = Contender(STOCK)
    if entry is not None:
        contender = Contender(entry.name, {"assistant_model": load_drafters([entry], target)[entry.name]})
    sources = open_data([question.source.data], question.batch, question.source)
    prompts = first_prompts(target, processor, sources, question.batch)
    inputs = in_batches(target, processor, prompts, question.batch)[0].inputs
    gc.collect()
    _forget_peak(target.device)
    answer(target, inputs, contender, question.max_new_tokens)
    return _peak_so_far(target.device)


def _forget_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5")


def _peak_so_far(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if status.exists():
        lines = status.read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    import resource  # not on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    main(sys.argv[1:])
