"""Scripted drafters: one that is almost always wrong, one that is always right, one that follows a script.

They go through the same interface as real drafters, so that the loop is tested apart from any model.
"""

import torch

from hf_mmspec.modeling import Drafter, DrafterConfig, DraftTree


class ScriptedDrafter(Drafter):
    """Base of the doubles: counts rows and tokens, proposes what `next_drafts` says, in any tree shape."""

    config_class = DrafterConfig

    def __init__(self, target):
        text = target.config.get_text_config()
        super().__init__(DrafterConfig(vocab_size=text.vocab_size, hidden_size=text.hidden_size))
        self.prompts = []

    def prefill(self, prompt, next_token, borrowed):
        self.prompts.append(prompt)
        assert prompt.features.shape[:2] == prompt.inputs_embeds.shape[:2]
        return {"emitted": next_token[0].tolist(), "rows": prompt.features.shape[1]}

    def extend(self, state, features, next_tokens):
        assert features.shape[1] == next_tokens.shape[1]
        state["emitted"] += next_tokens[0].tolist()
        state["rows"] += features.shape[1]

    def propose(self, state, budget, temperature=None):
        tokens, parents, depths, spine = [state["emitted"][-1]], [-1], [0], 0
        for depth, (best, others) in enumerate(self.next_drafts(state, budget), start=1):
            # The best guess comes last, so that accepted paths are not simply the first rows of the cache.
            level = [best] if budget.mode == "chain" else [*others, best]
            if len(tokens) + len(level) > budget.total_tokens:
                break
            tokens += level
            parents += [spine] * len(level)
            depths += [depth] * len(level)
            spine = len(tokens) - 1
        scores = -torch.arange(len(tokens), dtype=torch.float)
        return DraftTree(torch.tensor(tokens), torch.tensor(parents), torch.tensor(depths), scores)

    def next_drafts(self, state, budget):
        """Yield per level the best guess, which gets the next level as children, and `top_k - 1` others."""
        raise NotImplementedError


class RandomDrafter(ScriptedDrafter):
    """Almost always wrong."""

    def next_drafts(self, state, budget):
        generator = torch.Generator().manual_seed(len(state["emitted"]))
        for _ in range(budget.levels):
            best, *others = torch.randperm(self.config.vocab_size, generator=generator)[: budget.top_k].tolist()
            yield best, others


class OracleDrafter(ScriptedDrafter):
    """Always right about `answer`, the target's own new tokens."""

    def __init__(self, target, answer):
        super().__init__(target)
        self.answer = list(answer)

    def next_drafts(self, state, budget):
        done = len(state["emitted"])
        # Past the answer the oracle goes on, so that every stop falls inside an accepted block.
        for token in (self.answer[done:] + self.answer * budget.levels)[: budget.levels]:
            yield token, [(token + shift) % self.config.vocab_size for shift in range(1, budget.top_k)]
