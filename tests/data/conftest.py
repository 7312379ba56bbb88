"""Tables as users have them, written into a folder of the test; `datasets` keeps what it makes of them there too."""

import json

import datasets
import pytest
from PIL import Image

from hf_mmspec.data import Columns, Source, open_source


@pytest.fixture(autouse=True)
def own_datasets_cache(tmp_path, monkeypatch):
    """Nothing lands in the user's cache, and no progress bars in the output."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


class Folder:
    """A folder of pictures that a test puts tables into."""

    def __init__(self, path, pictures=2):
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        for number in range(pictures):
            Image.new("RGB", (4, 4), (number, 0, 0)).save(path / f"{number}.png")

    def lines(self, *rows, name="prompts.jsonl"):
        """Writes a table of JSON lines."""
        (self.path / name).parent.mkdir(parents=True, exist_ok=True)
        (self.path / name).write_text("\n".join(json.dumps(row) for row in rows))
        return self

    def picture(self, number):
        return str(self.path / f"{number}.png")

    def data(self, number):
        return (self.path / f"{number}.png").read_bytes()

    def open(self, name="", columns=None, **options):
        return open_source(Source(str(self.path / name), columns=columns or Columns(), **options))


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path / "mine")
