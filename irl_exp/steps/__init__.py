"""The stages of the study: each reads artifacts and writes one artifact."""
