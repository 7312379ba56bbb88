"""How a drafter is used, as a card says it: with this package, and without.

Code for readers; nothing of it runs here.
"""

import json

from hf_mmspec.quantise import WORDS

from .card_facts import CardFacts
from .names import EMBEDDED_TARGET, is_hub_id


def use(facts: CardFacts) -> list[str]:
    """Six lines or fewer, as they can be run."""
    place = "" if is_hub_id(facts.name) else "  # this folder"
    drafter = f"drafter = hf_mmspec.AutoDrafter.from_pretrained({json.dumps(facts.name)}, dtype=target.dtype){place}"
    answer = "output = target.generate(**inputs, assistant_model=drafter)  # inputs as always, from the processor"
    if facts.target == EMBEDDED_TARGET:
        return ["import hf_mmspec", "from hf_mmspec.demo import load_default", "", _embedded(facts), drafter, answer]
    target = facts.target if is_hub_id(facts.target) else f"path/of/{facts.target or 'the-target'}"
    auto = "AutoModelForImageTextToText" if facts.sees_pictures else "AutoModelForCausalLM"
    load = f"target = {auto}.from_pretrained({json.dumps(target)})"
    return ["import hf_mmspec", f"from transformers import {auto}", "", load, drafter, answer]


def _embedded(facts: CardFacts) -> str:
    """The embedded target in the form that the drafter learned from."""
    form = str(facts.training.get("target_quantization") or "").rpartition(" ")[2]
    return f"target, processor = load_default({f'quantize={form!r}' if form in WORDS else ''})".replace("'", '"')


def without_the_package(facts: CardFacts) -> list[str]:
    """How a published drafter is used where only transformers is installed; a folder has no such way."""
    if not is_hub_id(facts.name):
        return []
    return [
        f'Without hf\\_mmspec: `target.generate(**inputs, custom_generate="{facts.name}", trust_remote_code=True)`.'
    ]
