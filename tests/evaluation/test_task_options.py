"""What people say about tasks is read, and nonsense is refused in one line."""

import pytest

from hf_mmspec.evaluation.bench import Settings
from hf_mmspec.evaluation.task_options import parse_together, parse_token_limits


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("128", (128, {})),
        ("128,chat=64", (128, {"chat": 64})),
        ("mine/chat=64, a=b=2", (None, {"mine/chat": 64, "a=b": 2})),
    ],
)
def test_limits_of_all_tasks_and_of_some(text, expected):
    assert parse_token_limits(text) == expected


@pytest.mark.parametrize("text", ["", "0", "x", "-3", "=3", "8,chat", "chat=0", "chat=1.5", "8,"])
def test_a_limit_is_a_count(text):
    with pytest.raises(ValueError, match="a count of at least 1"):
        parse_token_limits(text)


@pytest.mark.parametrize(("text", "what"), [("8,9", "all tasks"), ("chat=8,chat=9", "chat")])
def test_there_is_one_limit_for_each(text, what):
    with pytest.raises(ValueError, match=f"two limits for {what}"):
        parse_token_limits(text)


def test_two_tasks_or_more_are_together():
    assert parse_together("scene, chart,scene") == ("scene", "chart")
    for text in ("scene", "scene,", "scene,scene", ""):
        with pytest.raises(ValueError, match="at least two tasks"):
            parse_together(text)


def test_what_is_said_about_a_task_needs_the_task():
    Settings(task_max_new_tokens={"a": 3}, together=(("a", "b"),)).check_tasks(["b", "a"])
    for settings in (Settings(task_max_new_tokens={"c": 3}), Settings(together=(("a", "c"),))):
        with pytest.raises(ValueError, match="'c' is not measured: the tasks are a, b"):
            settings.check_tasks(["a", "b"])
