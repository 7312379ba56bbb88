"""Permissions of files that other libraries make private: safetensors and tempfile write 0600 whatever the umask.

Knows no format; a file's content is its writer's business.
"""

import stat
import uuid
from pathlib import Path


def follow_umask(*files: Path) -> None:
    """Give `files`, which lie in one folder, the permissions of any new file there (umask, default ACLs).

    A new file is asked, since the umask can only be read by changing it for all threads.
    """
    if not files:
        return
    probe = files[0].with_name(f".{uuid.uuid4().hex}.tmp")
    probe.touch()
    try:
        mode = stat.S_IMODE(probe.stat().st_mode)
    finally:
        probe.unlink()
    for file in files:
        file.chmod(mode)
