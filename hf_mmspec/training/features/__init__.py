"""What a drafter reads of an answer: records, read from the target or from disk. Knows nothing about learning."""
