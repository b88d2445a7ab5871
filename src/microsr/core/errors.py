"""Errors that are for the user: one line that says what is wrong, in which file, and what to do."""


class UserError(Exception):
    """Something the user can mend: the message says what is wrong, in which file, and what to do."""


def brief(error: Exception) -> str:
    """What an exception says in its first line, or else its name."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:160] if lines else type(error).__name__
