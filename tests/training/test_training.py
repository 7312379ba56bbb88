"""The whole way on a tiny random target: distil, train, measure. What is trained on is accepted in serving."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

import hf_mmspec  # noqa: F401  (teaches `generate` about drafters)
from hf_mmspec.modeling import ViSpecDrafter
from hf_mmspec.training import distil as distil_module
from hf_mmspec.training.acceptance import acceptance_length, measure_ranks, replay
from hf_mmspec.training.distil import (
    Answering,
    Prompt,
    answer_batch,
    answer_end,
    distil,
    estimate_bytes,
    known_answers,
)
from hf_mmspec.training.records import load_folder, write_answers
from hf_mmspec.training.trainer import Stage, TargetParts, Trainer, rate_at, unrolled_loss
from hf_mmspec.training.warm_start import warm_start
from tests.generation import tiny

HOW = Answering(max_new_tokens=16, batch_size=4)


class TinyProcessor:
    """Stands for a processor: a message's text is the seed of a prompt."""

    tokenizer = SimpleNamespace(padding_side="right")

    def apply_chat_template(self, conversations, processor_kwargs, **_):
        single = isinstance(conversations[0], dict)
        prompts = [tiny.llava_prompt(**m[0]["content"]) for m in ([conversations] if single else conversations)]
        width = max(prompt["input_ids"].shape[1] for prompt in prompts)
        batch = {"input_ids": [], "attention_mask": []}
        for prompt in prompts:
            padding = width - prompt["input_ids"].shape[1]
            for name in batch:
                left = self.tokenizer.padding_side == "left"
                batch[name].append(torch.nn.functional.pad(prompt[name], (padding, 0) if left else (0, padding)))
        pixels = [prompt["pixel_values"] for prompt in prompts if "pixel_values" in prompt]
        inputs = {name: torch.cat(rows) for name, rows in batch.items()}
        return Inputs({**inputs, **({"pixel_values": torch.cat(pixels)} if pixels else {})})


class Inputs(dict):
    """A batch that moves, as transformers' does."""

    def to(self, *_):
        return self


def prompts(count=8, images=1):
    # even seeds: the images of a prompt are apart, as chat templates make them
    return [
        Prompt(
            [{"role": "user", "content": {"seed": 2 * i, "images": images, "length": 5 + i % 3}}],
            {"task": "t", "seed": i},
        )
        for i in range(count)
    ]


@pytest.fixture(scope="module")
def target():
    """As sure of its tokens as a trained model is."""
    model = tiny.llava()
    model.lm_head.weight.data.mul_(4)
    return model


@pytest.fixture(scope="module")
def records(target):
    return [r for first in (0, 4) for r in answer_batch(target, TinyProcessor(), prompts()[first : first + 4], HOW)]


@torch.no_grad()
def test_records_hold_what_the_target_saw(target, records):
    """Features and embeddings of a left-padded batch are those of each prompt on its own."""
    for prompt, record in zip(prompts(), records, strict=True):
        inputs = tiny.llava_prompt(**prompt.messages[0]["content"])
        assert torch.equal(record.ids[: record.prompt_length], inputs["input_ids"][0])
        alone = target.generate(**inputs, do_sample=False, max_new_tokens=16)
        assert alone[0].tolist() == record.ids.tolist()
        full = target.model(input_ids=record.ids[None, :-1], pixel_values=inputs["pixel_values"]).last_hidden_state
        torch.testing.assert_close(record.features.float(), full[0], atol=0.05, rtol=0.02)  # bf16
        (start, stop), images = record.spans[0], target.get_image_features(inputs["pixel_values"]).pooler_output
        assert stop - start == tiny.LLAVA_IMAGE_TOKENS
        torch.testing.assert_close(record.image_embeds.float(), images[0].float(), atol=0.05, rtol=0.02)


def test_several_images_and_none(target):
    two, none = (answer_batch(target, TinyProcessor(), prompts(3, images), HOW) for images in (2, 0))
    assert all(len(record.spans) == 2 and len(record.image_embeds) == 32 for record in two)
    assert all(record.spans == [] and record.image_embeds.shape == (0, tiny.HIDDEN) for record in none)


def test_distillation_resumes(target, tmp_path, monkeypatch):
    calls = []
    original = distil_module.answer_batch

    def counted(*args, **kwargs):
        calls.append(1)
        return original(*args, **kwargs)

    monkeypatch.setattr(distil_module, "answer_batch", counted)
    made = [record for batch in distil(target, TinyProcessor(), prompts(6), tmp_path, HOW) for record in batch]
    assert (len(made), len(calls)) == (6, 2)
    (tmp_path / "00001.safetensors").unlink()
    list(distil(target, TinyProcessor(), prompts(6), tmp_path, HOW))
    assert len(calls) == 3
    assert [r.ids.tolist() for r in load_folder(tmp_path)] == [r.ids.tolist() for r in made]


@pytest.mark.parametrize("images", [0, 1, 2])
def test_known_answers_need_no_decoding(target, tmp_path, monkeypatch, images):
    """Replaying an answer gives the record that decoding gave."""
    asked = prompts(6, images)
    made = [r for batch in distil(target, TinyProcessor(), asked, tmp_path / "a", HOW) for r in batch]
    write_answers(tmp_path / "answers.jsonl", made)
    monkeypatch.setattr(target, "generate", None)
    known = known_answers(tmp_path / "answers.jsonl")
    again = [r for batch in distil(target, TinyProcessor(), asked, tmp_path / "b", HOW, known) for r in batch]
    for before, after in zip(made, again, strict=True):
        assert before.ids.tolist() == after.ids.tolist()
        assert (before.prompt_length, before.spans, before.source) == (after.prompt_length, after.spans, after.source)
        torch.testing.assert_close(before.features.float(), after.features.float(), atol=0.05, rtol=0.02)
        torch.testing.assert_close(before.image_embeds.float(), after.image_embeds.float(), atol=0.05, rtol=0.02)


def test_distillation_stops_before_a_full_disk(target, tmp_path, monkeypatch):
    monkeypatch.setattr(distil_module.shutil, "disk_usage", lambda _: SimpleNamespace(free=100))
    with pytest.raises(OSError, match="GB free"):
        next(distil(target, TinyProcessor(), prompts(2), tmp_path, HOW))
    assert not list(tmp_path.glob("*.safetensors"))
    assert estimate_bytes(target, 1000, 330) == 1000 * 330 * (2 * tiny.HIDDEN + 8)


def test_drawn_answers_differ_and_repeat(target):
    drawn = replace(HOW, temperature=1.0)
    first, again = (answer_batch(target, TinyProcessor(), prompts(4), drawn, seed=1) for _ in range(2))
    other = answer_batch(target, TinyProcessor(), prompts(4), drawn, seed=2)
    assert [r.answer for r in first] == [r.answer for r in again]
    assert [r.answer for r in first] != [r.answer for r in other]


def test_answer_end():
    ids = torch.tensor([2, 5, 6, 2, 2, 9])
    assert answer_end(ids, 1, {2}) == 4
    assert answer_end(ids, 1, {7}) == 6


def untrained(target):
    torch.manual_seed(0)
    return ViSpecDrafter.from_target(target, draft_vocab_size=tiny.VOCAB)


def test_overfit_answers_are_accepted_in_serving(target, records, tmp_path):
    """SpecForge issue 455: what was learned by heart must be accepted by the code that serves."""
    drafter = untrained(target)
    parts = TargetParts.of(target, drafter)
    budget = {"draft_depth": 3, "draft_top_k": 3, "draft_total_tokens": 12}
    before = acceptance_length(target, TinyProcessor(), drafter, prompts(), max_new_tokens=16, **budget)["all"]
    trainer = Trainer(drafter, parts, tmp_path, lambda d: measure_ranks(d, parts, records).chain, validate_every=50)
    trainer.fit(Stage("learn", 120, learning_rate=3e-3, regression=0.1, batch_size=8), records)
    lengths = acceptance_length(target, TinyProcessor(), drafter, prompts(), max_new_tokens=16, **budget)
    assert lengths["all"] > 2.8  # at most 4, and the answers' ends cut rounds short
    assert before < 1.5
    assert set(lengths) == {"all", "t"}
    ranks = measure_ranks(drafter, parts, records, depth=3)
    assert ranks.by_rank[0][0] > 0.8
    assert all(0 <= share <= 1 for share in ranks.by_depth)


def test_chain_acceptance_by_ranks_equals_serving(target, records):
    """The quick measure from records and the true one through `generate` agree on chains."""
    drafter = untrained(target)
    parts = TargetParts.of(target, drafter)
    warm_start(drafter, parts, records)
    quick = measure_ranks(drafter, parts, records, depth=1).chain
    chain = {"draft_depth": 1, "draft_top_k": 1, "draft_total_tokens": 2, "draft_mode": "chain"}
    served = acceptance_length(target, TinyProcessor(), drafter, prompts(), max_new_tokens=16, **chain)["all"]
    assert served - 1 == pytest.approx(quick, abs=0.1)  # the records are fewer answers than the prompts


def test_replay_cuts_an_answer_into_rounds():
    """Width 2: a rank below 2 is accepted, a miss ends the round and its token is the target's own."""
    table = torch.tensor([[0, 1, 5, 0, 0, 1, 0], [0, 0, 9, 0, 7, 0, 0], [0, 0, 3, 0, 0, 0, 0]])
    assert replay(table, 2) == [[0, 0, 3], [0, 7], [1, 0]]
    assert replay(table, 10) == [[0, 0, 3], [0, 0, 0]]
    assert [len(round_) for round_ in replay(torch.zeros(3, 9, dtype=torch.long), 1)] == [3, 3, 1]


def test_warm_start_beats_noise(target, records):
    drafter = untrained(target)
    parts = TargetParts.of(target, drafter)
    noise = measure_ranks(drafter, parts, records).chain
    warm_start(drafter, parts, records)
    assert measure_ranks(drafter, parts, records).chain > noise + 0.2


def test_training_resumes_to_the_same_weights(target, records, tmp_path):
    stage = Stage("s", epochs=6, batch_size=4, unroll=2)

    def run(folder, stop_after=None):
        drafter = untrained(target)
        parts = TargetParts.of(target, drafter)
        calls = []

        def validate(_):
            calls.append(1)
            if len(calls) == stop_after:
                raise KeyboardInterrupt
            return float(len(calls))

        Trainer(drafter, parts, folder, validate, validate_every=4).fit(stage, records)
        return drafter.state_dict()

    whole = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", stop_after=2)
    resumed = run(tmp_path / "cut")
    for name, tensor in whole.items():
        assert torch.equal(tensor, resumed[name]), name
    with pytest.raises(ValueError, match="other settings"):
        drafter = untrained(target)
        Trainer(drafter, TargetParts.of(target, drafter), tmp_path / "cut", lambda _: 0.0).fit(
            replace(stage, unroll=3), records
        )


def test_the_best_weights_are_kept_not_the_last(target, records, tmp_path):
    """DeepSpec issue 84: acceptance can fall while the loss does too."""
    drafter = untrained(target)
    scores, seen = iter([1.0, 5.0, 2.0]), []

    def validate(candidate):
        seen.append({name: tensor.clone() for name, tensor in candidate.state_dict().items()})
        return next(scores)

    Trainer(drafter, TargetParts.of(target, drafter), tmp_path, validate, validate_every=2).fit(
        Stage("s", epochs=3, batch_size=4), records
    )
    assert len(seen) == 3
    assert all(torch.equal(drafter.state_dict()[name], tensor) for name, tensor in seen[1].items())


@pytest.mark.parametrize("loss", ["soft_cross_entropy", "vispec"])
def test_losses_fall(target, records, loss):
    from hf_mmspec.training.batches import collate

    drafter = untrained(target)
    parts = TargetParts.of(target, drafter)
    batch, stage = collate(records, parts.embed), Stage("s", 1, loss=loss, noise=0.1)
    optimizer = torch.optim.AdamW(drafter.parameters(), lr=1e-3)
    losses = []
    for _ in range(15):
        value = unrolled_loss(drafter, batch, parts, stage)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        losses.append(value.item())
    assert losses[-1] < losses[0]


def test_a_drafter_without_head_is_refused(target, tmp_path):
    drafter = ViSpecDrafter.from_target(target)
    with pytest.raises(ValueError, match="draft_vocab_size"):
        Trainer(drafter, TargetParts.of(target, drafter), tmp_path, lambda _: 0.0)


def test_learning_rate():
    assert rate_at(0, 0.1) < 0.02
    assert rate_at(0.1, 0.1) == pytest.approx(1)
    assert rate_at(1, 0.1) == pytest.approx(0.1)
