"""The finished drafter: its folder, its card, and where it comes from.

Its border: it measures nothing.
"""
