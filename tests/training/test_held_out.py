"""Which prompts are measured on: never trained on, with none of their answers, and some of every task."""

from hypothesis import given
from hypothesis import strategies as st

from hf_mmspec.training.held_out import split_off

rows = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 15)), min_size=1, max_size=80)


@given(rows, st.integers(0, 20))
def test_properties(found, count):
    keys, tasks = [f"{task}/{number}" for task, number in found], [task for task, _ in found]
    training, held_out = split_off(keys, tasks, count)
    held = {keys[number] for number in held_out}
    assert len(held) == len(held_out) <= count  # one answer for each prompt
    assert sorted(training) == [number for number, key in enumerate(keys) if key not in held]
    prompts = {task: {key for key in keys if key.startswith(task)} for task in set(tasks)}
    for asked in prompts.values():
        share = sum(key in asked for key in held)
        assert share <= len(asked) // 3
        assert share >= min(count // len(prompts), len(asked) // 3)
    assert split_off(keys, tasks, count) == (training, held_out)


@given(rows, st.integers(1, 20))
def test_a_prompt_is_held_out_whatever_the_order_and_the_other_tasks_rows(found, count):
    keys, tasks = [f"{task}/{number}" for task, number in found], [task for task, _ in found]
    held = {keys[number] for number in split_off(keys, tasks, count)[1]}
    turned = {keys[::-1][number] for number in split_off(keys[::-1], tasks[::-1], count)[1]}
    assert held == turned


def test_a_prompt_that_was_answered_twice_is_held_out_with_both():
    keys = [f"k{number // 2}" for number in range(24)]
    training, held_out = split_off(keys, ["t"] * 24, 3)
    assert (len(held_out), len(training)) == (3, 18)
    assert not {keys[number] for number in training} & {keys[number] for number in held_out}


def test_rows_without_a_name_are_prompts_of_their_own():
    training, held_out = split_off([""] * 9, ["t"] * 9, 2)
    assert (len(training), len(held_out)) == (7, 2)
