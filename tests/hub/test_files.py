"""Files in and files out: every format, broken ones, interruptions, fetches, memory."""

import gc
import json
import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from hf_mmspec import AutoDrafter
from hf_mmspec.hub import ConversionError, checkpoint, convert, writing
from tests.hub import published
from tests.hub.published import LAYOUTS

FORMATS = ("safetensors", "bin", "sharded safetensors", "sharded bin")


def same_as_origin(drafter, layout):
    origin = LAYOUTS[layout]().drafter().state_dict()
    return all(torch.equal(drafter.state_dict()[name], tensor) for name, tensor in origin.items())


@pytest.mark.parametrize("file", FORMATS)
@pytest.mark.parametrize("layout", ["vispec", "eagle3"])
def test_every_format(file, layout, write, tmp_path):
    convert(write(layout, file=file), tmp_path / "ours")
    assert same_as_origin(AutoDrafter.from_pretrained(tmp_path / "ours"), layout)


def test_the_old_bin_format(write, tmp_path):
    source = write("vispec", file="bin")
    tensors = torch.load(source / "pytorch_model.bin")
    torch.save(tensors, source / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    convert(source, tmp_path / "ours")
    assert same_as_origin(AutoDrafter.from_pretrained(tmp_path / "ours"), "vispec")


def test_parameters_views_and_tied_tensors_in_a_bin(write, tmp_path):
    source = write("vispec", file="bin")
    tensors = torch.load(source / "pytorch_model.bin")
    tensors["fc.weight"] = torch.nn.Parameter(tensors["fc.weight"])
    norm = tensors["layers.0.post_attention_layernorm.weight"]
    tensors["layers.0.post_attention_layernorm.weight"] = torch.cat([norm, norm])[: len(norm)]
    tensors["fc.bias"] = tensors["img_fc.bias"] = torch.ones_like(norm)
    tensors["imadpt.o_proj.weight"] = tensors["imadpt.o_proj.weight"].T.contiguous().T
    torch.save(tensors, source / "pytorch_model.bin")
    convert(source, tmp_path / "ours")
    written = load_file(tmp_path / "ours" / "model.safetensors")
    assert torch.equal(written["fc.bias"], written["img_fc.bias"])
    assert torch.equal(written["image_adaptor.o_proj.weight"], tensors["imadpt.o_proj.weight"])


def test_safetensors_are_preferred(write, tmp_path):
    source = write("vispec")
    (source / "pytorch_model.bin").write_bytes(b"never read")
    assert same_as_origin(AutoDrafter.from_pretrained(source), "vispec")


class Anything:
    """Some object in a pickle."""


BROKEN_BINS = {
    "holds more than tensors": lambda tensors: {**tensors, "optimizer": Anything()},
    r"no plain state dict \(epoch is no tensor\)": lambda tensors: {**tensors, "epoch": 3},
    r"no plain state dict \(model is no tensor\)": lambda tensors: {"model": tensors},
    r"no plain state dict \(list is no tensor\)": lambda tensors: list(tensors.values()),
}


@pytest.mark.parametrize("complaint", BROKEN_BINS)
def test_extra_objects_in_a_bin(complaint, write, tmp_path):
    source = write("vispec", file="bin")
    torch.save(BROKEN_BINS[complaint](torch.load(source / "pytorch_model.bin")), source / "pytorch_model.bin")
    with pytest.raises(ConversionError, match=rf"pytorch_model\.bin.*{complaint}.*safetensors"):
        convert(source, tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


def test_nothing_in_a_pickle_is_run(write, tmp_path, monkeypatch):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "exploded"),)

    source = write("vispec", file="bin")
    torch.save({"fc.weight": Bomb()}, source / "pytorch_model.bin")
    with pytest.raises(ConversionError, match="could run any code"):
        convert(source, tmp_path / "ours")
    assert not (tmp_path / "exploded").exists()


def cut(name):
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:3000])


BROKEN_FOLDERS = {
    r"model\.safetensors is corrupt": ("safetensors", cut("model.safetensors")),
    r"pytorch_model\.bin is corrupt": ("bin", cut("pytorch_model.bin")),
    "has no weights": ("safetensors", lambda folder: (folder / "model.safetensors").unlink()),
    r"has no config\.json": ("safetensors", lambda folder: (folder / "config.json").unlink()),
    r"config\.json is no valid JSON": ("safetensors", lambda folder: (folder / "config.json").write_text('{"a')),
    r"config\.json holds no JSON object": ("safetensors", lambda folder: (folder / "config.json").write_text("[1]")),
    r"names model-00002-of-00002\.safetensors, which is not there": (
        "sharded safetensors",
        lambda folder: (folder / "model-00002-of-00002.safetensors").unlink(),
    ),
    "and its shards disagree about extra": (
        "sharded safetensors",
        lambda folder: save_file({"extra": torch.ones(1)}, folder / "model-00002-of-00002.safetensors"),
    ),
}


@pytest.mark.parametrize("complaint", BROKEN_FOLDERS)
def test_broken_folders(complaint, write, tmp_path):
    file, damage = BROKEN_FOLDERS[complaint]
    source = write("vispec", file=file)
    damage(source)
    with pytest.raises(ConversionError, match=complaint):
        convert(source, tmp_path / "ours")
    assert list(tmp_path.iterdir()) == [tmp_path / "theirs"]


def test_a_file_instead_of_a_folder(write, tmp_path):
    with pytest.raises(ConversionError, match="is a file: give the folder"):
        convert(write("vispec") / "model.safetensors", tmp_path / "ours")


def test_an_existing_destination_is_left_alone(write, tmp_path):
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "precious.txt").write_text("mine")
    with pytest.raises(ConversionError, match="ours exists already"):
        convert(write("vispec"), tmp_path / "ours")
    assert (tmp_path / "ours" / "precious.txt").read_text() == "mine"


def test_an_empty_destination_is_fine(write, tmp_path):
    (tmp_path / "ours").mkdir()
    convert(write("vispec"), tmp_path / "ours")
    assert same_as_origin(AutoDrafter.from_pretrained(tmp_path / "ours"), "vispec")


def test_too_small_a_disk(write, tmp_path, monkeypatch):
    monkeypatch.setattr(writing.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    with pytest.raises(ConversionError, match=r"needs 0\.0 GB but the disk"):
        convert(write("vispec"), tmp_path / "ours")
    assert list(tmp_path.iterdir()) == [tmp_path / "theirs"]


# ---- shards, interruptions -----------------------------------------------------------------------------------------

SMALL = 8000


def test_shards(write, tmp_path):
    convert(write("vispec"), tmp_path / "ours", shard_bytes=SMALL)
    index = json.loads((tmp_path / "ours" / "model.safetensors.index.json").read_text())
    files = sorted((tmp_path / "ours").glob("*.safetensors"))
    assert len(files) > 2 and {file.name for file in files} == set(index["weight_map"].values())
    assert index["metadata"]["total_size"] == sum(t.nbytes for file in files for t in load_file(file).values())
    with safe_open(files[0], "pt") as opened:
        assert opened.metadata() == {"format": "pt"}
    assert same_as_origin(AutoDrafter.from_pretrained(tmp_path / "ours"), "vispec")


@pytest.fixture
def interrupted(write, tmp_path, monkeypatch):
    """A conversion that was stopped in its third shard."""
    source, written = write("vispec"), []

    def save(tensors, file, metadata):
        if len(written) == 2:
            file.write_bytes(b"half a shard")
            raise KeyboardInterrupt
        written.append(file)
        save_file(tensors, file, metadata=metadata)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(writing, "save_file", save)
        convert(source, tmp_path / "ours", shard_bytes=SMALL)
    return source


def count_shards(monkeypatch):
    counted = []

    def save(tensors, file, metadata):
        counted.append(file)
        save_file(tensors, file, metadata=metadata)

    monkeypatch.setattr(writing, "save_file", save)
    return counted


def test_nothing_is_visible_before_the_end(interrupted, tmp_path):
    assert not (tmp_path / "ours").exists()


def test_an_interrupted_conversion_goes_on(interrupted, tmp_path, monkeypatch):
    counted = count_shards(monkeypatch)
    convert(interrupted, tmp_path / "ours", shard_bytes=SMALL)
    assert len(counted) == len(list((tmp_path / "ours").glob("*.safetensors"))) - 2
    assert same_as_origin(AutoDrafter.from_pretrained(tmp_path / "ours"), "vispec")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ours", "theirs"]
    assert not list((tmp_path / "ours").glob("*state*")) and not list((tmp_path / "ours").glob("*.unfinished"))


def test_other_weights_start_anew(interrupted, tmp_path, monkeypatch):
    tensors = load_file(interrupted / "model.safetensors")
    save_file({name: -tensor for name, tensor in tensors.items()}, interrupted / "model.safetensors")
    counted = count_shards(monkeypatch)
    convert(interrupted, tmp_path / "ours", shard_bytes=SMALL)
    drafter = AutoDrafter.from_pretrained(tmp_path / "ours")
    assert len(counted) == len(list((tmp_path / "ours").glob("*.safetensors")))
    assert torch.equal(drafter.fc.weight, -tensors["fc.weight"])


# ---- memory --------------------------------------------------------------------------------------------------------


def memory(name):
    """VmRSS or VmHWM (its peak) of this process, in MB."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) / 1024


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="peaks are reset through Linux's /proc")
@pytest.mark.parametrize("file", ["safetensors", "bin"])
def test_memory_is_bounded_by_a_shard(file, tmp_path):
    """192 MB of weights in tensors of 16 MB, through shards of 16 MB. Mapped pages count, and are given back. So a
    drafter of any size takes a shard (1 GB), or its largest tensor (1.1 GB for a head of 152k x 3584 in bf16)."""
    made, layers = published.eagle(), 4
    config = {**made.config, "num_hidden_layers": layers, "intermediate_size": 2**18}
    weights = {
        "fc.weight": (32, 64),
        **{
            f"layers.{i}.{name}.weight": shape
            for i in range(layers)
            for name, shape in {
                **{f"self_attn.{p}_proj": (rows, 32) for p, rows in zip("qkvo", (32, 16, 16, 32), strict=True)},
                **{f"mlp.{p}_proj": (2**18, 32) for p in ("gate", "up")},
                "mlp.down_proj": (32, 2**18),
                "post_attention_layernorm": (32,),
                **({"input_layernorm": (32,)} if i else {}),
            }.items()
        },
    }
    source = published.save(
        tmp_path / "theirs",
        config,
        {name: torch.ones(shape, dtype=torch.half) for name, shape in weights.items()},
        file,
    )
    gc.collect()
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    report = convert(source, tmp_path / "ours", shard_bytes=2**24)
    grown = memory("VmHWM") - before
    assert len(report.renamed) == len(weights)
    assert grown < 64, f"{grown:.0f} MB for shards of 16 MB"


# ---- fetches -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", ["safetensors", "sharded bin"])
def test_hub_options_reach_every_fetch(file, write, tmp_path, monkeypatch):
    source, seen = write("vispec", file=file), []
    given = {"token": "t", "revision": "r", "cache_dir": "c", "local_files_only": True}

    def fetch(repository, name, **options):
        assert repository == "somebody/drafter"
        assert {option: options[option] for option in given} == given
        seen.append(name)
        return str(source / name) if (source / name).exists() else None

    monkeypatch.setattr(checkpoint, "cached_file", fetch)
    convert("somebody/drafter", tmp_path / "ours", **given)
    assert {"config.json", "README.md"} < set(seen)
    assert {path.name for path in source.iterdir()} <= set(seen)


@pytest.mark.parametrize(
    "field", [{"num_hidden_layers": 32}, {"text_config": {"num_hidden_layers": 32}, "num_hidden_layers": None}]
)
def test_no_weights_are_fetched_for_a_whole_model(field, tmp_path, monkeypatch):
    def fetch(repository, name, **options):
        assert name == "config.json"
        (tmp_path / name).write_text(json.dumps({**published.LLAMA, **field}))
        return str(tmp_path / name)

    monkeypatch.setattr(checkpoint, "cached_file", fetch)
    with pytest.raises(ConversionError, match="whole model, not a drafter"):
        convert("somebody/model", tmp_path / "ours")


def test_a_repository_that_cannot_be_reached(tmp_path):
    for name in ("somebody/nothing", "./nowhere"):
        with pytest.raises(ConversionError, match=f"{name} is no folder, and no repository that can be fetched"):
            convert(name, tmp_path / "ours", cache_dir=str(tmp_path / "cache"), local_files_only=True)


def test_a_cached_repository(write, tmp_path):
    """A Hub cache on disk, as `huggingface_hub` lays it out, and no network."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "cache" / "models--somebody--drafter"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    (repository / "snapshots").mkdir()
    write("eagle3").rename(repository / "snapshots" / commit)
    options = {"cache_dir": str(tmp_path / "cache"), "local_files_only": True}
    report = convert("somebody/drafter", tmp_path / "ours", **options)
    assert report.commit == commit
    assert same_as_origin(AutoDrafter.from_pretrained(tmp_path / "ours"), "eagle3")
    assert same_as_origin(AutoDrafter.from_pretrained("somebody/drafter", **options), "eagle3")
