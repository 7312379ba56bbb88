"""The model of the embedded default as one loads it: its parts, how they are merged, its processor and its dtype.

Its border: inference. Of the world it knows the size of the pictures only, of its own training nothing.
"""
