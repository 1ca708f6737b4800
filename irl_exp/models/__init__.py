"""Language models and rewards: what is built, loaded, saved and sampled from."""
