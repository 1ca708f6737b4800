"""A full disk is one clear line: libraries that write say what failed, and rarely where."""

import contextlib
import errno
import os
from collections.abc import Iterator

from irl_exp.config import ForeignError, InputError

REASONS = tuple(os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG))


@contextlib.contextmanager
def named(place: object) -> Iterator[None]:
    """Turn the error of a write that found no room, whoever wrote, into one that names ``place``.

    Raises:
        InputError: no space, quota or allowed file size is left.
    """
    try:
        yield
    except (InputError, ForeignError):
        raise
    except Exception as error:
        # Libraries in other languages have exceptions of their own, with the system's words.
        reason = next((reason for reason in REASONS if reason in str(error)), None)
        if reason is None:
            raise
        raise InputError(f"{place}: {reason}; with more room, the same command works") from error
