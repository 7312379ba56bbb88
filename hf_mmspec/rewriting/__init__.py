"""Prompt rewriting for image generators, in the style of Seedream 4.0's prompt-engineering model."""
