"""Small things to train on: records without a target, drafters of every family with their loss, real conversations."""

from pathlib import Path

import torch
from PIL import Image

from hf_mmspec.data import Conversation, user_message
from hf_mmspec.modeling import FAMILIES
from hf_mmspec.training.answers.answering import Answering
from hf_mmspec.training.answers.distil import Distillation
from hf_mmspec.training.answers.screening import Screening
from hf_mmspec.training.answers.store import AnswerSet, AnswerStore
from hf_mmspec.training.features.reading import Reader
from hf_mmspec.training.features.record import Record
from hf_mmspec.training.features.stored import StatesFormat
from hf_mmspec.training.learning.collator import collate
from hf_mmspec.training.learning.drafter_with_loss import DrafterWithLoss
from hf_mmspec.training.learning.target_parts import TargetParts
from hf_mmspec.training.recipes import Stage
from tests.generation import tiny

TAPS = (0, 1, 2)
# name -> fields; the first word is the family
DRAFTERS = {
    "vispec": {},
    "msd": {},
    "eagle": {},
    "flash": {"num_latents": 4, "dropout": 0.0},
    "flash on vispec's rows": {"visual": "adaptor", "dropout": 0.0},
    "eagle3": {"feature_layers": list(TAPS)},
    "eagle3, narrow": {"feature_layers": list(TAPS), "hidden_size": 16},
}
LOSS = {"soft_cross_entropy": 1.0, "feature_regression": 0.5}


def record(length=30, prompt=20, spans=((4, 12),), seed=0, taps=False) -> Record:
    """Random ids and states; `taps` for a drafter that reads other states than the head does."""
    generator = torch.Generator().manual_seed(seed)

    def states(rows, width=tiny.HIDDEN):
        return torch.randn(rows, width, generator=generator)

    ids = torch.randint(3, 110, (length,), generator=generator)
    for start, stop in spans:
        ids[start:stop] = tiny.IMAGE_TOKEN
    return Record(
        ids=ids,
        prompt_length=prompt,
        spans=list(spans),
        features=states(length - 1, tiny.HIDDEN * (len(TAPS) if taps else 1)),
        image_embeds=states(sum(stop - start for start, stop in spans)),
        states=states(length - 1) if taps else None,
    )


def llava_of_three_layers():
    """The target of `module`."""
    return tiny.llava(num_hidden_layers=3)


def module(name: str, target=None, known: torch.Tensor | None = None, **stage) -> DrafterWithLoss:
    """An untrained drafter of a target and its loss, in evaluation mode; `known` is its draft vocabulary."""
    target = llava_of_three_layers() if target is None else target
    torch.manual_seed(1)
    fields = DRAFTERS[name]
    loss = {"soft_cross_entropy": 1.0} if "hidden_size" in fields else LOSS
    drafter = FAMILIES[name.split()[0].strip(",")][1].from_target(target, known, **fields)
    for parameter_name, parameter in drafter.named_parameters():
        if parameter_name in ("img_fc.weight", "slot_embeddings"):  # so that every part matters
            torch.nn.init.normal_(parameter, std=0.2)
    parts = TargetParts.of(target, drafter)
    return DrafterWithLoss(drafter, parts, Stage("s", **{"unroll": 3, "loss": loss, **stage})).eval()


def picture(seed: int, width: int = 16, height: int = 16) -> Image.Image:
    """Noise."""
    pixels = torch.randint(0, 256, (height, width, 3), generator=torch.Generator().manual_seed(seed))
    return Image.fromarray(pixels.to(torch.uint8).numpy())


def conversation(seed: int, pictures: int = 1, task: str = "t", **fields) -> Conversation:
    """A short question about pictures of different shapes."""
    shown = [picture(10 * seed + i, 16 + 8 * ((seed + i) % 3), 16 + 8 * (i % 2)) for i in range(pictures)]
    message = user_message(f"{seed}" * (1 + seed % 4), pictures)
    return Conversation([message], shown, task, f"{task}/{seed}", **fields)


def distillation(
    folder: Path, target, processor, conversations, layers=None, keep=False, max_new_tokens=12, how=None, **options
) -> Distillation:
    """Answers to conversations, with hidden states where `keep` says so."""
    width = target.config.get_text_config(decoder=True).hidden_size
    kept = StatesFormat.of(layers, target.dtype, width).as_dict() if keep else None
    prints = {"embed_tokens": [0.0]}
    store = AnswerStore.open(folder, {"model": "tiny", "target_fingerprint": prints, "features": kept})
    reader = Reader(target, processor, layers, target.dtype) if keep else None
    how, screening = how or Answering(0.0, max_new_tokens), Screening(processor, target, 4096)
    return Distillation(
        target, processor, conversations, store, how, screening, **{"shard_size": 4, **options}, reader=reader
    )


def answers(folder: Path, target, processor, conversations, **options) -> AnswerSet:
    """Answer them, and open what was written."""
    distillation(folder, target, processor, conversations, **options).run()
    return AnswerSet.load(folder)


def gradients(module: DrafterWithLoss, batch, count=None, progress=0.0) -> tuple[float, dict[str, torch.Tensor]]:
    """The loss of a batch and the gradients of every parameter that has one."""
    module.zero_grad()
    loss = module(**batch, num_items_in_batch=count, progress=progress)["loss"]
    loss.backward()
    found = {name: p.grad.clone() for name, p in module.drafter.named_parameters() if p.grad is not None}
    return loss.item(), found


def collated(module: DrafterWithLoss, *records: Record) -> dict:
    """A batch as the trainer makes it."""
    return collate(records, module.parts.knows)
