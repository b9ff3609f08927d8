"""Text as bytes and back. What is not UTF-8 on this host travels as lone surrogates, and comes back as it was."""


def to_bytes(text):
    return text.encode("utf-8", "surrogateescape")


def to_text(raw):
    return raw.decode("utf-8", "surrogateescape")
