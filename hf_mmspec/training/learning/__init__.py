"""How a drafter learns from records: order, batches, losses, and Trainer. Knows neither prompts nor files of answers."""
