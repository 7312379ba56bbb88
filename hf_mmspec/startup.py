"""Whether this process is the command line, which must answer `--help` before torch could even be imported.

Knows how Python starts programs, and nothing of what is imported or not.
"""

import sys
from pathlib import Path

# pip's script for pyproject.toml's entry point; Windows has a launcher of that name
PROGRAMS = ("mmspec", "mmspec.exe")


def is_command_line() -> bool:
    """Whether Python was started for `mmspec` or `python -m hf_mmspec`; a doubt is a no, which only costs seconds."""
    program = sys.argv[0] if getattr(sys, "argv", None) else ""  # an embedded interpreter may have none
    if program == "-m":  # Python's word for "still looking for the module", which imports the module's package
        return sys.orig_argv[-len(sys.argv)] == __package__
    return Path(program).name in PROGRAMS
