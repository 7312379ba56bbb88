"""What is written can be read by whom the umask lets read it (safetensors and tempfile would make it private)."""

import os
import stat

import pytest

from hf_mmspec.demo.model import weights
from hf_mmspec.generation import cost_cache
from hf_mmspec.hub import convert
from hf_mmspec.modeling.file_modes import follow_umask
from tests.hub import published
from tests.hub.published import LAYOUTS
from tests.modeling import tiny


@pytest.fixture(params=[0o022, 0o027, 0o077], ids=oct)
def allowed(request):
    """The permissions of a new file under this umask."""
    before = os.umask(request.param)
    yield 0o666 & ~request.param
    os.umask(before)


def modes(folder):
    return {stat.S_IMODE(file.stat().st_mode) for file in folder.rglob("*") if file.is_file()}


def test_files_get_the_permissions_of_a_new_one_and_nothing_is_left(tmp_path, allowed):
    files = [tmp_path / name for name in ("a", "b")]
    for file in files:
        file.write_text("x")
        file.chmod(0o600)
    follow_umask(*files)
    assert modes(tmp_path) == {allowed} and sorted(tmp_path.iterdir()) == files


def test_no_files_are_no_error():
    follow_umask()


def test_a_saved_drafter(tmp_path, allowed):
    tiny.drafter().save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").exists() and modes(tmp_path) == {allowed}


def test_a_drafter_saved_in_shards(tmp_path, allowed):
    tiny.drafter().save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1 and modes(tmp_path) == {allowed}


@pytest.mark.parametrize("shard_bytes", [2**30, 10_000])
def test_a_converted_checkpoint(tmp_path, allowed, shard_bytes):
    made = LAYOUTS["vispec"]()
    source = published.save(tmp_path / "theirs", made.config, made.tensors(), "bin")
    convert(source, tmp_path / "ours", shard_bytes=shard_bytes)
    assert list((tmp_path / "ours").glob("*.safetensors")) and modes(tmp_path / "ours") == {allowed}


def test_measured_costs(tmp_path, allowed):
    cost_cache._write(tmp_path / "costs.json", {1: 0.5})
    assert modes(tmp_path) == {allowed}


def test_weights_of_the_embedded_default(tmp_path, allowed):
    weights.save_weights(tmp_path / "weights.safetensors", {}, {}, {}, {"side": "3"})
    assert modes(tmp_path) == {allowed}
