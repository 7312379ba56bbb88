"""What the cells of a claim say: means and ranges over seeds, differences of the same seed, and where the claim holds.

Knows no models; every number comes from the cells.
"""

from collections.abc import Sequence
from statistics import mean

from hf_mmspec.evaluation.markdown import markdown_table

from .cells import Cell
from .claim_list import CLAIMS, SPEED, Claim, L

Group = tuple[int, int]  # pictures, visual tokens
NAMES = {L: "L", SPEED: "tokens/s"}
_DIGITS = {L: 2, SPEED: 1}


def report_lines(claim: Claim, cells: Sequence[Cell]) -> list[str]:
    """Markdown: L and speed of every arm, what the first one has more than the others, and where the claim holds."""
    arms = _arms_in(claim, cells)
    if len(arms) < 2:
        return ["*Not run yet.*"]
    groups = groups_of(cells, arms)
    lines = [*_lengths(cells, arms, groups), "", *_speeds(cells, arms, groups)]
    others = [arm for arm in arms if arm != claim.arms[0]]
    if len(others) < len(arms):
        lines += ["", *_differences(claim, cells, others, groups)]
    return lines


def claims_in(cells: Sequence[Cell]) -> list[Claim]:
    """Those of which at least two arms were judged; a single one another claim may have needed."""
    return [claim for claim in CLAIMS.values() if len(_arms_in(claim, cells)) > 1]


def groups_of(cells: Sequence[Cell], arms: Sequence[str]) -> list[Group]:
    """Numbers of pictures and of visual tokens that these arms were judged with, in order."""
    return sorted({(cell["pictures"], cell["visual_tokens"]) for cell in cells if cell["arm"] in arms})


def values(cells: Sequence[Cell], arm: str, group: Group, name: str) -> dict[int, float]:
    """A number of an arm by seed."""
    return {cell["seed"]: cell[name] for cell in _of(cells, arm) if cell["pictures"] == group[0]}


def differences(cells: Sequence[Cell], first: str, other: str, group: Group, name: str) -> list[float]:
    """What the first arm has more than the other, for each seed that both have."""
    mine, theirs = (values(cells, arm, group, name) for arm in (first, other))
    return [mine[seed] - theirs[seed] for seed in sorted(mine.keys() & theirs.keys())]


def verdict(by_group: dict[Group, list[float]]) -> str:
    """From how many visual tokens on every seed says the same as the claim, and where every seed says the contrary."""
    if not all(len(found) > 1 for found in by_group.values()):
        return "too few seeds"
    more = {group: min(found) > 0 for group, found in by_group.items()}
    less = [str(group[1]) for group, found in by_group.items() if max(found) < 0]
    groups = sorted(by_group)
    holding = next((group for i, group in enumerate(groups) if all(more[each] for each in groups[i:])), None)
    if holding is None:
        some = [str(group[1]) for group in groups if more[group]]
        said = f"at {' and '.join(some)} visual tokens only" if some else "nowhere"
    else:
        said = "everywhere" if holding == groups[0] else f"from {holding[1]} visual tokens on"
    return said + (f"; the contrary at {' and '.join(less)}" if less else "")


def spread(found: Sequence[float], digits: int, sign: str = "") -> str:
    """Mean and range."""
    if not found:
        return ""
    middle, low, high = (f"{value:{sign}.{digits}f}" for value in (mean(found), min(found), max(found)))
    return f"{middle} ({low} to {high})" if len(found) > 1 else middle


def _arms_in(claim: Claim, cells: Sequence[Cell]) -> list[str]:
    return [arm for arm in claim.arms if _of(cells, arm)]


def _of(cells: Sequence[Cell], arm: str) -> list[Cell]:
    return [cell for cell in cells if cell["arm"] == arm]


def _head(start: Sequence[str], groups: Sequence[Group], end: Sequence[str] = ()) -> list[str]:
    return [*start, *(_group_name(*group) for group in groups), *end]


def _group_name(pictures: int, tokens: int) -> str:
    named = {0: "no picture", 1: "1 picture"}.get(pictures, f"{pictures} pictures")
    return f"{named}, {tokens} visual tokens" if pictures else named


def _lengths(cells: Sequence[Cell], arms: Sequence[str], groups: Sequence[Group]) -> list[str]:
    rows = []
    for arm in arms:
        own = _of(cells, arm)
        facts = [
            str(len({cell["seed"] for cell in own})),
            f"{mean(cell['parameters'] for cell in own) / 1e6:.1f}",
            f"{mean(cell['steps'] for cell in own):.0f}",
            f"{mean(cell['seconds'] for cell in own):.0f}",
        ]
        rows.append([arm, *facts, *(spread([*values(cells, arm, group, L).values()], 2) for group in groups)])
    return markdown_table(_head(["L", "seeds", "M parameters", "steps", "seconds"], groups), rows)


def _speeds(cells: Sequence[Cell], arms: Sequence[str], groups: Sequence[Group]) -> list[str]:
    def text(arm: str, group: Group) -> str:
        speeds, drafting = ([*values(cells, arm, group, name).values()] for name in (SPEED, "draft_milliseconds"))
        return f"{spread(speeds, 1)}; {mean(drafting):.1f} ms" if speeds else ""

    rows = [[arm, *(text(arm, group) for group in groups)] for arm in arms]
    return markdown_table(_head(["tokens/s; drafting per round"], groups), rows)


def _differences(claim: Claim, cells: Sequence[Cell], others: Sequence[str], groups: Sequence[Group]) -> list[str]:
    first, rows = claim.arms[0], []
    for other in others:
        for name in (claim.by, SPEED if claim.by == L else L):
            found = {group: differences(cells, first, other, group, name) for group in groups}
            found = {group: each for group, each in found.items() if each}
            texts = [_marked(found.get(group, []), _DIGITS[name]) for group in groups]
            rows.append([other, NAMES[name], *texts, verdict(found) if found and name == claim.by else ""])
    return markdown_table(_head([f"{first}, more than", "measure"], groups, ["holds"]), rows)


def _marked(found: Sequence[float], digits: int) -> str:
    """In bold where all of several seeds have one sign."""
    text = spread(found, digits, "+")
    return f"**{text}**" if len(found) > 1 and (min(found) > 0 or max(found) < 0) else text
