"""transformers' own assistants do what they do without us; what cannot be combined with a drafter says so."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    Gemma4AssistantConfig,
    Gemma4AssistantForCausalLM,
    Gemma4ForCausalLM,
    Gemma4TextConfig,
    GenerationMixin,
    Glm4MoeConfig,
    Glm4MoeForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MuseGlimmerAssistantConfig,
    MuseGlimmerAssistantModel,
)

from hf_mmspec.generation import speculative_decoding
from hf_mmspec.modeling import ViSpecDrafter
from tests.generation.tiny import _TEXT, finish, llama, llava, llava_prompt

PROMPT = {"input_ids": torch.arange(3, 20)[None]}
_SIZES = dict(hidden_size=32, intermediate_size=48, num_attention_heads=4, num_key_value_heads=2, head_dim=8)
_TOKENS = dict(vocab_size=120, pad_token_id=0, bos_token_id=1, eos_token_id=2)


def smaller_model(tmp_path):
    torch.manual_seed(1)
    smaller = finish(LlamaForCausalLM(LlamaConfig(**{**_TEXT, "num_hidden_layers": 1})))
    return llama(), PROMPT, dict(assistant_model=smaller)


def early_exit(tmp_path):
    return llama(), PROMPT, dict(assistant_early_exit=1)


def prompt_lookup(tmp_path):
    return llama(), {"input_ids": torch.tensor([[5, 6, 7, 8] * 4])}, dict(prompt_lookup_num_tokens=3)


def _glimmer_assistant():
    torch.manual_seed(1)
    own = dict(block_size=4, mask_token_id=3, target_layer_ids=[0, 1], num_hidden_layers=2, sliding_window=64)
    ids = dict(pad_token_id=0, bos_token_id=1, eos_token_id=2)
    return MuseGlimmerAssistantModel(MuseGlimmerAssistantConfig(**_SIZES, **own, **ids)).eval()


def dflash(tmp_path):
    return llama(), PROMPT, dict(assistant_model=_glimmer_assistant(), speculation_type="dflash")


def dflash_with_an_image(tmp_path):
    return llava(), llava_prompt(), dict(assistant_model=_glimmer_assistant(), speculation_type="dflash")


def gemma4(tmp_path):
    layers = dict(num_hidden_layers=2, layer_types=["sliding_attention", "full_attention"], sliding_window=64)
    unused = dict(vocab_size_per_layer_input=0, hidden_size_per_layer_input=0)
    fields = dict(**_SIZES, **_TOKENS, **layers, **unused, global_head_dim=8, max_position_embeddings=512)
    target = Gemma4ForCausalLM(Gemma4TextConfig(**fields, num_kv_shared_layers=0)).eval()
    shared = Gemma4TextConfig(**fields, num_kv_shared_layers=2)
    assistant = Gemma4AssistantForCausalLM(Gemma4AssistantConfig(text_config=shared, backbone_hidden_size=32)).eval()
    assistant.generation_config.num_assistant_tokens = 3
    return target, PROMPT, dict(assistant_model=assistant)


def mtp(tmp_path):
    """A model's third layer becomes the MTP layer of a model of two, as checkpoints number them."""
    experts = dict(n_routed_experts=4, num_experts_per_tok=2, moe_intermediate_size=16, first_k_dense_replace=1)
    fields = dict(**_SIZES, **_TOKENS, **experts, max_position_embeddings=512)
    Glm4MoeForCausalLM(Glm4MoeConfig(**fields, num_hidden_layers=3)).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    for name in ("enorm", "hnorm", "shared_head.norm"):
        weights[f"model.layers.2.{name}.weight"] = torch.ones(32)
    weights["model.layers.2.eh_proj.weight"] = torch.randn(32, 64) / 8
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    Glm4MoeConfig(**fields, num_hidden_layers=2, num_nextn_predict_layers=1).save_pretrained(tmp_path)
    target = Glm4MoeForCausalLM.from_pretrained(tmp_path).eval()
    target._keys_to_ignore_on_load_unexpected = [r"model\.layers\.2\."]
    return target, PROMPT, dict(use_mtp=True)


NATIVE = [smaller_model, early_exit, prompt_lookup, dflash, dflash_with_an_image, gemma4, mtp]


@pytest.fixture
def without_us(monkeypatch):
    """Gives `generate` back the methods that it had before the hook."""

    def restore():
        for name in ("_assisted_decoding", "_validate_generation_mode"):
            ours = getattr(GenerationMixin, name)
            assert ours.__module__ == GenerationMixin.__module__ and ours.__code__.co_filename.endswith("strategy.py")
            monkeypatch.setattr(GenerationMixin, name, ours.__wrapped__)

    return restore


@pytest.mark.parametrize("sampling", [dict(do_sample=False), dict(do_sample=True, temperature=1.5, top_k=20)])
@pytest.mark.parametrize("native", NATIVE)
def test_a_native_assistant_works_as_without_the_hook(native, sampling, tmp_path, without_us):
    target, prompt, way = native(tmp_path)
    asked = dict(max_new_tokens=14, return_dict_in_generate=True, output_scores=True, output_logits=True, **sampling)
    outputs = []
    for restore in (lambda: None, without_us):
        restore()
        torch.manual_seed(7)
        outputs.append(target.generate(**prompt, **asked, **way))
    ours, stock = outputs
    assert type(ours) is type(stock) and not hasattr(ours, "speculation")
    assert torch.equal(ours.sequences, stock.sequences)
    for name in ("scores", "logits"):
        assert len(getattr(ours, name)) == ours.sequences.shape[1] - prompt["input_ids"].shape[1]
        assert all(map(torch.equal, getattr(ours, name), getattr(stock, name)))


@pytest.mark.parametrize("native", NATIVE)
def test_a_native_assistant_and_a_drafter_take_turns_on_a_target(native, tmp_path):
    target, prompt, way = native(tmp_path)
    drafter = ViSpecDrafter.from_target(target)
    asked = dict(max_new_tokens=10, do_sample=False)
    plain = target.generate(**prompt, **asked)
    for each in (way, dict(assistant_model=drafter, draft_depth=2), way, dict(assistant_model=drafter), {}):
        assert torch.equal(target.generate(**prompt, **asked, **each), plain)


REFUSED = [
    (dict(use_mtp=True), "use_mtp=True drafts with the target's own MTP layers"),
    (dict(prompt_lookup_num_tokens=3), "prompt_lookup_num_tokens=3 drafts from the prompt"),
    (dict(assistant_early_exit=1), "assistant_early_exit=1 drafts with the target's lower layers"),
    (dict(speculation_type="dflash"), "speculation_type='dflash' is for assistants of transformers"),
    (dict(assistant_ensemble_weight=0.5), "assistant_ensemble_weight=0.5 changes the answer"),
]


@pytest.fixture
def computes_nothing(monkeypatch):
    """A target that must not run."""
    target = llama()
    monkeypatch.setattr(target, "forward", lambda *_, **__: pytest.fail("the target ran"))
    return target


@pytest.mark.parametrize(("other", "words"), REFUSED)
def test_a_drafter_with_another_way_of_drafting_is_refused_before_anything_runs(other, words, computes_nothing):
    drafter = ViSpecDrafter.from_target(computes_nothing)
    with pytest.raises(ValueError, match=f"{words}.*leave out one of the two"):
        computes_nothing.generate(**PROMPT, assistant_model=drafter, **other)


@pytest.mark.parametrize(("other", "words"), REFUSED[1:3])
def test_without_the_hook_the_same_is_refused(other, words, computes_nothing):
    drafter = ViSpecDrafter.from_target(computes_nothing)

    def ours(model, *args, **kwargs):
        return speculative_decoding(model, *args, assistant_model=drafter, **kwargs)

    with pytest.raises(ValueError, match=words):
        computes_nothing.generate(**PROMPT, custom_generate=ours, max_new_tokens=4, **other)


def test_an_assistants_tokenizer_is_refused_with_a_drafter(computes_nothing):
    drafter = ViSpecDrafter.from_target(computes_nothing)
    with pytest.raises(ValueError, match="leave out `assistant_tokenizer`"):
        computes_nothing.generate(**PROMPT, assistant_model=drafter, tokenizer=object(), assistant_tokenizer=object())


def test_another_way_in_the_models_generation_config_can_be_taken_back():
    target = llama()
    target.generation_config.prompt_lookup_num_tokens = 3
    drafter = ViSpecDrafter.from_target(target)
    asked = dict(**PROMPT, assistant_model=drafter, max_new_tokens=6, do_sample=False)
    with pytest.raises(ValueError, match="pass prompt_lookup_num_tokens=None"):
        target.generate(**asked)
    assert target.generate(**asked, prompt_lookup_num_tokens=None).shape == (1, 23)


@pytest.mark.parametrize("native", [smaller_model, prompt_lookup, dflash])
def test_a_draft_budget_without_a_drafter_is_refused(native, tmp_path):
    target, prompt, way = native(tmp_path)
    with pytest.raises(ValueError, match=r"draft_depth, draft_mode: only the drafters .* num_assistant_tokens"):
        target.generate(**prompt, draft_depth=3, draft_mode="tree", **way)
