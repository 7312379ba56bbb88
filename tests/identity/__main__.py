"""Thousands of requests put together at random, each compared with `generate` without a drafter.

    python -m tests.identity --cases 3000 --json outputs/identity.json

Stops at the first failure with exit code 1, and prints the smallest case that fails as Python to run.
"""

import sys
import time
import traceback

from tests import commands


def main(arguments: list[str] | None = None) -> int:
    options = commands.parser(__doc__, "cases", 3000).parse_args(arguments)
    with commands.surroundings():
        from .runner import Report, run

        start = time.perf_counter()

        def tell(report: Report) -> None:
            print(f"{report.cases} cases, {time.perf_counter() - start:.0f} s", flush=True)

        report = run(options.cases, options.seed, tell)
        seconds = time.perf_counter() - start
        _print(report)
        commands.write(
            options.json,
            cases=report.cases,
            seed=options.seed,
            seconds=round(seconds),
            identical=report.cases,
            failures=[failure.case.snippet for failure in report.failures],
            accepted_drafts=report.accepted,
            by=report.by,
        )
    return 1 if report.failures else 0


def _print(report) -> None:
    for dimension, counts in report.by.items():
        print(f"\n{dimension}")
        for value, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
            print(f"  {count:6} {value}")
    for failure in report.failures:
        print("\nNOT IDENTICAL:", "".join(traceback.format_exception(failure.error)))
        print(failure.case.snippet)
    print(f"\n{report.cases} cases with the tokens of `generate`, {len(report.failures)} without")


if __name__ == "__main__":
    sys.exit(main())
