"""Where pictures lie that a table names: a value of a cell becomes something that `open_picture` opens.

Opens no picture; only decides which file is meant and whether it may be read.
"""

import base64
import binascii
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from PIL import Image

from .errors import UnusableSample


@dataclass(frozen=True)
class PictureRoot:
    """The folder that paths of pictures are relative to.

    Args:
        folder: None if the data has none (a Hub data set whose pictures are in its rows).
        own: the table is the user's, so its paths may lead anywhere; those of others stay inside `folder`.
        caches: further folders that others' pictures may lie in, as `datasets` unpacks archives there.
    """

    folder: Path | None
    own: bool = False
    caches: tuple[Path, ...] = ()

    def find(self, value: Any) -> Any:
        """The picture of a cell: bytes, a PIL image, or the path of a file that is there.

        Raises:
            UnusableSample: nothing there, of an unknown kind, on the web, or outside the folder of others' data.
        """
        if isinstance(value, Mapping):
            value = value.get("bytes") or value.get("path")
        if isinstance(value, bytes | bytearray | Image.Image):
            return value
        if value is None or value == "":
            raise UnusableSample("picture missing", "an empty value")
        if not isinstance(value, str):
            raise UnusableSample("picture of an unknown kind", type(value).__name__)
        return self._find_file(value) if not value.startswith("data:") else _decode(value)

    def _find_file(self, name: str) -> str:
        if name.startswith("file://"):
            name = unquote(urlsplit(name).path)
        elif "://" in name:
            raise UnusableSample("picture is not on this machine", name)
        path = os.path.normpath(self._allowed(name))
        if not os.path.isfile(path):
            raise UnusableSample("picture missing", f"no such file: {path[:200]}")
        return path

    def _allowed(self, name: str) -> str:
        if self.folder is not None:
            path = os.path.join(self.folder, name)
            if _is_inside(path, self.folder):
                return path
            if self.own:
                warnings.warn(f"{self.folder}: its table names pictures outside this folder", stacklevel=4)
                return path
        if os.path.isabs(name) and any(_is_inside(name, cache) for cache in self.caches):
            return name
        raise UnusableSample("picture outside its folder", name[:200])


def _is_inside(path: str, folder: Path) -> bool:
    inner, outer = os.path.abspath(path), os.path.abspath(folder)
    return os.path.commonpath([inner, outer]) == outer


def _decode(url: str) -> bytes:
    """The bytes of a `data:image/png;base64,...`."""
    head, _, body = url.partition(",")
    try:
        if not head.endswith(";base64"):
            raise ValueError("not base64")
        return base64.b64decode(body, validate=True)
    except (ValueError, binascii.Error) as error:
        raise UnusableSample("picture of an unknown kind", f"a data URL that cannot be read: {error}") from error
