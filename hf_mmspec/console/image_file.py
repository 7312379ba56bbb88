"""Opens an image file that a user names, or says in one line why not. Loads no model and imports no torch."""

import warnings
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")  # none of them runs another program, as EPS would
MAX_BYTES = 64 * 2**20
MAX_PIXELS = 50_000_000


class ImageFileError(ValueError):
    """The file cannot be used; the message is one line for the user."""


def open_image(path: Path) -> Image.Image:
    """The image as RGB, upright as its EXIF data says, transparent parts white; of an animation the first frame.

    Raises:
        ImageFileError: no such file, not an image, broken, or larger than `MAX_BYTES` or `MAX_PIXELS`. The size is
            read from the header, so a decompression bomb is never unpacked.
    """
    if not path.is_file():
        raise ImageFileError(f"{path}: {'is not a file' if path.exists() else 'no such file'}")
    if (size := path.stat().st_size) > MAX_BYTES:
        raise ImageFileError(f"{path}: {size / 2**20:.0f} MiB, the limit is {MAX_BYTES // 2**20} MiB")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit below is stricter
        try:
            with Image.open(path, formats=FORMATS) as image:
                _check_size(path, image.size)
                return _to_rgb(ImageOps.exif_transpose(image))
        except Image.DecompressionBombError as error:
            raise ImageFileError(f"{path}: {error}; the limit is {MAX_PIXELS:,} pixels") from error
        except UnidentifiedImageError as error:
            raise ImageFileError(f"{path}: not an image ({', '.join(FORMATS)} can be read)") from error
        except ImageFileError:
            raise
        except Exception as error:  # decoders raise nearly anything on broken data
            raise ImageFileError(f"{path}: broken image ({type(error).__name__}: {error})") from error


def _check_size(path: Path, size: tuple[int, int]) -> None:
    if size[0] * size[1] > MAX_PIXELS:
        raise ImageFileError(f"{path}: {size[0]} x {size[1]} pixels, the limit is {MAX_PIXELS:,} pixels")


def _to_rgb(image: Image.Image) -> Image.Image:
    if "A" in image.getbands() or "transparency" in image.info:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return image.convert("RGB")
