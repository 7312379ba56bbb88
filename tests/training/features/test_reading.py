"""What the target saw: features, embeddings and spans of a padded batch are those of each answer on its own."""

import pytest
import torch

from hf_mmspec.data import model_inputs
from hf_mmspec.training.answers.answering import Answering, answer_batch
from hf_mmspec.training.features.reading import Answered, OtherPromptError, Reader, image_sizes
from tests.evaluation.tiny import tiny_processor
from tests.training.making import conversation

TAPS = (0, 1)


def asked(pictures=(1, 0, 2)):
    return [conversation(seed, count) for seed, count in enumerate(pictures)]


def answered_by(target, processor, conversations, tokens=6):
    return answer_batch(target, processor, conversations, Answering(max_new_tokens=tokens))


def alone(target, processor, answered):
    """Hidden states and merged embeddings of one answer, from a single forward without padding."""
    inputs = model_inputs(processor, [answered.conversation])
    ids = torch.tensor([list(answered.ids)])
    grown = len(answered.ids) - answered.prompt_length
    for name in set(inputs) & {"mm_token_type_ids", "token_type_ids"}:
        inputs[name] = torch.nn.functional.pad(inputs[name], (0, grown))
    inputs["input_ids"], inputs["attention_mask"] = ids, torch.ones_like(ids)
    decoder = target.get_decoder()
    states = {}
    hooks = [
        layer.register_forward_pre_hook(
            lambda module, args, kwargs, i=i: states.__setitem__(i, args[0] if args else kwargs["hidden_states"]),
            with_kwargs=True,
        )
        for i, layer in enumerate(decoder.layers)
    ]
    last = target.model(**inputs).last_hidden_state[0, :-1]
    for hook in hooks:
        hook.remove()
    return last, torch.cat([states[i] for i in TAPS], dim=-1)[0, :-1]


def image_features(target, processor, conversation):
    """As the target encodes them."""
    inputs = model_inputs(processor, [conversation])
    pixels = {name: inputs[name] for name in inputs if name in ("pixel_values", "image_grid_thw")}
    return target.get_image_features(**pixels).pooler_output


@torch.no_grad()
@pytest.mark.parametrize("layers", [None, TAPS])
def test_records_hold_what_the_target_saw(pair, layers):
    target, processor = pair
    answered = answered_by(target, processor, asked((1, 0)))
    for each, record in zip(answered, Reader(target, processor, layers).read(answered), strict=True):
        last, taps = alone(target, processor, each)
        assert record.ids.tolist() == list(each.ids)
        assert record.prompt_length == each.prompt_length
        assert record.task == "t"
        close = dict(atol=2e-4 * last.abs().max().item(), rtol=1e-4)
        if layers is None:
            assert record.states is None
            torch.testing.assert_close(record.features, last, **close)
        else:
            torch.testing.assert_close(record.states, last, **close)
            torch.testing.assert_close(record.features, taps, atol=1e-3, rtol=1e-4)


@torch.no_grad()
def test_pictures_are_where_and_what_the_target_saw(pair):
    target, processor = pair
    answered = answered_by(target, processor, asked((0, 2)), tokens=2)
    image_token = target.config.image_token_id
    for each, record in zip(answered, Reader(target, processor).read(answered), strict=True):
        assert len(record.spans) == len(each.conversation.pictures)
        where = [i for start, stop in record.spans for i in range(start, stop)]
        assert where == [i for i, token in enumerate(each.ids) if token == image_token]
        if not record.spans:
            assert record.image_embeds.shape == (0, target.config.get_text_config().hidden_size)
            continue
        encoded = image_features(target, processor, each.conversation)
        assert [stop - start for start, stop in record.spans] == [len(picture) for picture in encoded]
        torch.testing.assert_close(record.image_embeds, torch.cat(list(encoded)), atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_pictures_side_by_side_are_two(llava):
    target, processor = llava[0], tiny_processor()
    processor.chat_template = processor.chat_template.replace("'<image>\\n'", "'<image>'")
    answered = answered_by(target, processor, asked((2, 1)), tokens=4)
    two, one = Reader(target, processor).read(answered)
    (first, middle), (again, last) = two.spans
    assert middle == again
    assert (middle - first, last - middle) == (144, 144)
    assert len(one.spans) == 1


def test_a_processor_that_makes_other_tokens_is_refused(llava):
    target, processor = llava
    (answered,) = answered_by(target, processor, asked((1,)), tokens=4)
    longer, other = list(answered.ids), list(answered.ids)
    other[1] = other[1] + 1
    for ids, length in ((longer, answered.prompt_length + 1), (other, answered.prompt_length)):
        with pytest.raises(OtherPromptError, match=r"'t/0'.* distil again"):
            Reader(target, processor).read([Answered(answered.conversation, ids, length)])


def test_states_are_kept_in_the_dtype_that_is_asked_for(qwen):
    target, processor = qwen
    answered = answered_by(target, processor, asked((1,)), tokens=4)
    (record,) = Reader(target, processor, TAPS, torch.bfloat16).read(answered)
    assert {record.features.dtype, record.states.dtype, record.image_embeds.dtype} == {torch.bfloat16}


@torch.no_grad()
def test_records_of_a_batch_hold_no_more_than_the_batch(qwen):
    """Their states are views of one tensor, not of a copy for each record."""
    target, processor = qwen
    records = Reader(target, processor, TAPS).read(answered_by(target, processor, asked((1, 0, 2)), tokens=4))
    for name in ("features", "states"):
        assert len({getattr(record, name).untyped_storage().data_ptr() for record in records}) == 1


def test_sizes_of_pictures_where_the_model_tells():
    class Outputs:
        image_outputs = type("", (), {"pooler_output": [torch.zeros(n, 8) for n in (4, 2, 3)]})

    assert image_sizes(Outputs, [1, 0, 2]) == [[4], [], [2, 3]]
    assert image_sizes(Outputs, [1, 1]) == [None, None]  # tiles, not pictures
    assert image_sizes(object(), [1]) == [None]
