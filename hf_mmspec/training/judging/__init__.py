"""How good a drafter is: L through `generate`, and ranks along known answers.

Its border: it trains nothing.
"""
