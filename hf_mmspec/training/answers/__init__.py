"""The target answers prompts: batches of `generate`, which samples are left out, a data set that survives crashes.

Its border: token ids and files; hidden states are read in `features/`.
"""
