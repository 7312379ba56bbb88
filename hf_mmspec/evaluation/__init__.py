"""Honest measurement: contenders take turns on the same prompts, and every answer is checked against the stock one."""
