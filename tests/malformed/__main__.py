"""Malformed calls of `generate` with a drafter: each gives a clear error, or what stock `generate` gives.

    python -m tests.malformed --calls 1000 --json outputs/malformed.json

Prints what came of each flaw, and those that came out otherwise as Python to run, with exit code 1.
"""

import sys
import time
from collections import Counter, defaultdict

from tests import commands


def main(arguments: list[str] | None = None) -> int:
    options = commands.parser(__doc__, "calls", 1000).parse_args(arguments)
    start, came, wrong, texts = time.perf_counter(), Counter(), [], defaultdict(Counter)
    with commands.surroundings():
        from tests.identity.models import Models

        from .calls import Call, is_right

        models = Models()
        for number in range(options.calls):
            call = Call(number, options.seed)
            ours, stock = call.outcomes(models)
            kind = _kind(ours, stock) if is_right(ours, stock) else "WRONG"
            came[kind] += 1
            texts[call.flaws()[0]][kind, f"{ours.error}: {ours.message[:160]}" if ours.error else ""] += 1
            if kind == "WRONG":
                wrong.append(f"{call.snippet()}# with the drafter {_told(ours)}\n# stock {_told(stock)}\n")
                print(wrong[-1], flush=True)
        for flaw, counts in texts.items():
            print(flaw)
            for (kind, text), count in counts.most_common():
                print(f"  {count:4} {kind}{': ' if text else ''}{text}")
        print(f"{options.calls} malformed calls of {len(texts)} flaws: {dict(came)}")
        seconds = round(time.perf_counter() - start)
        commands.write(
            options.json,
            calls=options.calls,
            seed=options.seed,
            seconds=seconds,
            outcomes=came,
            flaws=len(texts),
            wrong=wrong,
        )
    return 1 if wrong else 0


def _kind(ours, stock) -> str:
    if ours.error is None:
        return "the tokens of generate"
    return "a clear error of ours" if ours.is_clear else "the error of generate"


def _told(outcome) -> str:
    """In one line."""
    text = f"{outcome.error}: {outcome.message}" if outcome.error else f"tokens {outcome.tokens}"
    return " ".join(text.split())[:300]


if __name__ == "__main__":
    sys.exit(main())
