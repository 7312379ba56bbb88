"""Batches of tiny prompts, padded on the left as a processor pads them, and what checks their rows."""

import torch

from . import tiny
from .doubles import OracleDrafter

PER_TOKEN = ("input_ids", "attention_mask", "mm_token_type_ids")


def prompts(family, rows, seed=0):
    """Single prompts of different lengths: row r has r % 3 images, from 0 to 2, of its own sizes."""
    return [tiny.PROMPTS[family](seed + row, images=(seed + row) % 3, length=3 + 4 * (row % 3)) for row in range(rows)]


def padded_to(values, length):
    """`values (1, L)` with zeros before them."""
    return torch.nn.functional.pad(values, (length - values.shape[1], 0))


def batch_of(singles):
    """One batch; pixels of all rows one after the other."""
    longest = max(single["input_ids"].shape[1] for single in singles)

    names = [name for name in PER_TOKEN if name in singles[0]]
    out = {name: torch.cat([padded_to(each[name], longest) for each in singles]) for name in names}
    for name in ("pixel_values", "image_grid_thw"):
        if found := [each[name] for each in singles if name in each]:
            out[name] = torch.cat(found)
    return out


def generate(model, inputs, **kwargs):
    """With everything that `generate` can return."""
    defaults = dict(do_sample=False, max_new_tokens=18, eos_token_id=tiny.EOS, pad_token_id=0)
    wanted = dict(return_dict_in_generate=True, output_scores=True, output_logits=True)
    return model.generate(**inputs, **{**defaults, **kwargs}, **wanted)


def answers_of(output, inputs):
    """New tokens of each row, padding included."""
    return output.sequences[:, inputs["input_ids"].shape[1] :].tolist()


class BatchOracle(OracleDrafter):
    """Always right about each row's own answer, which it knows by the prompt."""

    def __init__(self, target, singles, answers):
        super().__init__(target, ())
        keys = [tuple(each["input_ids"][0].tolist()) for each in singles]
        self.answers = dict(zip(keys, answers, strict=True))

    def prefill(self, prompt, next_token, borrowed):
        state = super().prefill(prompt, next_token, borrowed)
        return state | {"answer": self.answers[tuple(prompt.input_ids[0].tolist())]}

    def next_drafts(self, state, budget):
        self.answer = state["answer"]
        yield from super().next_drafts(state, budget)


class ScriptedAcceptance(BatchOracle):
    """In round i of row r exactly `script[(r + i) % len(script)]` drafts are right."""

    script = (4, 0, 2)

    def prefill(self, prompt, next_token, borrowed):
        row = list(self.answers).index(tuple(prompt.input_ids[0].tolist()))
        return super().prefill(prompt, next_token, borrowed) | {"turn": row}

    def extend(self, state, features, next_tokens):
        super().extend(state, features, next_tokens)
        state["turn"] += 1

    def next_drafts(self, state, budget):
        right = self.script[state["turn"] % len(self.script)]
        for depth, (best, others) in enumerate(super().next_drafts(state, budget)):
            if depth >= right:
                best, *others = [(token + 50) % 100 + 3 for token in (best, *others)]
                others = [token for token in others if token != best]
            yield best, others
