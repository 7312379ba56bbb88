"""Image files that users have: every one opens as RGB or gives one line that says why not."""

import struct
import zlib

import pytest
from PIL import Image

from hf_mmspec.data import picture_file
from hf_mmspec.data.picture_file import PictureError, open_picture


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "I;16"])
def test_png_of_any_mode_becomes_rgb(tmp_path, mode):
    Image.new(mode, (7, 5)).save(tmp_path / "image.png")
    image = open_picture(tmp_path / "image.png")
    assert image.mode == "RGB" and image.size == (7, 5)


@pytest.mark.parametrize("suffix", ["jpg", "webp", "gif", "bmp", "tiff"])
def test_other_formats(tmp_path, suffix):
    Image.new("RGB", (7, 5), "red").save(tmp_path / f"image.{suffix}")
    assert open_picture(tmp_path / f"image.{suffix}").size == (7, 5)


def test_transparent_is_white_and_exif_turns(tmp_path):
    Image.new("RGBA", (3, 3), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert open_picture(tmp_path / "clear.png").getpixel((1, 1)) == (255, 255, 255)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 4)).save(tmp_path / "turned.jpg", exif=exif)
    assert open_picture(tmp_path / "turned.jpg").size == (4, 8)


def fails(path, words):
    with pytest.raises(PictureError, match=words) as caught:
        open_picture(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_missing_folder_text_and_empty_files(tmp_path):
    fails(tmp_path / "nothing.png", "no such file")
    fails(tmp_path, "not a file")
    (tmp_path / "text.png").write_text("hello")
    fails(tmp_path / "text.png", "not an image")
    (tmp_path / "empty.png").touch()
    fails(tmp_path / "empty.png", "not an image")


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_truncated_files(tmp_path, suffix, share):
    path = tmp_path / f"image.{suffix}"
    Image.effect_noise((64, 64), 80).convert("RGB").save(path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    fails(path, "broken image|not an image")


def test_damaged_data(tmp_path):
    path = tmp_path / "image.png"
    Image.effect_noise((64, 64), 80).save(path)
    data = bytearray(path.read_bytes())
    data[60:200] = bytes(140)
    path.write_bytes(data)
    fails(path, "broken image|not an image")


def png_that_claims(width, height):
    """A valid PNG header of that size and hardly any data: a decompression bomb to whoever believes it."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [7_100, 9_600, 20_000, 60_000])
def test_decompression_bombs_are_refused_by_their_header(tmp_path, side):
    (tmp_path / "bomb.png").write_bytes(png_that_claims(side, side))
    fails(tmp_path / "bomb.png", "50,000,000 pixels")


def test_large_files_are_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(picture_file, "MAX_BYTES", 100)
    (tmp_path / "large.png").write_bytes(bytes(101))
    fails(tmp_path / "large.png", "the limit is")


def test_formats_that_run_other_programs_are_not_read(tmp_path):
    (tmp_path / "page.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n")
    fails(tmp_path / "page.png", "not an image")
