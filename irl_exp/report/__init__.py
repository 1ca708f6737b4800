"""What a run found, for people: figures, a page and a table, from the files of its directory alone.

`page.write(folder)` draws the figures and writes report.md; `page.show(folder)` prints the tables.
"""


class NoReport(Exception):
    """What was asked for cannot be reported, as one clear line: what, where, what was expected."""
