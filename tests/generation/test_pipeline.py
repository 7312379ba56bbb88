"""`pipeline(...)` as users call it: the same text with a drafter, which is really used; other assistants as ever."""

import re
import threading
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import (
    AnyToAnyPipeline,
    ImageTextToTextPipeline,
    LlamaForCausalLM,
    TextGenerationPipeline,
    TextIteratorStreamer,
    pipeline,
)
from transformers.pipelines import PIPELINE_REGISTRY, any_to_any

from hf_mmspec import pipelines
from hf_mmspec.modeling import DrafterLoadError, DrafterMismatchError, EagleDrafter, ViSpecDrafter
from hf_mmspec.pipelines import register_pipelines
from tests.evaluation.tiny import tiny_drafter, tiny_processor, tiny_target
from tests.generation.tiny import finish
from tests.hub import published
from tests.hub.published import LAYOUTS

TASK, TOKENS = "image-text-to-text", 10


@pytest.fixture(scope="module")
def target():
    return tiny_target()


@pytest.fixture(scope="module")
def processor():
    return tiny_processor()


@pytest.fixture
def drafter(target):
    return tiny_drafter(target)


@pytest.fixture
def folder(drafter, tmp_path):
    """A drafter's folder, which has no tokenizer."""
    drafter.save_pretrained(tmp_path / "drafter")
    return str(tmp_path / "drafter")


@pytest.fixture
def drafts(monkeypatch):
    """The drafters that read a prompt, in order."""
    used = []
    for family in (ViSpecDrafter, EagleDrafter):
        stock = family.prefill
        monkeypatch.setattr(
            family, "prefill", lambda self, *args, stock=stock: used.append(self) or stock(self, *args)
        )
    return used


def picture(colour="red"):
    return Image.new("RGB", (40, 30), colour)


def chat(*pictures, text="What is it?"):
    images = [{"type": "image", "image": each} for each in pictures]
    return [{"role": "user", "content": [*images, {"type": "text", "text": text}]}]


@pytest.fixture
def plain(target, processor):
    """Answers of the stock pipeline to a chat."""
    stock = ImageTextToTextPipeline(model=target, processor=processor, task=TASK, device="cpu")
    return lambda messages, **options: answer(stock, messages, **options)


def make(target, processor, **options):
    return pipeline(TASK, model=target, processor=processor, device="cpu", **options)


def answer(pipe, messages, **options):
    return pipe(messages, return_full_text=False, **{"max_new_tokens": TOKENS, **options})[0]["generated_text"]


CHATS = {"one picture": chat(picture()), "two": chat(picture(), picture("blue")), "none": chat(text="Hello")}


@pytest.mark.parametrize("messages", CHATS.values(), ids=CHATS)
def test_a_drafter_drafts_and_the_text_stays(target, processor, drafter, drafts, plain, messages):
    assert answer(make(target, processor, assistant_model=drafter), messages) == plain(messages) != ""
    assert drafts == [drafter]


@pytest.mark.parametrize("kind", [str, Path])
def test_a_folders_name_is_a_drafter_too(target, processor, folder, drafts, plain, kind):
    pipe = make(target, processor, assistant_model=kind(folder))
    assert answer(pipe, chat(picture())) == plain(chat(picture()))
    assert drafts == [pipe.assistant_model] and pipe.assistant_tokenizer is None
    assert pipe.assistant_model.generation_config.draft_depth == 2


def test_a_drafter_loaded_by_name_takes_the_targets_dtype(processor, folder):
    half = tiny_target().to(torch.bfloat16)
    loaded = make(half, processor, assistant_model=folder).assistant_model
    assert loaded.dtype == torch.bfloat16 and loaded.device == half.device and not loaded.training


def test_a_call_names_its_own_drafter(target, processor, drafter, folder, drafts, plain):
    pipe, messages = make(target, processor), chat(picture())
    expected = plain(messages)
    assert answer(pipe, messages) == expected and not drafts
    assert answer(pipe, messages, assistant_model=drafter) == expected and drafts == [drafter]
    assert answer(pipe, messages, assistant_model=folder) == expected and len(drafts) == 2
    assert answer(pipe, messages, generate_kwargs={"assistant_model": drafter}) == expected and len(drafts) == 3
    assert answer(pipe, messages) == expected and len(drafts) == 3, "the call's drafter stayed"


def test_a_call_is_stronger_than_the_pipeline(target, processor, drafter, drafts):
    other = tiny_drafter(target)
    pipe = make(target, processor, assistant_model=drafter)
    answer(pipe, chat(picture()), assistant_model=other)
    answer(pipe, chat(picture()), generate_kwargs={"assistant_model": other})
    answer(pipe, chat(picture()))
    assert drafts == [other, other, drafter]


def test_generate_kwargs_reach_generate_beside_the_drafter(target, processor, drafter, plain):
    options = {"repetition_penalty": 1.3, "min_new_tokens": 3}
    pipe = make(target, processor, assistant_model=drafter, generate_kwargs={**options, "draft_depth": 1})
    ours = pipe(chat(picture()), return_full_text=False)[0]["generated_text"]
    expected = plain(chat(picture()), max_new_tokens=256, generate_kwargs=options)
    assert ours == expected
    with pytest.raises(ValueError, match="depth must be"):
        answer(pipe, chat(picture()), generate_kwargs={"draft_depth": -1})


def test_many_chats_images_with_text_and_plain_text(target, processor, drafter):
    ours = make(target, processor, assistant_model=drafter)
    stock = ImageTextToTextPipeline(model=target, processor=processor, task=TASK, device="cpu")
    for inputs in (
        {"text": [chat(picture()), chat(picture(), picture("blue")), chat()], "return_full_text": True},
        {"images": picture(), "text": "<image> What?"},
        {"text": "Hello", "return_tensors": True},
    ):
        expected, got = stock(**inputs, max_new_tokens=TOKENS), ours(**inputs, max_new_tokens=TOKENS)
        assert str(got) == str(expected)


def test_a_stop_sequence_and_sampling(target, processor, drafter, plain):
    pipe = make(target, processor, assistant_model=drafter)
    stop = plain(chat(picture()))[3]
    options = {"stop_sequence": stop, "max_new_tokens": TOKENS}
    assert answer(pipe, chat(picture()), **options) == plain(chat(picture()), **options)
    sampled = {"generate_kwargs": {"do_sample": True, "temperature": 2.0, "draft_mode": "tree"}}
    torch.manual_seed(3)
    ours = answer(pipe, chat(picture()), **sampled)
    torch.manual_seed(3)
    assert ours == plain(chat(picture()), generate_kwargs={"do_sample": True, "temperature": 2.0})


def test_streaming(target, processor, drafter, plain):
    streamer = TextIteratorStreamer(processor.tokenizer, skip_prompt=True, skip_special_tokens=True)
    pipe = make(target, processor, assistant_model=drafter)
    arguments = {"max_new_tokens": TOKENS, "generate_kwargs": {"streamer": streamer}}
    thread = threading.Thread(target=pipe, args=(chat(picture()),), kwargs=arguments)
    thread.start()
    assert "".join(streamer) == plain(chat(picture()))
    thread.join()


@pytest.mark.parametrize("size", [1, 2])
def test_batches(target, processor, drafter, size):
    pipe = make(target, processor, assistant_model=drafter)
    chats = [chat(picture()), chat(picture("blue"))]
    single = [answer(pipe, each) for each in chats]
    together = pipe(chats, batch_size=size, max_new_tokens=TOKENS, return_full_text=False)
    assert [each[0]["generated_text"] for each in together] == single


@pytest.mark.parametrize("by_name", [False, True])
def test_the_drafter_of_another_target_is_refused_at_once(target, processor, folder, by_name):
    narrow = tiny_drafter(target)
    narrow.config.hidden_size = 16
    narrow.config.target_fingerprint = None
    if by_name:
        file = Path(folder) / "config.json"
        file.write_text(file.read_text().replace('"target_model_type": "llava"', '"target_model_type": "idefics3"'))
    with pytest.raises(DrafterMismatchError, match="made for"):
        make(target, processor, assistant_model=folder if by_name else narrow)


def test_a_drafter_without_weights_is_our_error_and_no_folder_is_transformers(target, processor, folder, tmp_path):
    (Path(folder) / "model.safetensors").unlink()
    with pytest.raises(OSError, match=r"model\.safetensors"):
        make(target, processor, assistant_model=folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises((OSError, ValueError)) as ours:
        make(target, processor, assistant_model=str(tmp_path / "empty"))
    with pytest.raises((OSError, ValueError)) as stock:
        ImageTextToTextPipeline(model=target, processor=processor, task=TASK, assistant_model=str(tmp_path / "empty"))
    assert str(ours.value) == str(stock.value) and not isinstance(ours.value, DrafterLoadError)


def test_published_checkpoints_go_by_name_where_their_config_names_no_class_of_transformers(tmp_path):
    recognised = {}
    for layout, make_layout in LAYOUTS.items():
        made = make_layout()
        source = published.save(tmp_path / layout, made.config, made.tensors(), "safetensors")
        recognised[layout] = pipelines.is_drafter(source)
    assert recognised["eagle3_specforge"] and recognised["msd_llava"]
    assert not recognised["msd_qwen2_vl"], "Qwen2VLForConditionalGeneration may be a true assistant"


def test_the_example_of_the_docs(target, processor, drafter, drafts, plain, tmp_path, monkeypatch):
    page = Path(__file__).parents[2] / "docs" / "how-it-works.md"
    example = next(block for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.S) if "pipe = " in block)
    monkeypatch.chdir(tmp_path)
    for part in (target, processor):
        part.save_pretrained("path/or/repo")
    drafter.save_pretrained("path/or/repo/of/its/drafter")
    picture().save("photo.jpg", quality=100)
    names = {}
    exec(example.replace("max_new_tokens=100", f"max_new_tokens={TOKENS}"), names)
    assert names["answer"] == plain(chat(Image.open("photo.jpg"), text="What is this?")) and len(drafts) == 1


# ---- assistants that are no drafters ----------------------------------------------------------------------------


@pytest.fixture
def stock_assistant(target, processor, tmp_path):
    """A small LLaVA with the target's vocabulary; and its folder."""
    assistant = tiny_target(seed=1)
    assistant.save_pretrained(tmp_path / "assistant")
    processor.save_pretrained(tmp_path / "assistant")
    return assistant, str(tmp_path / "assistant")


@pytest.mark.parametrize("by_name", [False, True])
def test_another_assistant_is_treated_as_without_us(target, processor, stock_assistant, by_name, monkeypatch):
    monkeypatch.setattr(pipelines, "fitting_drafter", lambda *_: pytest.fail("taken for a drafter"))
    assistant = stock_assistant[by_name]
    stock = ImageTextToTextPipeline(
        model=target, processor=processor, task=TASK, device="cpu", assistant_model=assistant
    )
    ours = make(target, processor, assistant_model=assistant)
    assert type(ours.assistant_model) is type(stock.assistant_model)
    assert ours.assistant_tokenizer is stock.assistant_tokenizer is None
    for name in ("_preprocess_params", "_forward_params", "_postprocess_params", "_generate_kwargs"):
        assert getattr(ours, name) == getattr(stock, name), name
    assert answer(ours, chat(picture())) == answer(stock, chat(picture()))
    options = {"assistant_model": stock_assistant[0]}
    assert ours._sanitize_parameters(**options) == stock._sanitize_parameters(**options)


def test_an_assistant_with_another_vocabulary_still_needs_its_tokenizer(target, processor):
    other = tiny_target()
    other.config.text_config.vocab_size = 999
    with pytest.raises(ValueError, match="You should pass the assistant tokenizer"):
        make(target, processor, assistant_model=other)


# ---- the other pipelines that generate, and the registration ----------------------------------------------------


def test_text_generation_with_a_language_model(processor, drafts):
    config = tiny_target().config.text_config
    torch.manual_seed(0)
    model = finish(LlamaForCausalLM(config))
    drafter = EagleDrafter.from_target(model)
    drafter.generation_config.draft_depth = 2  # or else its costs are measured, which reads prompts too
    drafter.generation_config.draft_top_k = 2
    drafter.generation_config.draft_total_tokens = 4
    options = {"model": model, "tokenizer": processor.tokenizer, "device": "cpu"}
    stock = TextGenerationPipeline(task="text-generation", **options)
    expected = stock("Hello", max_new_tokens=TOKENS, do_sample=False)
    pipe = pipeline("text-generation", assistant_model=drafter, **options)
    assert pipe("Hello", max_new_tokens=TOKENS, do_sample=False) == expected and drafts == [drafter]


def test_any_to_any(target, processor, drafter, drafts, monkeypatch):
    monkeypatch.setattr(any_to_any, "requires_backends", lambda *_: None)  # torchvision, for videos
    options = {"model": target, "processor": processor, "device": "cpu"}
    pipe = pipeline("any-to-any", assistant_model=drafter, **options)
    stock = AnyToAnyPipeline(task="any-to-any", **options)
    assert answer(pipe, chat(picture())) == answer(stock, chat(picture())) and drafts == [drafter]


def test_registering_twice_changes_nothing_and_others_stay(monkeypatch):
    before = {task: dict(entry) for task, entry in PIPELINE_REGISTRY.supported_tasks.items()}
    register_pipelines()
    assert before == PIPELINE_REGISTRY.supported_tasks
    monkeypatch.setitem(PIPELINE_REGISTRY.supported_tasks[TASK], "impl", "my.own.Pipeline")
    register_pipelines()
    assert PIPELINE_REGISTRY.supported_tasks[TASK]["impl"] == "my.own.Pipeline"


def test_the_pipeline_is_still_the_stock_one_for_everybody_else(target, processor):
    pipe = make(target, processor)
    assert isinstance(pipe, ImageTextToTextPipeline) and pipe.assistant_model is None
