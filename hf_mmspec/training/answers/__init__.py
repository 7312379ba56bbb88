"""The target answers prompts: batches of `generate`, which samples are left out, and a data set that survives crashes."""
