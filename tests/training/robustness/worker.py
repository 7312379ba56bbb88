"""Processes of their own for what needs them: to be killed, or to train as two.

They are forked from a server that has imported everything once, so that one costs a tenth of a second.
"""

import multiprocessing
import os
import signal
import socket
import sys
import traceback
from pkgutil import resolve_name

import torch

from tests.evaluation.tiny import tiny_processor, tiny_target
from tests.training.robustness import world

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload([__name__])


def call(function, *arguments, processes=1, timeout=120):
    """Runs `function(target, processor, *arguments)` in new processes, under the environment that `accelerate launch`
    gives several; returns their exit codes. -9 is a process that was killed."""
    port = free_port()
    started = []
    for rank in range(processes):
        environment = launched(rank, processes, port) if processes > 1 else {}
        started.append(_context.Process(target=_begin, args=(function, environment, arguments)))
        started[-1].start()
    for process in started:
        process.join(timeout)
        if process.is_alive():
            process.kill()
            process.join()
            raise TimeoutError(f"{function.__name__} hangs")
    return [process.exitcode for process in started]


def launched(rank, processes, port):
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "ACCELERATE_USE_CPU": "true",
    }


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _begin(function, environment, arguments):
    os.environ.update(environment)
    torch.set_num_threads(1)
    try:
        function(tiny_target(), tiny_processor(), *arguments)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)  # threads of the libraries are not waited for


def killed_at(place, number):
    """From now on, call `number` of `place`, a module or class and a function of it in dots, kills the process."""
    owner, _, name = place.rpartition(".")
    owner, calls = resolve_name(owner), []
    real = getattr(owner, name)

    def call_or_die(*args, **options):
        calls.append(1)
        if len(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **options)

    setattr(owner, name, call_or_die)


def distil(target, processor, table, out, kill=None):
    """Answers the table; `kill` is what `killed_at` takes."""
    if kill is not None:
        killed_at(*kill)
    world.answered(table, out, target, processor)


def train(target, processor, run, answers, kill=None):
    """Trains; `kill` is what `killed_at` takes."""
    if kill is not None:
        killed_at(*kill)
    world.trained(run, target, processor, *answers)
