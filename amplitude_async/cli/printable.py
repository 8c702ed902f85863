"""Text from elsewhere, made fit for a terminal."""

__all__ = ["printable"]


def printable(text: str, longest: int = 80) -> str:
    """Keep what others sent from steering the terminal or flooding it."""
    shown = "".join(one if one.isprintable() else "?" for one in text)
    return shown if len(shown) <= longest else f"{shown[:longest]}..."
