"""Pictures of the user's own tables may lie anywhere; those of others' stay where they belong."""

import base64
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hf_mmspec.data import UnusableSample
from hf_mmspec.data.picture_root import PictureRoot


@pytest.fixture
def root(tmp_path):
    for name in ("inside/a b.png", "inside/sub/c.png", "outside.png", "inside-not/d.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def refused(root, value, reason):
    with pytest.raises(UnusableSample) as caught:
        root.find(value)
    assert caught.value.reason == reason


def test_paths_within_the_folder(root):
    for own in (True, False):
        here = PictureRoot(root / "inside", own)
        assert here.find("a b.png") == str(root / "inside/a b.png")
        assert here.find("sub/../sub/./c.png") == here.find({"path": "sub/c.png"}) == str(root / "inside/sub/c.png")
        assert here.find(str(root / "inside/a b.png")) == here.find((root / "inside/a b.png").as_uri())


def test_own_tables_may_lead_out_and_say_so(root):
    here = PictureRoot(root / "inside", own=True)
    for name in ("../outside.png", str(root / "outside.png")):
        with pytest.warns(UserWarning, match="inside: its table names pictures outside this folder"):
            assert here.find(name) == str(root / "outside.png")


def test_others_tables_may_not(root):
    here = PictureRoot(root / "inside")
    for name in ("../outside.png", "sub/../../outside.png", str(root / "outside.png"), "../inside-not/d.png"):
        refused(here, name, "picture outside its folder")
        refused(here, {"bytes": None, "path": name}, "picture outside its folder")
    refused(PictureRoot(None), "a.png", "picture outside its folder")


def test_caches_of_datasets_are_allowed_as_it_unpacks_pictures_there(root):
    here = PictureRoot(None, caches=(root / "inside",))
    assert here.find(str(root / "inside/a b.png")) == str(root / "inside/a b.png")
    refused(here, str(root / "inside/../outside.png"), "picture outside its folder")


def test_pictures_that_come_with_the_row(root):
    here, image = PictureRoot(None), Image.new("RGB", (2, 2))
    assert here.find(b"png") == here.find({"bytes": b"png", "path": "/etc/passwd"}) == b"png"
    assert here.find(image) is image
    assert here.find("data:image/png;base64," + base64.b64encode(b"png").decode()) == b"png"


def test_values_that_are_no_picture(root):
    here = PictureRoot(root / "inside", own=True)
    for value in (None, "", {}, {"bytes": None, "path": None}, "gone.png", "sub", "a\0b", "x" * 5000):
        refused(here, value, "picture missing")
    for value in (3, 2.5, ["a b.png"], {"path": 3}, "data:image/png;base64,%", "data:image/png,abc"):
        refused(here, value, "picture of an unknown kind")
    for value in ("https://example.org/a.png", "s3://bucket/a.png", "zip://a.png::b.zip"):
        refused(here, value, "picture is not on this machine")


@given(st.lists(st.sampled_from(["..", ".", "sub", "a b.png", "/", "outside.png", "", "..."])).map("/".join))
def test_no_path_leads_out_of_others_folders(tmp_path_factory, name):
    folder = tmp_path_factory.getbasetemp() / "others"
    folder.mkdir(exist_ok=True)
    (folder / "a b.png").touch()
    try:
        found = PictureRoot(folder).find(name)
    except UnusableSample:
        return
    assert Path(found).resolve().is_relative_to(folder.resolve())
