"""Peak memory of answering with or without a drafter, in a process of its own.

Loading is not counted where the system can forget it (Linux): what is asked is how much room answering takes.
"""

import argparse
import gc
import json
import subprocess
import sys
from pathlib import Path

import torch

from hf_mmspec.demo import samples

from .contenders import STOCK, Contender, answer
from .loading import load_drafter, load_target, prepare

METHOD = (
    "VmHWM of a fresh process from after loading to the end of one answer (reset through /proc/self/clear_refs); "
    "max_memory_allocated on a GPU; ru_maxrss, loading included, elsewhere"
)


class MeasurementError(RuntimeError):
    """A process that was to measure itself gave no number."""


def peak_memory_ratio(model: str | None, drafter: str, dtype: str, max_new_tokens: int) -> float:
    """Peak memory with `drafter` over that of the target alone, each in a fresh process.

    Raises:
        MeasurementError: a process failed, for example because the model does not fit a second time.
    """
    try:
        with_drafter, alone = (_in_new_process(model, each, dtype, max_new_tokens) for each in (drafter, None))
    except (subprocess.SubprocessError, OSError, ValueError, LookupError, TypeError) as error:
        raise MeasurementError(f"peak memory was not measured: {error}") from error
    return with_drafter / alone


def _in_new_process(model: str | None, drafter: str | None, dtype: str, max_new_tokens: int) -> int:
    command = [sys.executable, "-m", __name__, "--dtype", dtype, "--max-new-tokens", str(max_new_tokens)]
    command += ["--threads", str(torch.get_num_threads())]
    for option, value in (("--model", model), ("--drafter", drafter)):
        command += [option, value] if value else []
    printed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    return json.loads(printed.splitlines()[-1])["peak_bytes"]


def main(arguments: list[str] | None = None) -> None:
    """Answer one prompt of the test split and print the peak as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model")
    parser.add_argument("--drafter")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--max-new-tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    print(json.dumps({"peak_bytes": _peak(options)}))


def _peak(options: argparse.Namespace) -> int:
    target, processor = load_target(options.model, options.dtype)
    contender = Contender(STOCK)
    if options.drafter:
        contender = Contender("drafter", {"assistant_model": load_drafter(options.drafter, target)})
    sample = next(iter(samples("test", n=1)))
    inputs = prepare(processor, sample["messages"], sample["image"], target)
    gc.collect()
    _forget_peak(target.device)
    answer(target, inputs, contender, options.max_new_tokens)
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
    main()
