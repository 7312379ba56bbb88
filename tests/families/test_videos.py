"""Videos: each frame has a span of its own, and answers are those of `generate`, with pictures beside them too."""

import pytest
import torch

from hf_mmspec.modeling import FAMILIES as DRAFTER_FAMILIES
from hf_mmspec.modeling.image_adaptor import ImageAdaptor
from tests.generation import tiny
from tests.generation.batches import batch_of
from tests.generation.doubles import OracleDrafter
from tests.generation.test_every_family import SHAPES, build
from tests.generation.test_lossless_greedy import assert_same, new_tokens, run

from .dense import FAMILIES as DENSE
from .mrope import FAMILIES as MROPE
from .parts import PATCH, SIDE, VIDEO_TOKEN, VISION_END, VISION_START

DRAFTERS = ("vispec", "msd", "flash", "eagle", "eagle3")
TARGETS = {"Qwen2.5-VL": MROPE, "Qwen3-VL": MROPE, "LLaVA-OneVision": DENSE}
STAMP = [20, 21]  # Qwen3-VL writes the time before each frame
FRAME_TOKENS = 4
NEW = dict(max_new_tokens=16)


class Prompt:
    """Builds a prompt part by part, and notes where its pictures and frames stand."""

    def __init__(self, name, seed=0):
        self.name, self.ids, self.spans, self.generator = name, [1, 5, 6], [], torch.Generator().manual_seed(seed)
        self.pictures, self.videos, self.grids = [], [], {"image": [], "video": []}

    def random(self, *shape):
        return torch.randn(*shape, generator=self.generator)

    def visual(self, token, *counts):
        """Adjacent spans of so many tokens."""
        for count in counts:
            self.spans.append((len(self.ids), len(self.ids) + count))
            self.ids += [token] * count

    def text(self, *ids):
        self.ids += ids
        return self

    def picture(self):
        """52 tokens of LLaVA-OneVision's overview and tiles, 6 of Qwen's grid."""
        if self.name == "LLaVA-OneVision":
            self.pictures.append(self.random(1, 3, 3, SIDE, SIDE))
            self.visual(tiny.IMAGE_TOKEN, 52)
        else:
            self.pictures.append(self.random(4 * 6, 6 * PATCH**2))
            self.grids["image"].append([1, 4, 6])
            self.text(VISION_START).visual(tiny.IMAGE_TOKEN, 6)
            self.text(VISION_END)
        return self

    def video(self, frames):
        if self.name == "LLaVA-OneVision":
            self.videos.append(self.random(1, frames, 3, SIDE, SIDE))
            # the last token ends the video
            self.visual(VIDEO_TOKEN, *[FRAME_TOKENS] * (frames - 1), FRAME_TOKENS + 1)
            return self
        self.videos.append(self.random(frames * 4 * 4, 6 * PATCH**2))
        self.grids["video"].append([frames, 4, 4])
        if self.name == "Qwen2.5-VL":
            self.text(VISION_START).visual(VIDEO_TOKEN, *[FRAME_TOKENS] * frames)
            return self.text(VISION_END)
        for _ in range(frames):
            self.text(*STAMP, VISION_START).visual(VIDEO_TOKEN, FRAME_TOKENS)
            self.text(VISION_END)
        return self

    def inputs(self):
        inputs = TARGETS[self.name][self.name].inputs(self.ids)
        for key, pixels in {"pixel_values": self.pictures, "pixel_values_videos": self.videos}.items():
            if pixels:
                inputs[key] = torch.cat(pixels)
        for modality, grids in self.grids.items():
            if grids:
                inputs[f"{modality}_grid_thw"] = torch.tensor(grids)
        if self.name == "LLaVA-OneVision" and self.pictures:
            inputs["image_sizes"] = torch.tensor([[SIDE, 2 * SIDE]] * len(self.pictures))
        return inputs


def prompts(name):
    """A video; a video between pictures; two videos one after the other; one that ends the prompt."""
    return [
        Prompt(name).video(3).text(7, 8, 9),
        Prompt(name, 1).picture().text(9).video(2).text(8, 9).picture().text(5),
        Prompt(name, 2).video(3).video(3).text(9, 10),
        Prompt(name, 3).text(30).video(2),
    ]


@pytest.fixture(scope="module", params=TARGETS)
def target(request):
    """A model, its prompts, and what `generate` answers to them without a drafter."""
    model = TARGETS[request.param][request.param].model()
    made = prompts(request.param)
    return model, [(each.spans, each.inputs(), run(model, each.inputs(), **NEW)) for each in made]


def test_every_frame_is_a_span(target):
    model, answers = target
    for spans, inputs, expected in answers:
        drafter = OracleDrafter(model, new_tokens(expected[0], inputs))
        assert_same(expected, run(model, inputs, assistant_model=drafter, **SHAPES["tree"], **NEW), spans)
        assert drafter.prompts[0].visual_spans == spans


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", DRAFTERS)
def test_same_as_generate(target, name, shape):
    model, answers = target
    accepted = 0
    for spans, inputs, expected in answers:
        drafter = build(name, model, torch.tensor(new_tokens(expected[0], inputs)).unique())
        actual = run(model, inputs, assistant_model=drafter, **SHAPES[shape], **NEW)
        assert_same(expected, actual, (name, shape, spans))
        accepted += sum(actual[0].speculation.accepted)
    assert accepted > 0


@pytest.mark.parametrize("name", ["vispec", "flash"])
def test_hundreds_of_frames(name):
    """Every frame shrinks to rows of its own: the drafter's cache holds them beside the text."""
    model = MROPE["Qwen2.5-VL"].model()
    prompt = Prompt("Qwen2.5-VL").video(200).text(7, 8, 9)
    expected = run(model, prompt.inputs(), **NEW)
    family, fields = {"vispec": ("vispec", {"num_q": 2}), "flash": ("flash", {"num_latents": 2})}[name]
    drafter = DRAFTER_FAMILIES[family][1].from_target(model, initializer_range=0.3, **fields)
    states = []
    prefill = drafter.prefill
    drafter.prefill = lambda *args: states.append(prefill(*args)) or states[-1]
    assert_same(expected, run(model, prompt.inputs(), assistant_model=drafter, **SHAPES["tree"], **NEW), name)
    text = len(prompt.ids) - 200 * FRAME_TOKENS
    rows_per_frame = {"vispec": 1, "flash": 2}[name]
    answered = len(new_tokens(expected[0], prompt.inputs()))
    rows = states[0].cache.stable
    assert text + 200 * rows_per_frame <= rows <= text + 200 * rows_per_frame + answered


def test_a_large_picture_beside_many_frames_costs_no_padding():
    """As many numbers pass through the compressor as there are visual tokens; each result is that of its own image."""
    torch.manual_seed(0)
    adaptor, sizes = ImageAdaptor(8, 2, 4, 2), [1024, *[4] * 200]
    torch.nn.init.normal_(adaptor.queries)
    stops = torch.tensor(sizes).cumsum(0).tolist()
    spans = [(stop - size, stop) for size, stop in zip(sizes, stops, strict=True)]
    values, seen, forward = torch.randn(1, stops[-1], 8), [], adaptor.forward
    adaptor.forward = lambda images, mask=None: seen.append(images.shape[:2].numel()) or forward(images, mask)
    with torch.no_grad():
        compressed = adaptor.compress(values, [spans])
        assert sum(seen) == stops[-1] and len(seen) == 2
        for index, (start, stop) in enumerate(spans[:3]):
            torch.testing.assert_close(compressed[index], forward(values[:, start:stop])[0])


def test_a_batch_of_videos():
    """Each row's frames are found by its own positions, behind its own padding."""
    model = MROPE["Qwen2.5-VL"].model()
    rows = [
        Prompt("Qwen2.5-VL", 1).video(3).text(7, 8, 9),
        Prompt("Qwen2.5-VL", 2).text(9, 9, 9, 9).picture().video(2),
    ]
    singles = [row.inputs() for row in rows]
    inputs = batch_of(singles)
    for name in ("pixel_values_videos", "video_grid_thw"):
        inputs[name] = torch.cat([each[name] for each in singles])
    expected = model.generate(**inputs, **NEW, do_sample=False, pad_token_id=0)
    drafter, seen = build("vispec", model), []
    prefill = drafter.prefill
    drafter.prefill = lambda prompt, *rest: seen.append(prompt.visual_spans) or prefill(prompt, *rest)
    ours = model.generate(**inputs, **NEW, do_sample=False, pad_token_id=0, assistant_model=drafter, **SHAPES["tree"])
    assert ours.tolist() == expected.tolist()
    assert seen == [row.spans for row in rows]
