"""What cases there are, as a hypothesis strategy: everything that can be combined is.

Knows what stock `generate` cannot combine, and where two correct ways of sampling draw other random numbers.
"""

from hypothesis import strategies as st

from tests.generation.test_batch_fuzz import PER_ROW
from tests.generation.test_every_family import DRAFTERS
from tests.generation.test_fuzz import PROCESSORS, WARPERS

from .case import CACHES, Case
from .models import DOUBLES

_ROW = st.tuples(st.integers(0, 999), st.integers(0, 3), st.integers(1, 12))
_SHORT_ROW = st.tuples(st.integers(0, 999), st.integers(0, 2), st.integers(1, 12))
_BUDGET = st.tuples(st.integers(0, 12), st.integers(1, 10), st.integers(1, 40))


# Where stock `generate` has no answer to compare with: with a static cache the first raises AttributeError, and the
# second answers otherwise than with any other cache, as its pictures no longer see themselves both ways. The third
# has names of its own for pixels, which no chunked prefill takes.
_NO_STATIC_CACHE = ("PaliGemma 2", "Gemma 4 unified")
_NO_CHUNKS = ("Phi-4 multimodal",)
# Stock chunked prefill of pictures that see themselves both ways has other logits with a static cache than with any
# other (without chunks it has the same ones), and a drafter's request has those of the others.
NO_STATIC_CHUNKS_OF_PICTURES = ("Gemma 3", "Gemma 4", "Gemma 4 E2B/E4B", "Gemma 4 26B-A4B")


@st.composite
def cases(draw, family: str) -> Case:
    """Any case of this family of targets."""
    batch = draw(st.sampled_from((1, 1, 1, 1, 2, 2, 3, 5, 8)))
    repeated = batch < 5 and draw(st.sampled_from((False, False, False, True)))
    is_single = batch == 1 and not repeated
    warper = draw(st.none() | st.sampled_from(sorted(WARPERS))) if is_single else None
    known = set(PROCESSORS) if is_single else set(PER_ROW) - {"states"}
    if family in _NO_CHUNKS:
        known.discard("chunks")
    drafter = draw(st.sampled_from((*DOUBLES, *DRAFTERS)))
    modes = ["tree", "tree"]
    if warper is None:
        modes.append("chain")  # a sampled one draws other random numbers than plain sampling
    if drafter not in DOUBLES:
        modes.append("automatic")  # doubles have no weights, hence no cost to measure
    rows = tuple(draw(st.lists(_ROW if batch < 3 else _SHORT_ROW, min_size=batch, max_size=batch, unique=True)))
    cache = draw(st.sampled_from([kind for kind in CACHES if _is_possible(kind, family, is_single)]))
    if "static" in cache and family in NO_STATIC_CHUNKS_OF_PICTURES and any(pictures for _, pictures, _ in rows):
        known.discard("chunks")
    return Case(
        family=family,
        drafter=drafter,
        rows=rows,
        own_tokens=draw(st.booleans()),
        seed=draw(st.integers(0, 999)),
        limit=draw(st.integers(1, 16 if batch < 3 else 10)),
        ends=tuple(sorted(draw(st.sets(st.integers(0, 15), max_size=3)))),
        stop_at=draw(st.none() | st.integers(0, 12)),
        criterion=draw(st.booleans()),
        total_length=draw(st.booleans()),
        processors=tuple(sorted(draw(st.sets(st.sampled_from(sorted(known)), max_size=3)))),
        warper=warper,
        repeated=repeated,
        cache=cache,
        mode=draw(st.sampled_from(modes)),
        budget=draw(_BUDGET),
        scores=draw(st.booleans()),
    )


def _is_possible(cache: str, family: str, is_single: bool) -> bool:
    if cache == "second turn":
        return is_single
    return "static" not in cache or family not in _NO_STATIC_CACHE
