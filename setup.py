"""Which folders are packages: every one below `hf_mmspec`, and `modeling`, which becomes `hf_mmspec.modeling`.

Its border: this list, which pyproject.toml cannot write with a folder mapped elsewhere; everything else is there.
"""

from setuptools import find_packages, setup

setup(packages=[*find_packages(include=["hf_mmspec", "hf_mmspec.*"]), "hf_mmspec.modeling"])
