"""Image files that users have: every one opens as RGB or gives one line that says why not."""

import io
import struct
import zlib

import numpy as np
import pytest
from datasets import Dataset, Features
from datasets import Image as ImageColumn
from PIL import Image
from PIL.PngImagePlugin import PngInfo

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


@pytest.mark.parametrize("part", ["colour profile", "text"])
def test_what_unpacks_to_more_than_pillow_allows_is_one_line(tmp_path, part):
    """Many megabytes, packed to a few kilobytes."""
    if part == "colour profile":
        options = {"icc_profile": bytes(80 * 2**20)}
    else:
        options = {"pnginfo": PngInfo()}
        options["pnginfo"].add_text("name", "x" * 2**21, zip=True)
    Image.new("RGB", (7, 5)).save(tmp_path / "image.png", **options)
    fails(tmp_path / "image.png", "broken image")


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


# ---- one loader, whatever the picture comes as ------------------------------------------------------------------


def ramp(width=24, height=16):
    """Every row another ramp, so that a turn or a flip shows."""
    return (np.arange(width)[None, :] * 7 + np.arange(height)[:, None] * 3).astype(np.uint8)


def with_alpha(image):
    image.putalpha(Image.fromarray(255 - ramp()))
    return image


def turned_jpeg():
    exif = Image.Exif()
    exif[0x0112] = 6
    return Image.fromarray(ramp()).convert("RGB"), {"exif": exif}, "jpg"


KINDS = {
    "orientation 6": turned_jpeg,
    "grey": lambda: (Image.fromarray(ramp()), {}, "png"),
    "palette": lambda: (Image.fromarray(ramp()).convert("RGB").quantize(16), {}, "png"),
    "palette with a clear colour": lambda: (
        Image.fromarray(ramp()).convert("RGB").quantize(16),
        {"transparency": 3},
        "png",
    ),
    "RGBA": lambda: (with_alpha(Image.fromarray(ramp()).convert("RGB")), {}, "png"),
    "LA": lambda: (with_alpha(Image.fromarray(ramp())), {}, "png"),
    "1 bit": lambda: (Image.fromarray(ramp()).convert("1"), {}, "png"),
    "16 bit PNG": lambda: (Image.fromarray(ramp().astype(np.uint16) * 257), {}, "png"),
    "16 bit TIFF": lambda: (Image.fromarray(ramp().astype(np.uint16) * 257), {}, "tiff"),
    "16 bit big-endian TIFF": lambda: (Image.frombytes("I;16B", (24, 16), ramp().astype(">u2").tobytes()), {}, "tiff"),
    "32 bit TIFF": lambda: (Image.fromarray(ramp().astype(np.int32) * 257), {}, "tiff"),
    "float TIFF": lambda: (Image.fromarray(ramp().astype(np.float32) / 255), {}, "tiff"),
    "CMYK": lambda: (Image.fromarray(ramp()).convert("RGB").convert("CMYK"), {}, "jpg"),
}


def ways(file):
    """The same file as everything that a picture may come as."""
    data = file.read_bytes()
    with Image.open(file) as opened:
        yield from (str(file), file, data, bytearray(data), opened, {"bytes": data, "path": None})
        yield from ({"bytes": None, "path": str(file)}, {"bytes": data, "path": "inside/an/archive.png"})
    column = Features({"picture": ImageColumn(decode=False)})
    yield Dataset.from_dict({"picture": [str(file)]}, features=column)[0]["picture"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_pixels_through_every_way(tmp_path, kind):
    image, options, suffix = KINDS[kind]()
    file = tmp_path / f"picture.{suffix}"
    image.save(file, **options)
    found = [open_picture(way) for way in ways(file)]
    assert {each.mode for each in found} == {"RGB"}
    assert {each.size for each in found} == {(16, 24) if kind == "orientation 6" else (24, 16)}
    assert len({each.tobytes() for each in found}) == 1
    assert open_picture(found[0]).tobytes() == found[0].tobytes(), "opening twice turned it again"


def pixels(image):
    """What a grey picture shows, `(height, width)`."""
    shown = np.asarray(open_picture(image))
    assert (shown == shown[..., :1]).all()
    return shown[..., 0]


def test_orientation_6_is_a_quarter_turn_clockwise(tmp_path):
    image, options, _ = turned_jpeg()
    image.save(tmp_path / "turned.jpg", quality=100, **options)
    difference = np.abs(pixels(tmp_path / "turned.jpg").astype(int) - np.rot90(ramp(), -1))
    assert difference.max() < 8


@pytest.mark.parametrize("order", ["<u2", ">u2"])
def test_16_bits_are_scaled_not_clipped(order):
    mode = {"<u2": "I;16", ">u2": "I;16B"}[order]
    image = Image.frombytes(mode, (24, 16), (ramp().astype(np.uint16) * 257).astype(order).tobytes())
    assert (pixels(image) == ramp()).all()
    dark = Image.frombytes(mode, (2, 1), np.array([200, 65535], dtype=order).tobytes())
    assert pixels(dark).tolist() == [[1, 255]]


def test_a_16_bit_png_file(tmp_path):
    Image.fromarray(ramp().astype(np.uint16) * 257).save(tmp_path / "grey.png")
    assert (pixels(tmp_path / "grey.png") == ramp()).all()


@pytest.mark.parametrize("kind", [np.int32, np.float32])
@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([0, 100, 255], [0, 100, 255]),
        ([0, 257, 65535], [0, 1, 255]),
        ([-100, 0, 100], [0, 128, 255]),
        ([0, 100_000, 200_000], [0, 128, 255]),
        ([70_000, 70_000, 70_000], [0, 0, 0]),
    ],
)
def test_32_bits_take_the_scale_that_holds_them(kind, values, shown):
    assert pixels(Image.fromarray(np.array([values], dtype=kind))).tolist() == [shown]


def test_floats_from_0_to_1_and_what_is_no_number():
    image = Image.fromarray(np.array([[0.0, 0.2, 1.0, np.nan, np.inf, -np.inf]], dtype=np.float32))
    assert pixels(image).tolist() == [[0, 51, 255, 0, 255, 0]]
    assert pixels(Image.fromarray(np.full((1, 2), np.nan, dtype=np.float32))).tolist() == [[0, 0]]


def test_transparent_grey_lies_on_white():
    image = Image.fromarray(np.zeros((1, 2), dtype=np.uint8))
    image.putalpha(Image.fromarray(np.array([[0, 255]], dtype=np.uint8)))
    assert pixels(image).tolist() == [[255, 0]]


def test_the_users_image_stays_as_it_was():
    buffer = io.BytesIO()
    image, options, _ = turned_jpeg()
    image.save(buffer, "JPEG", **options)
    mine = Image.open(buffer)
    assert open_picture(mine).size == (16, 24) and mine.size == (24, 16)


@pytest.mark.parametrize("nothing", [None, 3, {}, {"bytes": None, "path": None}, [1]])
def test_what_is_no_picture_at_all(nothing):
    with pytest.raises(PictureError, match="must be a path, bytes or a PIL image"):
        open_picture(nothing)
