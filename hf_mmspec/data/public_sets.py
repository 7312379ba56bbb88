"""The public data sets of ViSpec, MSD, FLASH and MMSpec: where they are, and how a row of each becomes a prompt.

Data, not code; a function only where a shape is odd. Loads nothing.
"""

import ast
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from string import Formatter
from typing import Any

from .columns import Columns

LONG = "Please answer with at least 1000 words."
"""What ViSpec puts behind its training prompts (its `ge_data_all_llava_pretrain_gen.py`)."""

Row = Mapping[str, Any]


@dataclass(frozen=True)
class PicturesApart:
    """Pictures that are in a configuration of their own: the one whose `id` is the row's `key`."""

    subset: str
    key: str
    id: str = "id"
    image: str = "image"


@dataclass(frozen=True)
class PublicSet:
    """One data set.

    Args:
        hub: its id there; None if there are only files that the user has.
        used_by: who trains or measures on it.
        schema: where these names were read, or that they are from memory.
        prompt: a template over the row's columns, or a function of the row that gives text or messages.
        columns: the other columns; `messages` instead of `prompt` where the set is in chat form.
        needs: columns that a `prompt` function reads.
        split, subset: the usual ones.
        file: the table's name within the set, where it has several.
        pictures: the folder below the table that its paths are relative to, if not the table's own.
        append: put behind the last user message.
        shuffled, limit: the seed of `datasets`' shuffle, and how many rows are taken after it.
        pictures_apart: where pictures are in another configuration.
    """

    hub: str | None
    used_by: str
    schema: str
    prompt: str | Callable[[Row], Any] = "{question}"
    columns: Columns = field(default_factory=lambda: Columns(image="image", id="question_id"))
    needs: tuple[str, ...] = ()
    split: str = "test"
    subset: str | None = None
    file: str | None = None
    pictures: str | None = None
    append: str = ""
    shuffled: int | None = None
    limit: int | None = None
    pictures_apart: PicturesApart | None = None

    @property
    def asked(self) -> list[str]:
        """The columns in the template."""
        template = self.prompt if isinstance(self.prompt, str) and not self.columns.messages else ""
        return [name for _, name, _, _ in Formatter().parse(template) if name]

    @property
    def columns_read(self) -> list[str]:
        """All columns that a copy of this set must have."""
        apart = self.pictures_apart
        own = [name for role, name in self.columns.named.items() if not (apart and role == "image")]
        return list(dict.fromkeys([*own, *self.asked, *self.needs, *([apart.key] if apart else [])]))

    def chat(self, row: Row) -> Any:
        """The prompt or the messages of a row; None if a column that the template needs is empty."""
        if self.columns.messages:
            return row[self.columns.messages]
        if not isinstance(self.prompt, str):
            return self.prompt(row)
        return None if any(row[name] is None for name in self.asked) else self.prompt.format_map(row)


def _options(choices: list[str]) -> str:
    return "\n".join(f"{chr(ord('A') + i)}. {choice}" for i, choice in enumerate(choices))


def _science_question(row: Row) -> str:
    context = f"Context: {row['hint']}\n" if row["hint"] else ""
    return f"{context}{row['question']}\n{_options(row['choices'])}"


def _first_line(row: Row) -> str:
    """Without LLaVA's "Answer the question using a single word": ViSpec's scripts cut it off as well."""
    return row["text"].partition("\n")[0]


def _first_turn(row: Row) -> str:
    """Later turns follow on the target's own answers, which no data set holds."""
    return row["turns"][0]


def _mmmu_messages(row: Row) -> list[dict[str, Any]]:
    """`<image 3>` in the question or its options is the picture of column `image_3`."""
    text = f"{row['question']}\n{_options(ast.literal_eval(row['options']))}"
    pieces = re.split(r"<image (\d)>", text)
    parts = [{"type": "text", "text": piece} for piece in pieces]
    parts[1::2] = [{"type": "image", "image": row.get(f"image_{piece}")} for piece in pieces[1::2]]
    return [{"role": "user", "content": [part for part in parts if part.get("text") != ""]}]


_LMMS_EVAL = "lmms-eval's task files"
_LLAVA = Columns(messages="conversations", image="image", id="id")
_VISPEC_8 = "ViSpec measures on it"

PUBLIC_SETS: Mapping[str, PublicSet] = {
    "sharegpt": PublicSet(
        "anon8231489123/ShareGPT_Vicuna_unfiltered",
        "ViSpec (first stage) and MSD train on it, the first 68,000",
        "columns: ViSpec, EAGLE and MSD read `conversations` of from/value; the Hub id is from memory",
        columns=Columns(messages="conversations", id="id"),
        split="train",
        file="ShareGPT_V3_unfiltered_cleaned_split.json",
        shuffled=42,
        limit=68_000,
    ),
    "llava-pretrain": PublicSet(
        "liuhaotian/LLaVA-Pretrain",
        "ViSpec (second stage) trains on its prompts, the first 68,000; the answers are the target's own",
        "ViSpec's ge_data_all_llava_pretrain_gen.py",
        file="blip_laion_cc_sbu_558k.json",
        append=LONG,
        shuffled=42,
        limit=68_000,
        columns=_LLAVA,
        split="train",
    ),
    "llava-mix665k": PublicSet(
        "liuhaotian/LLaVA-Instruct-150K",
        "MSD trains on it, the first 68,000",
        "file name: LLaVA's guide; columns as in llava-pretrain, from memory; ids are texts and numbers, as MSD notes",
        file="llava_v1_5_mix665k.json",
        shuffled=42,
        limit=68_000,
        columns=_LLAVA,
        split="train",
    ),
    "llava-instruct-150k": PublicSet(
        "liuhaotian/LLaVA-Instruct-150K",
        "FLASH trains on it with COCO train2017, the first 50,000 for LLaVA (10,000 for Qwen)",
        "file name: public scripts; columns as in llava-pretrain, from memory",
        file="llava_instruct_150k.json",
        shuffled=42,
        limit=50_000,
        columns=_LLAVA,
        split="train",
    ),
    "llava-eval": PublicSet(
        None,
        "ViSpec measures on GQA (llava_gqa_testdev_balanced.jsonl) and MME (llava_mme.jsonl) in this form",
        "ViSpec's gen_spec_answer_gqa.py and gen_spec_answer_mme.py",
        prompt=_first_line,
        needs=("text",),
    ),
    "scienceqa": PublicSet(
        "lmms-lab/ScienceQA",
        _VISPEC_8 + ", 100 with pictures and three solved examples before each, which are left out here",
        _LMMS_EVAL,
        prompt=_science_question,
        needs=("hint", "question", "choices"),
        columns=Columns(image="image"),
        subset="ScienceQA-IMG",
    ),
    "mmvet": PublicSet("lmms-lab/MMVet", _VISPEC_8, _LMMS_EVAL, columns=Columns(image="image")),
    "textvqa": PublicSet(
        "lmms-lab/textvqa", _VISPEC_8 + "; part of MMSpec", _LMMS_EVAL + "; the split from memory", split="validation"
    ),
    "mme": PublicSet(
        "lmms-lab/MME",
        _VISPEC_8,
        _LMMS_EVAL + "; question_id and category from memory",
        columns=Columns(image="image", id="question_id", task="category"),
    ),
    "coco-caption": PublicSet(
        "lmms-lab/COCO-Caption",
        "ViSpec and MMSpec measure on COCO captions; FLASH on val2014 with this prompt",
        _LMMS_EVAL + "; the prompt is FLASH's",
        prompt="Provide a detailed description of the given image.",
        split="val",
    ),
    "vizwiz": PublicSet("lmms-lab/VizWiz-VQA", _VISPEC_8, _LMMS_EVAL + "; the split from memory", split="val"),
    "gqa": PublicSet(
        "lmms-lab/GQA",
        _VISPEC_8 + "; part of MMSpec",
        _LMMS_EVAL,
        columns=Columns(image="image", id="id"),
        subset="testdev_balanced_instructions",
        split="testdev",
        pictures_apart=PicturesApart("testdev_balanced_images", key="imageId"),
    ),
    "seed-bench": PublicSet(
        "lmms-lab/SEED-Bench",
        _VISPEC_8,
        _LMMS_EVAL,
        prompt="{question}\nA. {choice_a}\nB. {choice_b}\nC. {choice_c}\nD. {choice_d}",
        columns=Columns(image="image", id="question_id", task="data_type"),
    ),
    "charxiv": PublicSet(
        "princeton-nlp/CharXiv",
        "part of MMSpec",
        _LMMS_EVAL,
        prompt="{reasoning_q}",
        columns=Columns(image="image"),
        split="validation",
    ),
    "mmmu-pro": PublicSet(
        "MMMU/MMMU_Pro",
        "part of MMSpec",
        _LMMS_EVAL,
        prompt=_mmmu_messages,
        needs=("question", "options", *(f"image_{i}" for i in range(1, 8))),
        columns=Columns(id="id", task="subject"),
        subset="standard (10 options)",
    ),
    "mmspec": PublicSet(
        None,
        "MMSpec, 600 samples: GQA, TextVQA, COCO, CharXiv, MMMU-Pro, ConvBench and MM-MT-Bench",
        "the README of killthefullmoon/MMSpec and its caption_marker_test/mmspec.jsonl",
        prompt=_first_turn,
        needs=("turns",),
        columns=Columns(image="image", id="id", task="topic"),
        pictures="images",
    ),
}
"""Name for `--data` -> the set; `--data NAME=PATH` reads a local copy."""
