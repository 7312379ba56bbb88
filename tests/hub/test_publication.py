"""What of a folder is published, and folders that are refused before anything is sent."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from hf_mmspec import AutoDrafter
from hf_mmspec.hub import PublishError, convert, plan_publication
from hf_mmspec.hub.card import write_card
from hf_mmspec.hub.remote_code import remote_code
from hf_mmspec.modeling import DrafterLoadError, ViSpecDrafter
from tests.modeling import tiny


@pytest.fixture
def folder(tmp_path):
    tiny.drafter(draft_vocab_size=40).save_pretrained(tmp_path / "drafter")
    (tmp_path / "drafter" / "README.md").write_text("# A drafter\n![L](L.png), learned from `answers.jsonl`\n")
    return tmp_path / "drafter"


def sharded(folder):
    drafter = ViSpecDrafter.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    drafter.save_pretrained(folder, max_shard_size="20KB")
    return json.loads((folder / "model.safetensors.index.json").read_text())


def test_a_publication_is_weights_config_card_and_code(folder):
    (folder / "training.json").write_text("{}")
    publication = plan_publication(folder)
    fixed = {"model.safetensors", "config.json", "generation_config.json", "README.md", "training.json"}
    assert publication.paths == fixed | remote_code(ViSpecDrafter).keys()
    assert publication.left_out == {}
    assert publication.nbytes > (folder / "model.safetensors").stat().st_size
    assert plan_publication(folder) == publication


def test_a_made_card_loads_from_where_it_is_published_and_anothers_words_stay(folder):
    written = {f.path: f.content for f in plan_publication(folder, repo_id="org/name").files}["README.md"]
    assert written == folder / "README.md"
    write_card(folder)
    made = {f.path: f.content for f in plan_publication(folder, repo_id="org/name").files}["README.md"]
    assert b'AutoDrafter.from_pretrained("org/name"' in made


def test_what_the_card_shows_goes_along_unless_it_is_large(folder):
    for name in ("L.png", "answers.jsonl", "other.png", "notes.txt"):
        (folder / name).write_bytes(b"x")
    (folder / "optimizer.pt").write_bytes(b"x")
    (folder / "checkpoint-10").mkdir()
    publication = plan_publication(folder)
    assert {"L.png", "answers.jsonl"} <= publication.paths
    assert publication.left_out.keys() == {"other.png", "notes.txt", "optimizer.pt", "checkpoint-10/"}
    assert "pickle" in publication.left_out["optimizer.pt"]
    (folder / "answers.jsonl").write_bytes(b"x" * (2**20 + 1))
    assert plan_publication(folder).left_out["answers.jsonl"] == "larger than 1 MiB"


def test_code_is_this_versions_and_a_converted_drafter_gets_its_map(tmp_path, write):
    convert(write("vispec"), tmp_path / "ours")
    (tmp_path / "ours" / "README.md").write_text("# Ours")
    (tmp_path / "ours" / "binding.py").write_text("of an older version")
    files = {file.path: file.content for file in plan_publication(tmp_path / "ours").files}
    assert json.loads(files["config.json"])["auto_map"]["AutoModel"] == "modeling_vispec.ViSpecDrafter"
    assert b"def borrow" in files["binding.py"]
    assert {"model.safetensors", "conversion.json"} <= files.keys()


def test_shards_and_their_index_are_published(folder):
    index = sharded(folder)
    names = set(index["weight_map"].values())
    assert len(names) > 1 and names | {"model.safetensors.index.json"} <= plan_publication(folder).paths


@pytest.mark.parametrize(
    "name", ["../model-00001-of-00002.safetensors", "/etc/x.safetensors", "a/b.safetensors", "x.bin", 3]
)
def test_an_index_that_names_a_file_elsewhere_is_refused(folder, name):
    index = sharded(folder)
    first = next(iter(index["weight_map"].values()))
    shutil.copy(folder / first, folder.parent)
    index["weight_map"] = {k: name if v == first else v for k, v in index["weight_map"].items()}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    for load in (plan_publication, AutoDrafter.from_pretrained):
        with pytest.raises((PublishError, DrafterLoadError), match="no safetensors file beside it"):
            load(folder)


class Thief:
    """Leaves a trace when it is unpickled."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return open, (str(self.trace), "w")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "adapter_model.bin", "optimizer.pt"])
def test_a_pickle_beside_safetensors_is_never_opened_nor_published(folder, tmp_path, name):
    torch.save({"weight": Thief(tmp_path / "trace")}, folder / name)
    AutoDrafter.from_pretrained(folder)
    assert "pickle" in plan_publication(folder).left_out[name]
    assert not (tmp_path / "trace").exists()


def test_a_pickle_instead_of_safetensors_is_refused(folder, tmp_path):
    torch.save(
        {**load_file(folder / "model.safetensors"), "x": Thief(tmp_path / "trace")}, folder / "pytorch_model.bin"
    )
    (folder / "model.safetensors").unlink()
    for load in (plan_publication, AutoDrafter.from_pretrained):
        with pytest.raises((PublishError, DrafterLoadError), match="pickle, which is not opened"):
            load(folder)
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("is_folder", [False, True])
def test_a_link_that_leaves_the_folder_is_refused(folder, tmp_path, is_folder):
    secret = tmp_path / "secret"
    secret.mkdir() if is_folder else secret.write_text("secret")
    (folder / "L.png").symlink_to(secret)
    with pytest.raises(PublishError, match=r"is a link to .*secret, outside"):
        plan_publication(folder)


def test_a_link_within_the_folder_is_followed(folder):
    (folder / "L.png").symlink_to("README.md")
    assert "L.png" in plan_publication(folder).paths


def change_config(folder, **fields):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **fields}))


@pytest.mark.parametrize(
    ("breaking", "message"),
    [
        (shutil.rmtree, "is no folder"),
        (lambda folder: (folder / "README.md").unlink(), "has no README.md"),
        (lambda folder: (folder / "config.json").unlink(), "config.json"),
        (lambda folder: change_config(folder, model_type="llama"), 'model_type "llama", which is no drafter family'),
        (
            lambda folder: change_config(folder, num_q=5),
            "image_adaptor.queries missing, unexpected or of another shape",
        ),
        (lambda folder: change_config(folder, hidden="x"), "does not know the field"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"x" * 100), "corrupt or cut short"),
        (lambda folder: save_file({"a": torch.ones(1)}, folder / "model.safetensors"), "belong to different drafters"),
        (lambda folder: (folder / "model.safetensors").unlink(), "has no model.safetensors"),
        (lambda folder: (folder / "model.safetensors.index.json").write_text("{}"), "remove the older"),
    ],
)
def test_a_folder_that_nobody_could_load_is_refused(folder, breaking, message):
    breaking(folder)
    with pytest.raises(PublishError, match=message):
        plan_publication(folder)
