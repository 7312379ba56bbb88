"""The world of the embedded default: what can be seen, its pictures, what is said about them, and grades for it.

Its border: facts, pixels and words from seeds; nothing here knows a model or needs torch.
"""
