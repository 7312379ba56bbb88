"""Every example of docs/data.md is what the page says it is."""

import re
from pathlib import Path

import pytest
from PIL import Image

from hf_mmspec.data import open_picture
from hf_mmspec.data.columns import KNOWN_NAMES, TYPES, option
from hf_mmspec.data.public_sets import PUBLIC_SETS

from .conftest import Folder

PAGE = (Path(__file__).parents[2] / "docs/data.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", PAGE, flags=re.DOTALL)
TABLES = [text for kind, text in BLOCKS if kind in ("json", "csv")]
NAMES = ["prompts.jsonl", "prompts.csv", "metadata.csv", "chat.jsonl", "llava.json"]
PICTURES = {"prompts.jsonl": [1, 1, 2, 0], "prompts.csv": [1, 0], "metadata.csv": [1, 1]} | {
    "chat.jsonl": [1, 2, 1],
    "llava.json": [1, 0],
}


def pets(path):
    folder = Folder(path, pictures=0)
    for name in ("cat.jpg", "dog.jpg"):
        Image.new("RGB", (4, 4)).save(folder.path / name)
    return folder


def test_the_page_names_its_examples_in_order():
    found = [name for name in re.findall(r"`(\w+\.(?:jsonl?|csv))`", PAGE) if name in NAMES]
    assert list(dict.fromkeys(found)) == NAMES and len(TABLES) == len(NAMES)


@pytest.mark.parametrize(("name", "text"), zip(NAMES, TABLES, strict=True), ids=NAMES)
def test_tables(tmp_path, name, text):
    folder = pets(tmp_path / "pets")
    (folder.path / name).write_text(text)
    conversations = folder.open()
    assert [len(each.pictures) for each in conversations] == PICTURES[name]
    assert all(open_picture(picture).size == (4, 4) for each in conversations for picture in each.pictures)
    assert all(each.text for each in conversations)


def test_python(tmp_path, monkeypatch, capsys):
    (code,) = [text for kind, text in BLOCKS if kind == "python"]
    (pets(tmp_path / "pets").path / NAMES[0]).write_text(TABLES[0])
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "docs/data.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5 and lines[0].startswith("0 What is the animal doing? Answer at length.")


def test_public_sets_and_columns_are_all_on_the_page():
    table = PAGE[PAGE.index("## Public sets") :]
    assert set(re.findall(r"^\| (`.*?`) \|", table, flags=re.MULTILINE)) and all(
        f"`{name}`" in table for name in PUBLIC_SETS
    )
    columns = PAGE[PAGE.index("## Columns") :]
    assert all(f"`{option(role)}`" in columns for role in TYPES)
    assert all(name in columns for names in KNOWN_NAMES.values() for name in names)
