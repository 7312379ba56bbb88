"""What every drafter is: a `PreTrainedModel` that binds to a target, loads strictly, and drafts on a request's state.

Knows neither layers nor images; `row_drafter.py` adds both, each family its own inputs.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import GenerationConfig, PreTrainedModel
from transformers.dynamic_module_utils import custom_object_save
from transformers.utils.hub import resolve_revision

from .binding import DrafterMismatchError, borrow, describe_target, find_head, unwrap
from .configuration_drafter import DrafterConfig
from .draft_state import BorrowedParts, DraftState, TargetPrompt
from .draft_tree import DraftBudget, DraftTree
from .file_modes import follow_umask
from .guided_growth import Guidance
from .int8_linear import Int8Linear, has_int8_weights, round_linear_layers
from .own_embeddings import OwnEmbeddings, at_width
from .packed_weights import dtype_into, head_device, head_rows, input_device, unusable_layers
from .strict_loading import (
    HUB_OPTIONS,
    DrafterLoadError,
    check_draft_map,
    check_packed_layers,
    check_weight_files,
    load_generation_config,
    load_strictly,
)

__all__ = ["Drafter", "DrafterLoadError", "DrafterMismatchError"]

_PUSH_OPTIONS = ("repo_id", "commit_message", "create_pr", "private", "revision", "token")


class Drafter(PreTrainedModel):
    """Base of all drafters.

    Attributes:
        generation_config: saved and loaded with the weights; may carry `draft_depth`, `draft_top_k`,
            `draft_total_tokens` and `draft_mode`.
        lm_head: the drafter's own head over the reduced vocabulary, `(draft_vocab_size, hidden_size)`, or None where
            it borrows the target's.
        embed_tokens: the drafter's own embeddings, `(vocab_size, hidden_size)`, or None where it is as wide as the
            target and borrows the target's.
        d2t: `int64 (draft_vocab_size,)` offsets: draft id i means target id `i + d2t[i]` (only with an own head).
        takes_guidance: whether `propose` takes a `guidance` (see `guided_growth.py`): a run of tokens that is known to
            come next, and which tokens may follow. From other drafters the loop cuts what may not follow.
    """

    config_class = DrafterConfig
    base_model_prefix = "drafter"
    main_input_name = "features"
    _supports_sdpa = True
    takes_guidance = False
    d2t: torch.Tensor | None

    def __init__(self, config: DrafterConfig):
        super().__init__(config)
        self.generation_config = GenerationConfig()
        self.lm_head: nn.Linear | None = None
        self.embed_tokens: OwnEmbeddings | None = None
        self.register_buffer("d2t", None)
        if config.draft_vocab_size is not None:
            self.lm_head = nn.Linear(config.hidden_size, config.draft_vocab_size, bias=False)
            self.d2t = torch.zeros(config.draft_vocab_size, dtype=torch.long)
        if config.owns_embeddings:
            self.embed_tokens = OwnEmbeddings(config.vocab_size, config.hidden_size)

    # ---- what a family implements -------------------------------------------------------------------------------

    @property
    def feature_layers(self) -> tuple[int, ...] | None:
        """Target hidden states to read: None for the last one after the final norm (what the head consumes), or
        indices of decoder layers whose *inputs* (`hidden_states[i]` in transformers) are concatenated."""
        return None

    def feature_layers_of(self, target: Any) -> tuple[int, ...] | None:
        """The same for one target, where the layers depend on how many it has."""
        return self.feature_layers

    def prefill(self, prompt: TargetPrompt, next_token: torch.Tensor, borrowed: BorrowedParts) -> DraftState:
        """Read the prompt and the first token that the target emitted after it (`int64`, one element)."""
        raise NotImplementedError

    def resume(self, state: DraftState, prompt: TargetPrompt, next_token: torch.Tensor) -> DraftState:
        """Read on where a conversation goes on: `prompt` has the rows from its `start_position` on, and `state` was
        cropped to that position (or has read less). Takes over the state's cache.

        A drafter that does not implement it begins anew, with the new rows alone.
        """
        return self.prefill(prompt, next_token, state.borrowed)

    def propose(self, state: DraftState, budget: DraftBudget, temperature: float | None = None) -> DraftTree:
        """Draft from the last known token. With a `temperature` (chain mode) tokens are drawn, not maximised, and the
        tree carries `proposal_probs`. Leaves the state as it was."""
        raise NotImplementedError

    def extend(self, state: DraftState, features: torch.Tensor, next_tokens: torch.Tensor) -> None:
        """Advance by m accepted rows: their target features `(1, m, F)`, root first, and the token emitted after each
        of them, `int64 (1, m)`."""
        raise NotImplementedError

    # ---- several rows at once: by default one after the other ---------------------------------------------------

    def join(self, states: Sequence[Any]) -> Any:
        """What drafts for the rows of `states` side by side, in `propose_rows` and `extend_rows`."""
        return list(states)

    def select(self, state: Any, rows: Sequence[int]) -> Any:
        """Of what `join` returned, the given rows only; the others have ended."""
        return [state[row] for row in rows]

    def propose_rows(
        self,
        state: Any,
        budgets: Sequence[DraftBudget],
        temperature: float | None = None,
        guidances: Sequence[Guidance | None] | None = None,
    ) -> list[DraftTree]:
        """`propose` for each row with its own budget; budgets differ in `depth` at most.

        Args:
            guidances: each row's, for drafters with `takes_guidance`; without a forced run, as nothing is drafted
                behind one in a batch.
        """
        rows = zip(state, budgets, strict=True)
        if guidances is None:
            return [self.propose(own, budget, temperature) for own, budget in rows]
        propose: Any = self.propose  # of a drafter that takes them
        return [propose(*row, temperature, guidance=each) for row, each in zip(rows, guidances, strict=True)]

    def extend_rows(self, state: Any, features: Sequence[torch.Tensor], next_tokens: Sequence[torch.Tensor]) -> None:
        """`extend` for each row with its own number of accepted rows."""
        for own, rows, tokens in zip(state, features, next_tokens, strict=True):
            self.extend(own, rows, tokens)

    # ---- the target ---------------------------------------------------------------------------------------------

    def bind(self, target: Any) -> BorrowedParts:
        """Borrow the target's embeddings and head for a request; stores nothing.

        Raises:
            DrafterMismatchError: this drafter was made for another target, or the target has no head.
        """
        return borrow(self.config, target)

    @classmethod
    def from_target(cls, target: Any, draft_token_ids: torch.Tensor | None = None, **overrides):
        """An untrained drafter that fits `target`, on its device and in its floating dtype (quantised or not).

        Args:
            target: any model with a language-model head.
            draft_token_ids: `int64 (draft_vocab_size,)` target ids of a reduced vocabulary. Its head starts as a copy
                of the target's rows. With only `draft_vocab_size` given, the first ids are taken.
            overrides: config fields, stronger than what the target suggests.

        Raises:
            ValueError: `hidden_size` is not the target's, in a family that needs that.
        """
        if draft_token_ids is not None:
            overrides["draft_vocab_size"] = len(draft_token_ids)
        described = describe_target(target)
        config = cls.config_class(**{**described, **overrides})
        if config.target_width != described["hidden_size"]:
            raise ValueError(
                f"{cls.__name__} for hidden size {config.target_width} does not fit a target of "
                f"{described['hidden_size']}: leave hidden_size out. Only an Eagle3Drafter can have another one than "
                "its target."
            )
        drafter, head, model = cls(config), find_head(target), unwrap(target)
        dtype = dtype_into(head, model)
        if drafter.embed_tokens is not None:
            drafter.embed_tokens.start_from(model.get_input_embeddings())
        if drafter.lm_head is not None:
            ids = torch.arange(drafter.config.draft_vocab_size) if draft_token_ids is None else draft_token_ids
            drafter.set_draft_vocabulary(ids, head, dtype)
        return drafter.to(device=head_device(head) or model.device, dtype=dtype).eval()

    @torch.no_grad()
    def set_draft_vocabulary(self, token_ids: torch.Tensor, head: Any, dtype: torch.dtype = torch.float32) -> None:
        """Make draft id i mean `token_ids[i]`, and start the own head from those rows of the target's `head`, brought
        to the drafter's width.

        Args:
            dtype: what the head takes.

        Raises:
            ValueError: ids repeat or leave the target's vocabulary.
        """
        if self.lm_head is None or self.d2t is None:
            raise ValueError("this drafter borrows the target's head: set `draft_vocab_size` in its config")
        token_ids = token_ids.sort().values.to(self.d2t.device)
        d2t = token_ids - torch.arange(len(token_ids), device=token_ids.device)
        check_draft_map(d2t, self.config.vocab_size)
        self.d2t.copy_(d2t)
        rows = head_rows(head, token_ids, self.config.target_width, dtype)
        everything = torch.arange(len(rows), device=rows.device)
        self.lm_head.weight.copy_(at_width(lambda at: rows[at], everything, self.config.hidden_size))

    # ---- vocabulary ---------------------------------------------------------------------------------------------

    def draft_logits(self, hidden: torch.Tensor, borrowed: BorrowedParts | None = None) -> torch.Tensor:
        """`(..., hidden_size)` to logits over the draft vocabulary: the own head's, or the target's real tokens."""
        if self.lm_head is not None:
            logits = self.lm_head(hidden)
            if borrowed is not None and borrowed.vocab_size < self.config.vocab_size:
                ids = self.to_target_ids(torch.arange(logits.shape[-1], device=logits.device))
                logits = logits.masked_fill(ids >= borrowed.vocab_size, -math.inf)
            return logits
        if borrowed is None:
            raise ValueError("this drafter has no head of its own: pass what `bind(target)` returned")
        logits = borrowed.lm_head(borrowed.head_input(hidden))
        return logits[..., : borrowed.vocab_size].to(hidden.device)

    def to_target_ids(self, draft_ids: torch.Tensor) -> torch.Tensor:
        """Draft ids to target ids."""
        return draft_ids if self.d2t is None else draft_ids + self.d2t[draft_ids]

    def embed(self, ids: torch.Tensor, borrowed: BorrowedParts) -> torch.Tensor:
        """Embeddings of `ids` as the drafter reads them, the target's or its own, on its device and in its dtype."""
        if self.embed_tokens is not None:
            return self.embed_tokens(ids)
        weight = getattr(borrowed.embed_tokens, "weight", ids)
        return borrowed.embed_tokens(ids.to(input_device(weight))).to(device=self.device, dtype=self.dtype)

    def embed_inputs(self, inputs_embeds: torch.Tensor | None, input_ids: torch.Tensor | None) -> torch.Tensor:
        """A sequence's embeddings as the drafter reads them, `(B, L, hidden_size)`: the target's merged ones, or its
        own, in which a visual position is its placeholder's.

        Args:
            inputs_embeds: `(B, L, H)` merged embeddings of the target; a drafter with embeddings of its own needs
                none, or takes them at its own width.
            input_ids: `int64 (B, L)` expanded ids; only a drafter with embeddings of its own needs them.

        Raises:
            ValueError: what this drafter needs is missing.
        """
        if self.embed_tokens is not None and input_ids is not None:
            return self.embed_tokens(input_ids)
        if inputs_embeds is None or inputs_embeds.shape[-1] != self.config.hidden_size:
            needed = "input_ids, as its embeddings are its own" if self.config.owns_embeddings else "inputs_embeds"
            raise ValueError(f"this drafter (hidden size {self.config.hidden_size}) needs {needed}")
        return inputs_embeds

    def int8(self):
        """Rounds the weights of all linear layers to 8 bits, in place, and returns the drafter, as `.bfloat16()` does.

        A draft step on a processor reads every weight for a row or a few, and has half as many bytes to read. For
        drafting only: what is rounded cannot be trained or saved.
        """
        round_linear_layers(self.eval().requires_grad_(False))
        return self

    def _apply(self, fn, recurse=True):
        # `.to(dtype)` rounds buffers too. Rotary tables in half precision blur positions after the first hundreds, and
        # `from_pretrained(dtype=...)`, which keeps them precise, would then give another drafter.
        rounded = {f"{name}.scale" for name, each in self.named_modules() if isinstance(each, Int8Linear)}
        precise = {name: b for name, b in self.named_buffers() if b.is_floating_point() and name not in rounded}
        super()._apply(fn, recurse)
        for name, buffer in precise.items():
            moved, (owner, _, leaf) = self.get_buffer(name), name.rpartition(".")
            if moved.dtype != buffer.dtype:
                setattr(self.get_submodule(owner), leaf, buffer.to(moved.device))
        return self

    # ---- saving and loading -------------------------------------------------------------------------------------

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, output_loading_info: bool = False, **kwargs):
        """As `PreTrainedModel.from_pretrained`, but strict, and from safetensors only: a pickle is never opened.

        Raises:
            DrafterLoadError: a file is corrupt, or weights are missing, unexpected or misshaped, or are not in
                safetensors files of its own; or this processor cannot run them in 4 bits.
            ValueError: config.json has unknown fields, or the draft vocabulary's map is bad.
        """
        path = pretrained_model_name_or_path
        where = {k: kwargs[k] for k in ("revision", "token", "local_files_only", "cache_dir") if k in kwargs}
        kwargs["revision"] = resolve_revision(path, **where)  # all files are of one commit
        options = {k: kwargs[k] for k in HUB_OPTIONS if k in kwargs}
        check_weight_files(path, options)
        kwargs["use_safetensors"] = True
        model, report = load_strictly(super().from_pretrained, path, *args, **kwargs)
        if model.lm_head is not None:
            check_draft_map(model.d2t, model.config.vocab_size)
        check_packed_layers(unusable_layers(model))
        model.generation_config = load_generation_config(path, options)
        return (model, report) if output_loading_info else model

    @classmethod
    def auto_map(cls) -> dict[str, str]:
        """config.json's `auto_map`: the classes that the Auto classes find in the flat files beside it."""
        classes: dict[str, type] = {"AutoConfig": cls.config_class, "AutoModel": cls}
        return {auto: f"{c.__module__.rpartition('.')[2]}.{c.__name__}" for auto, c in classes.items()}

    def save_pretrained(self, save_directory: str | Path, push_to_hub: bool = False, **kwargs) -> None:
        """As `PreTrainedModel.save_pretrained`, with generation_config.json and, as remote code, the modules that this
        family needs: the folder loads where hf_mmspec is not installed. Files follow the umask.

        Raises:
            ValueError: the weights were rounded by `int8`.
        """
        if has_int8_weights(self):
            raise ValueError("this drafter's weights were rounded by int8(): save it before that, or load it again")
        hub = {name: kwargs.pop(name) for name in _PUSH_OPTIONS if name in kwargs and push_to_hub}
        self.config.auto_map = self.auto_map()
        super().save_pretrained(save_directory, **kwargs)
        self.generation_config.save_pretrained(save_directory)
        if kwargs.get("is_main_process", True):
            custom_object_save(self, save_directory)
        follow_umask(*Path(save_directory).glob("*.safetensors"))
        if push_to_hub:
            self.push_to_hub(hub.pop("repo_id", Path(save_directory).name), **hub)
