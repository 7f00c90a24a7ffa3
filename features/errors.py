"""Errors for people: each message says what is wrong, where, and what to do; suggestions for misspelt names.

>>> unknown_name("model", "gbtd", ["gbdt", "gru"])
"no model 'gbtd'; did you mean 'gbdt'? There are: gbdt, gru"
"""

import difflib
from collections.abc import Iterable
from pathlib import Path

MOST_NAMES = 20


class JourneyLabError(ValueError):
    """The base of every error that a user can mend; the command line prints its text and nothing else."""


class DataError(JourneyLabError):
    """The data cannot be used as they are."""


class ConfigError(JourneyLabError):
    """An experiment file, an option or a setting is wrong."""


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The name that looks most like this one, upper and lower case alike; None where none looks like it."""
    lower = {candidate.lower(): candidate for candidate in reversed(list(names))}
    close = difflib.get_close_matches(name.lower(), lower, n=1, cutoff=0.5)
    return lower[close[0]] if close else None


def unknown_name(kind: str, name: str, names: Iterable[str]) -> str:
    """The message for a name of a thing that does not exist: the nearest one, and which there are."""
    names = list(names)
    return f"no {kind} '{name}'{_hint(nearest(name, names))} There are: {_listed(names)}"


def _hint(close: object) -> str:
    return f"; did you mean '{close}'?" if close else "."


def missing_path(path: Path) -> str:
    """The message for a path that does not exist: how far it does, and what the last folder holds.

    >>> missing_path(Path("/dev/nul")).split(" The folder")[0]
    'There is no /dev/nul; did you mean /dev/null?'
    """
    folder = next((above for above in path.parents if above.is_dir()), Path())
    missing = path.relative_to(folder).parts[0] if path.is_relative_to(folder) else path.name
    names = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    close = nearest(missing, names)
    hint = f"; did you mean {folder / close}?" if close else "."
    return f"There is no {path}{hint} The folder {folder} holds {_listed(names) or 'nothing'}."


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - MOST_NAMES:,} more" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more
