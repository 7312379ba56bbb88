"""How the embedded default is made and judged: icons, labels, training in stages, export and evaluation.

Its border: commands to be run by hand (extra `train`); nothing outside of this room imports it.
"""
