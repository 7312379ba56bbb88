"""How good a drafter is: L through `generate`, and ranks along known answers. Trains nothing."""
