"""What a run measures: arrays and texts in, numbers out; every reward is higher = less toxic."""
