"""What two configs tell about a drafter and a target, before any weights are loaded.

Reads config files, and of an authors' checkpoint the names of its tensors; loads no model.
"""

from transformers import AutoConfig, PreTrainedConfig

from hf_mmspec.auto import read_config
from hf_mmspec.demo.model.loader import ensure_merged
from hf_mmspec.generation.rope_border import exact_levels
from hf_mmspec.generation.tree_mask import LayerWindows
from hf_mmspec.generation.visual_spans import visual_token_ids
from hf_mmspec.hub.checkpoint import open_checkpoint
from hf_mmspec.hub.plan import make_plan
from hf_mmspec.hub.recognise import check_config, recognise
from hf_mmspec.modeling import FAMILIES, DrafterConfig, Eagle3Config
from hf_mmspec.modeling.binding import check_family, check_width, common_vocabulary

from .finding import FAIL, WARN, Finding, judged


def target_config(model: str | None) -> PreTrainedConfig:
    """The config of a folder or repository; None for the embedded default.

    Raises:
        OSError, ValueError: there is none, or transformers does not know the model.
    """
    if model is None:
        return AutoConfig.from_pretrained(ensure_merged())
    try:
        return AutoConfig.from_pretrained(model)
    except OSError as error:  # offline it does not say what was looked for
        raise OSError(f"{model}: no config of a target could be read: {error}") from error


def drafter_config(source: str) -> DrafterConfig:
    """The config of a drafter, or of what an authors' checkpoint becomes.

    Raises:
        OSError, ValueError: it is no drafter, or one that cannot be read.
    """
    model_type = read_config(source, {}).get("model_type")
    if model_type in FAMILIES:
        return FAMILIES[model_type][0].from_pretrained(source)
    checkpoint = open_checkpoint(source, check_config)
    return make_plan(checkpoint, recognise(checkpoint)).config


def compare_configs(drafter: DrafterConfig, target: PreTrainedConfig) -> list[Finding]:
    """All that the configs tell, each on a line of its own."""
    text = target.get_text_config(decoder=True)
    return [
        judged(
            "family",
            f"{drafter.model_type} drafter for {drafter.target_model_type or 'any type'}; target {target.model_type}",
            lambda: check_family(drafter, target.model_type),
        ),
        judged(
            "sizes",
            f"hidden size {drafter.target_width}; target {text.hidden_size}",
            lambda: check_width(drafter, text.hidden_size),
        ),
        _vocabulary(drafter, text.vocab_size),
        _layers(drafter, text.num_hidden_layers),
        _attention(target, text),
        _positions(drafter, text),
        _picture_token(drafter, target),
    ]


def _vocabulary(drafter: DrafterConfig, target_size: int) -> Finding:
    real = "" if drafter.real_vocab_size is None else f", {drafter.real_vocab_size} of them real"
    own = "" if drafter.draft_vocab_size is None else f", {drafter.draft_vocab_size} drafted"
    found = f"{drafter.vocab_size} tokens{real}{own}; target {target_size}"
    finding = judged("vocabulary", found, lambda: common_vocabulary(drafter, target_size))
    if finding.verdict == FAIL or target_size == drafter.vocab_size:
        return finding
    return Finding("vocabulary", found, WARN, "fine where only the padding differs: is it the same tokenizer?")


def _layers(drafter: DrafterConfig, count: int) -> Finding:
    if not isinstance(drafter, Eagle3Config):
        return Finding("layers", f"reads the last hidden state; target has {count} layers")
    taps = drafter.feature_layers
    if taps is None:
        return judged("layers", f"reads 2, n // 2, n - 3 of n = {count}", lambda: Eagle3Config.authors_taps(count))
    found = f"reads the inputs of layers {', '.join(map(str, taps))}; target has {count}"
    if max(taps) >= count:
        return Finding("layers", found, FAIL, "the drafter was made for a deeper target: use the one of this target")
    return Finding("layers", found)


def _attention(target: PreTrainedConfig, text: PreTrainedConfig) -> Finding:
    if target.is_encoder_decoder:
        return Finding("attention", "encoder-decoder", FAIL, "drafters here are for decoder-only targets")
    try:
        windows = LayerWindows.of(text)
    except ValueError as error:
        return Finding("attention", "layers that take no draft trees", FAIL, str(error))
    kinds = ["full attention"] * windows.has_full
    if windows.window is not None:
        kinds.append(f"windows of {windows.window} tokens")
    return Finding("attention", f"target has {' and '.join(kinds)}")


def _positions(drafter: DrafterConfig, text: PreTrainedConfig) -> Finding:
    own, target = drafter.max_position_embeddings, text.max_position_embeddings
    found = f"up to {own}; target up to {target}"
    if exact_levels(text, target, 1) == 0:
        advice = f"the target's rotary frequencies change from position {target} on: nothing is drafted there"
        return Finding("positions", found, WARN, advice)
    if own < target:
        advice = f"from position {own} on few drafts may be accepted; the text stays exact"
        return Finding("positions", found, WARN, advice)
    return Finding("positions", found)


def _picture_token(drafter: DrafterConfig, target: PreTrainedConfig) -> Finding:
    own, theirs = drafter.image_token_id, visual_token_ids(target).get("image")
    found = f"placeholder of images {_or_none(own)}; target {_or_none(theirs)}"
    if own is not None and own != theirs:
        return Finding("images", found, WARN, "the drafter was trained with another placeholder: check the processor")
    return Finding("images", found)


def _or_none(token: int | None) -> str:
    return "not recorded" if token is None else str(token)
