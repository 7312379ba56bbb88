"""Thousands of requests of mixed kinds in one process: memory stays flat, answers are those of a fresh process.

    python -m tests.soak --requests 2000 --json outputs/soak.json

Kinds: batches, pictures, sampling, static caches, chats, errors in the middle, streams that nobody reads to the end.
Then ten threads with models of their own work at the same time. Exit code 1 where something is not as it should be.
"""

import json
import sys
import time
from dataclasses import asdict

from tests import commands


def main(arguments: list[str] | None = None) -> int:
    parser = commands.parser(__doc__, "requests", 2000)
    parser.add_argument("--samples", type=int, default=60, help="requests that a fresh process does again")
    parser.add_argument("--threads", type=int, default=10)
    parser.add_argument("--repeat", type=int, nargs="+", help="only print what these requests answer")
    options = parser.parse_args(arguments)
    with commands.surroundings():
        from .long_run import repeat, side_by_side, soak
        from .mixed import World

        if options.repeat:
            print(json.dumps(repeat(options.repeat, options.seed)))
            return 0
        start = time.perf_counter()

        def tell(done, held):
            seconds = time.perf_counter() - start
            print(
                f"{done} requests, {seconds:.0f} s, {held.resident / 2**20:.1f} MiB, {held.tensors} tensors",
                flush=True,
            )

        run = soak(options.requests, options.seed, options.samples, tell, World())
        side_by_side(run, [World() for _ in range(options.threads)], each=10, seed=options.seed)
        _print(run)
        commands.write(
            options.json,
            requests=options.requests,
            seed=options.seed,
            seconds=round(time.perf_counter() - start),
            kinds=run.kinds,
            memory=[asdict(held) for held in run.memory],
            growth=run.growth,
            repeated=run.repeated,
            threads=run.threads,
            differences=run.differences,
        )
    return 0 if run.is_good else 1


def _print(run) -> None:
    for kind, count in run.kinds.most_common():
        print(f"  {count:6} {kind}")
    for difference in run.differences:
        print("DIFFERENT:", difference)
    print(f"memory after the warm-up: at most {run.growth:+.2%}, tensors {[held.tensors for held in run.memory]}")
    print(f"{run.repeated} requests done again by a fresh process, {run.threads} threads side by side:", end=" ")
    print(f"{len(run.differences)} differences")


if __name__ == "__main__":
    sys.exit(main())
