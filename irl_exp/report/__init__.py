"""What a run found, for people: figures, a page and a table, from the files of its directory alone.

`page.write(folder)` draws the figures and writes report.md; `page.show(folder)` prints the tables.
"""
