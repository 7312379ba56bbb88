"""From a target and prompts to a drafter: `answers/` (the target's own words), `features/` (what a drafter reads of
them), `recipes/` and `learning/` (how it learns), `judging/` (how good it is), `result/` (its folder).

`train.py` is the way through.
"""
