"""Texts that come from anywhere: whether they are Unicode, and what of them may be printed."""


def is_unicode(text: str) -> bool:
    """Whether it is text throughout: bytes that are no UTF-8 (of a name, of a file) are surrogates
    in it, and so is half a character from JSON ("\\ud83d")."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def printable(line: str) -> str:
    """The line without what a terminal, or what shows Markdown, would obey."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in line)
