"""What a training works with: which answers it is measured on, and how many it reads at once."""

from dataclasses import replace

import pytest

from hf_mmspec.training.material import in_batches, make_judge, sources
from tests.training.making import answers, conversation
from tests.training.robustness import world


@pytest.fixture(scope="module")
def answered(qwen, tmp_path_factory):
    """Answers to six prompts, and who gave them."""
    asked = [conversation(seed, seed % 2) for seed in range(6)]
    return answers(tmp_path_factory.mktemp("answers") / "a", *qwen, asked, max_new_tokens=4)


def named(answered, data, *, tasks=None, keys=None):
    """The same answers, as if to other data."""
    rows = answered.rows.remove_columns(["task", "key"])
    rows = rows.add_column("task", tasks or ["all"] * len(rows)).add_column("key", keys or list("012345"))
    return replace(answered, rows=rows, manifest={**answered.manifest, "data": data})


def test_prompts_of_every_data_set_are_held_out(qwen, answered, tmp_path):
    """Their rows have the same numbers; a data set that was answered twice is one."""
    run = world.train_run(tmp_path, "eagle", held_out=4)
    sets = [named(answered, data) for data in ("cats", "dogs", "cats")]
    training, held_out = sources(run, *qwen, sets, [])
    held, learned = held_out.prompts(), training.prompts()
    assert len(held) == 4 and {"/" in name for name in held} == {False, True}
    assert not {*held} & {*learned} and len({*held, *learned}) == 12


def test_of_many_small_tasks_some_prompts_are_held_out(qwen, answered, tmp_path):
    """A third of one prompt is none."""
    run = world.train_run(tmp_path, "eagle", held_out=2)
    training, held_out = sources(run, *qwen, [named(answered, "d", tasks=list("abcdef"))], [])
    assert (len(training), len(held_out)) == (4, 2)


@pytest.mark.parametrize("count", [1, 4, 5, 6, 9])
def test_no_more_prompts_are_measured_on_than_asked_for(qwen, answered, tmp_path, count):
    run = world.train_run(tmp_path, "eagle", held_out=count)
    _, held_out = sources(run, *qwen, [answered], [answered])
    measured = [each.key for each in make_judge(run, *qwen, held_out).conversations]
    assert len(measured) == len({*measured}) == min(count, 6)


def test_batches_are_as_large_as_what_a_step_reads_at_once(qwen, answered, tmp_path):
    run = world.train_run(tmp_path, "vispec", "stages.1.batch_size=8", accumulate=2)
    source, _ = sources(run, *qwen, [answered], [answered])
    assert [len(batch) for batch in in_batches(run, source)] == [4, 2]
