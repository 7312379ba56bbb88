"""How a drafter learns from records: order, batches, losses, and transformers' Trainer.

Its border: neither prompts nor files of answers.
"""
