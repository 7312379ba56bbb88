"""The model card of a trained drafter: what it is for, what was measured, where it comes from.

Writes text; measures nothing.
"""

import json
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData

from hf_mmspec.modeling import Drafter

from ..judging.ranks import Ranks

# model_type -> what people call it, and its paper
_FAMILIES = {
    "eagle": ("EAGLE-2", "2406.16858"),
    "eagle3": ("EAGLE-3", "2503.01840"),
    "flash": ("FLASH", "2505.12728"),
    "msd": ("MSD", "2505.14260"),
    "vispec": ("ViSpec", "2509.15235"),
}

_CARD = """\
---
{metadata}
---
# {name}

A drafter ({title}{paper}) for `{target}`: it drafts tokens that the target checks in one forward. The text is the
target's own, only faster.

```python
import hf_mmspec
from transformers import AutoModelForImageTextToText

target = AutoModelForImageTextToText.from_pretrained("{target}")
drafter = hf_mmspec.AutoDrafter.from_pretrained("{name}", dtype=target.dtype)
output = target.generate(**inputs, assistant_model=drafter)  # inputs as always, from the processor
```

## Measured

L is the number of tokens emitted per target forward, the target's own included (1.0 = no speculation), greedy, on
{prompts} held-out prompts that chose the checkpoint; {budget}.

| task | L |
|---|---|
{lengths}

Share of rounds in which the first choice is right, of those that came so deep (depth 1, 2, ...):
{by_depth}. A greedy chain of {depths} drafts has {chain:.2f} accepted on average.

## Made of

{parameters:.1f} M parameters, {vocabulary} draft tokens, {layers} decoder layer(s) of width {hidden}. Trained on
{records} answers of the target itself; {outside:.2%} of their tokens are outside the draft vocabulary and count as
misses.
`training.json` says by which recipe, from which data and by which revision.
"""


def write_card(
    folder: Path,
    name: str,
    drafter: Drafter,
    target: str,
    results: dict[str, float],
    ranks: Ranks,
    facts: dict[str, Any],
) -> None:
    """Write `folder/README.md`.

    Args:
        name: of the drafter.
        target: how its users name it.
        results: what `AcceptanceJudge` gave.
        facts: `prompts`, `records`, `outside` and `budget`.
    """
    family = drafter.config.model_type
    title, paper = _FAMILIES.get(family, (family, None))
    lengths = {task.partition("/")[2] or "all": value for task, value in results.items()}
    text = _CARD.format(
        metadata=_metadata(family).to_yaml(),
        name=name,
        title=title,
        paper=f", [arXiv {paper}](https://arxiv.org/abs/{paper})" if paper else "",
        target=target,
        lengths="\n".join(f"| {task} | {length:.2f} |" for task, length in lengths.items()),
        by_depth=", ".join(f"{share:.2f}" for share in ranks.by_depth),
        depths=len(ranks.by_depth),
        chain=ranks.chain,
        parameters=drafter.num_parameters() / 1e6,
        vocabulary=drafter.config.draft_vocab_size or "all",
        layers=drafter.config.num_hidden_layers,
        hidden=drafter.config.hidden_size,
        **facts,
    )
    (folder / "README.md").write_text(text)


def describe_budget(budget: dict[str, Any]) -> str:
    """In words, for people."""
    return "a tree of depth {draft_depth}, {draft_top_k} children, {draft_total_tokens} nodes".format(**budget)


def read_training(folder: Path) -> dict[str, Any]:
    """`training.json` of a drafter's folder."""
    return json.loads((folder / "training.json").read_text())


def _metadata(family: str) -> ModelCardData:
    return ModelCardData(
        library_name="transformers",
        license="apache-2.0",
        pipeline_tag="image-text-to-text",
        tags=["speculative-decoding", "draft-model", "hf_mmspec", family],
    )
