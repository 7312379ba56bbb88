"""What a drafter reads of an answer: records, from the target or from disk.

Its border: nothing here knows how they are learned from.
"""
