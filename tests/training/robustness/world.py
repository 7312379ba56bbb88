"""A small world to break things in: a table of prompts with pictures, a tiny target, and runs over them.

Knows no test.
"""

import json

from PIL import Image

from hf_mmspec.data import Source
from hf_mmspec.training.answers.answering import Answering
from hf_mmspec.training.answers.store import AnswerSet
from hf_mmspec.training.distil import DistilRun, distil, prepare
from hf_mmspec.training.recipes import family_recipe, read_recipe
from hf_mmspec.training.train import Run, train

PROMPTS = 24
SMALL = ("stages.*.batch_size=4", "stages.*.epochs=1", "drafter.intermediate_size=48", "evaluations=2")


def write_table(folder, prompts=PROMPTS):
    """`prompts.jsonl` with five pictures: two of three prompts are about one."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(5):
        Image.new("RGB", (40 + number, 30), (number * 40, 100, 50)).save(folder / f"{number}.png")
    rows = [
        {"prompt": f"What is {number}?", "image": f"{number % 5}.png" if number % 3 else None, "id": f"p{number}"}
        for number in range(prompts)
    ]
    return write_rows(folder, rows)


def write_rows(folder, rows):
    """Any rows as `prompts.jsonl`."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "prompts.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def distil_run(table, out, **options):
    """Greedy answers of up to ten tokens, in shards of eight."""
    chosen = {"how": Answering(0.0, 10), "shard_size": 8, **options}
    return DistilRun(Source(str(table)), out, "tiny", **chosen)


def answered(table, out, target, processor, **options):
    """Distils; returns what was said."""
    said = []
    distil(distil_run(table, out, **options), target, processor, said.append)
    return said


def recipe(family, *changes):
    """The family's own with small stages."""
    return read_recipe(family_recipe(family), [*SMALL, *changes])


def train_run(folder, family="vispec", *changes, **options):
    """A training into `folder / "drafter"`."""
    trainer = {"use_cpu": True, "disable_tqdm": True, **options.pop("trainer", {})}
    chosen = {"held_out": 3, "max_new_tokens": 8, **options}
    return Run(recipe(family, *changes), folder / "drafter", folder / "work", "tiny", trainer=trainer, **chosen)


def trained(run, target, processor, *answers, **options):
    """Trains; returns what was said."""
    said = []
    train(run, target, processor, [AnswerSet.load(each) for each in answers], say=said.append, **options)
    return said


def histories(run):
    """Losses and L of every stage as its newest checkpoint has them, by (stage, step)."""
    found = {}
    for stage in sorted(run.work.iterdir()):
        newest = max(stage.glob("checkpoint-*"), key=lambda each: int(each.name.split("-")[1]), default=None)
        if newest is not None:
            for entry in json.loads((newest / "trainer_state.json").read_text())["log_history"]:
                for name in ("loss", "grad_norm", "learning_rate", "eval_acceptance_length"):
                    if name in entry:
                        found[stage.name, entry["step"], name] = entry[name]
    return found


def prepared(run, target, processor):
    """The distillation, nothing answered yet."""
    return prepare(run, target, processor)
