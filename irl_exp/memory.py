"""Freed memory is kept for what comes next.

glibc gives blocks of more than 32 MiB back at once, and the system hands out new ones a page at a
time, zeroed: writing logits over a vocabulary of 50,000 words then takes ten times as long.
"""

import ctypes

# Of mallopt(3), in bytes: what is asked of the system by itself, what may lie free at the end
# before it goes back, and what is taken beyond need.
TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -1, -2, -3
LIMITS = {MMAP_THRESHOLD: 2**30, TRIM_THRESHOLD: 2**29, TOP_PAD: 2**26}


def keep_freed() -> None:
    """For the rest of this process. Other C libraries are left as they are."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for parameter, value in LIMITS.items():
            mallopt(parameter, value)
