"""The one loader of pictures: whatever a picture comes as, RGB and upright, or one line that says why not.

Loads no model and imports no torch.
"""

import io
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")  # none of them runs another program, as EPS would
MAX_BYTES = 64 * 2**20
MAX_PIXELS = 50_000_000


class PictureError(ValueError):
    """The picture cannot be used; the message is one line for the user."""


def open_picture(source: Any) -> Image.Image:
    """A picture as RGB, upright as its EXIF data says, transparent parts white; of an animation the first frame.
    Grey samples of 16 or 32 bits are scaled to 8.

    Args:
        source: a file's path, its bytes, a PIL image, or what `datasets.Image(decode=False)` gives, a dict with
            `bytes` and `path`.

    Raises:
        PictureError: no such file, not a picture, broken, or larger than `MAX_BYTES` or `MAX_PIXELS`. The size is
            read from the header, so a decompression bomb is never unpacked.
    """
    if isinstance(source, Image.Image):
        return _upright(source, "the picture")
    if isinstance(source, Mapping):
        source = source.get("bytes") or source.get("path")
    if isinstance(source, bytes | bytearray):
        return _read(io.BytesIO(source), len(source), "the picture")
    if not isinstance(source, str | Path):
        raise PictureError(f"a picture must be a path, bytes or a PIL image, not {type(source).__name__}")
    path = Path(source)
    if not path.is_file():
        raise PictureError(f"{path}: {'is not a file' if path.exists() else 'no such file'}")
    return _read(path, path.stat().st_size, str(path))


def _read(file: Path | io.BytesIO, size: int, name: str) -> Image.Image:
    if size > MAX_BYTES:
        raise PictureError(f"{name}: {size / 2**20:.0f} MiB, the limit is {MAX_BYTES // 2**20} MiB")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit below is stricter
        try:
            with Image.open(file, formats=FORMATS) as image:
                return _upright(image, name)
        except Image.DecompressionBombError as error:
            raise PictureError(f"{name}: {error}; the limit is {MAX_PIXELS:,} pixels") from error
        except UnidentifiedImageError as error:
            raise PictureError(f"{name}: not an image ({', '.join(FORMATS)} can be read)") from error
        except PictureError:
            raise
        except Exception as error:  # headers too are read by decoders, see `_upright`
            raise PictureError(f"{name}: broken image ({type(error).__name__}: {error})") from error


def _upright(image: Image.Image, name: str) -> Image.Image:
    if image.width * image.height > MAX_PIXELS:
        raise PictureError(f"{name}: {image.width} x {image.height} pixels, the limit is {MAX_PIXELS:,} pixels")
    try:
        return _to_rgb(ImageOps.exif_transpose(image))
    except Exception as error:  # decoders raise nearly anything on broken data
        raise PictureError(f"{name}: broken image ({type(error).__name__}: {error})") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        image = _eight_bits(image)
    if "A" in image.getbands() or "transparency" in image.info:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """A grey image of wider samples as 8 bits, which Pillow's own conversion would clip; NaN becomes black."""
    values = np.asarray(image).astype(np.float32)
    black, white = _black_and_white(image.mode, values[np.isfinite(values)])
    levels = np.nan_to_num((values - black) * (255 / (white - black)), nan=0.0, posinf=255.0, neginf=0.0)
    return Image.fromarray(levels.round().clip(0, 255).astype(np.uint8))


def _black_and_white(mode: str, values: np.ndarray) -> tuple[float, float]:
    """The values of black and white: 16-bit files say it by their mode; 32-bit integers and floats do not, so the
    usual scale that holds all their values is taken, or else the lowest and the highest of them."""
    if mode.startswith("I;16"):
        return 0.0, 65535.0
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    for white in (1.0, 255.0, 65535.0) if mode == "F" else (255.0, 65535.0):
        if low >= 0 and high <= white:
            return 0.0, white
    return low, high if high > low else low + 1
