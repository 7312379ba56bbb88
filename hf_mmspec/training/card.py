"""The model card of a trained drafter: what it is for, what was measured, where it comes from.

Writes one README.md; measures nothing.
"""

import json
from pathlib import Path

from hf_mmspec.modeling import Drafter

from .acceptance import Ranks

_CARD = """\
---
library_name: transformers
license: apache-2.0
pipeline_tag: image-text-to-text
tags:
- speculative-decoding
- vispec
- hf_mmspec
---
# {name}

A ViSpec drafter ([arXiv 2509.15235](https://arxiv.org/abs/2509.15235)) for the embedded default target of `hf_mmspec`:
it drafts a tree of tokens that the target checks in one forward. The text is the target's own, only faster.

```python
import hf_mmspec
from hf_mmspec.demo import load_default

model, processor = load_default()
drafter = hf_mmspec.AutoDrafter.from_pretrained("{name}", dtype=model.dtype)
output = model.generate(**inputs, assistant_model=drafter)
```

## Measured

L is the number of tokens emitted per target forward, the target's own included (1.0 = no speculation), greedy, on
held-out validation prompts that chose the checkpoint; {budget}.

| task | L |
|---|---|
{lengths}

Share of rounds in which the first choice is right, of those that came so deep (depth 1, 2, ...):
{by_depth}. A greedy chain of {depths} drafts has {chain:.2f} accepted on average.

## Made of

{parameters:.1f} M parameters, {draft_vocabulary} draft tokens, one decoder layer of width {hidden}. Trained on
{records} answers of the target itself, text first, then with images, unrolled on its own outputs (section 3.4 of the
paper; the exact attention of drafting, as in EAGLE-3's training-time test). `answers.jsonl` holds
these answers as token ids.

```json
{provenance}
```
"""


def write_card(
    folder: Path, drafter: Drafter, lengths: dict[str, float], ranks: Ranks, records: int, made_by: dict, budget: str
) -> None:
    """Write `folder/README.md`."""
    rows = "\n".join(f"| {task} | {length:.2f} |" for task, length in lengths.items())
    text = _CARD.format(
        name=folder.name,
        budget=budget,
        lengths=rows,
        by_depth=", ".join(f"{share:.2f}" for share in ranks.by_depth),
        depths=len(ranks.by_depth),
        chain=ranks.chain,
        parameters=drafter.num_parameters() / 1e6,
        draft_vocabulary=drafter.config.draft_vocab_size,
        hidden=drafter.config.hidden_size,
        records=records,
        provenance=json.dumps(made_by, indent=1),
    )
    (folder / "README.md").write_text(text)
