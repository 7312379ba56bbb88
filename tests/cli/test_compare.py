"""Which tokens were drafted, and how the picture wraps them."""

from itertools import groupby

import pytest
from PIL import Image, ImageColor
from rich.console import Console

from hf_mmspec.console.compare import Comparison, Origin, _pieces, compare
from hf_mmspec.console.picture import draw, wrap
from hf_mmspec.data import Conversation, model_inputs
from hf_mmspec.demo import samples
from hf_mmspec.evaluation.contenders import STOCK, Contender, Run, answer
from hf_mmspec.generation import Speculation
from tests.generation.doubles import OracleDrafter

OWN, DRAFT, FORCED = Origin.TARGET, Origin.DRAFTED, Origin.FORCED


def test_origin_of_every_token_with_an_oracle(tiny_models):
    """The prefill gives the first token; then each round gives its accepted drafts and one token of the target."""
    target, processor, _ = tiny_models
    sample = next(iter(samples("test", task="scene", n=1)))
    inputs = model_inputs(processor, [Conversation(sample["messages"], [sample["image"]])])
    tokens = answer(target, inputs, Contender(STOCK), 12).tokens
    oracle = OracleDrafter(target, tokens)
    oracle.generation_config.draft_depth = 3
    oracle.generation_config.draft_mode = "chain"
    found = compare(target, processor, oracle, inputs, Console(quiet=True), max_new_tokens=12)
    assert found.difference is None
    drafted = [3, 3, 2]
    assert [origin for _, origin in found.pieces] == [
        OWN,
        *(each for count in drafted for each in [*[DRAFT] * count, OWN]),
    ]
    assert "".join(text for text, _ in found.pieces) == processor.decode(tokens, skip_special_tokens=True)


def as_characters(words):
    return [(character, index) for index, word in enumerate(words) for character in word]


def as_text(lines):
    return ["".join(character for character, _ in line) for line in lines]


def test_lines_break_between_words_and_keep_their_tokens():
    lines = wrap(as_characters(["One", " two", " thr", "ee", " four"]), 8)
    assert as_text(lines) == ["One two", "three", "four"]
    assert [[token for token, _ in groupby(line, key=lambda each: each[1])] for line in lines] == [[0, 1], [2, 3], [4]]


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", [""]),
        ("a" * 20, ["a" * 8, "a" * 8, "a" * 4]),
        ("one\ntwo", ["one", "two"]),
        ("one\n\ntwo", ["one", "", "two"]),
        ("to " + "b" * 9, ["to", "b" * 8, "b"]),
    ],
)
def test_line_breaks_and_words_longer_than_a_line(text, lines):
    assert as_text(wrap(as_characters([text]), 8)) == lines


def test_picture_of_difficult_text(tmp_path):
    """Formulas, emoji, control characters, no image, and an answer that ended with the prefill."""
    pieces = [("$x^2", OWN), (" 日本", DRAFT), (" 🐷\x00", FORCED), ("\n\n", OWN), ("w" * 300, DRAFT)]
    long = Run([[1] * 9], 2.0, 1.0, 8, 3, Speculation([3, 2], [4, 4]))
    short = Run([[1]], 1.0, 0.0, 0, 1, Speculation())
    image = Image.new("RGB", (400, 90), "red")
    comparisons = [
        Comparison("a $title$", [image], "question " * 40, long, long, pieces, None, False),
        Comparison("text", [], "?", short, short, [("x", OWN)], None, True),
    ]
    draw(comparisons, tmp_path / "new" / "picture.png")
    assert Image.open(tmp_path / "new" / "picture.png").width > 1000


def test_a_character_of_several_tokens_is_shown_once_it_is_whole():
    class Bytes:
        all_special_ids: tuple[int, ...] = ()

        def decode(self, tokens, skip_special_tokens):
            return bytes(tokens).decode(errors="replace")

    tokens = list("a😀b".encode())
    run = Run([tokens], 1.0, 1.0, 5, speculation=Speculation(accepted=[2, 1]))
    pieces = _pieces(Bytes(), run)
    assert [text for text, _ in pieces] == ["a", "", "", "", "😀", "b"]
    assert [origin for _, origin in pieces] == [OWN, DRAFT, DRAFT, OWN, DRAFT, OWN]


def test_forced_tokens_come_before_drafts():
    class Letters:
        all_special_ids: tuple[int, ...] = ()

        def decode(self, tokens, skip_special_tokens):
            return bytes(tokens).decode()

    run = Run([list(b"abcdefg")], 1.0, 1.0, 6, speculation=Speculation(accepted=[3, 1], forced=[2, 0], drafted=[4, 1]))
    expected = [OWN, FORCED, FORCED, DRAFT, OWN, DRAFT, OWN]
    assert [origin for _, origin in _pieces(Letters(), run)] == expected


def drawn(tmp_path, images):
    """The picture of one short answer about `images`."""
    run = Run([[1]], 1.0, 0.0, 0, 1, Speculation())
    draw([Comparison("t", images, "?", run, run, [("x", OWN)], None, True)], tmp_path / "picture.png")
    return Image.open(tmp_path / "picture.png").convert("RGB")


COLOURS = ["red", "lime", "blue", "yellow", "magenta"]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 5])
def test_every_image_is_in_the_picture(tmp_path, count):
    images = [Image.new("RGB", (40 + 10 * index, 30), colour) for index, colour in enumerate(COLOURS[:count])]
    picture = drawn(tmp_path, images)
    shown = {colour for number, colour in picture.getcolors(2**24) if number > 500}
    for colour in COLOURS:
        assert (ImageColor.getrgb(colour) in shown) == (colour in COLOURS[:count])


def test_several_images_take_the_room_of_one(tmp_path):
    image = Image.new("RGB", (30, 30), "red")
    one, many, none = (drawn(tmp_path, [image] * count).height for count in (1, 7, 0))
    assert one == many > none
