"""Errors for people: each message says what is wrong, where, and what to do; and how to say what was probably meant.

>>> unknown_name("model", "gbtd", ["gbdt", "gru"])
"no model 'gbtd'; did you mean 'gbdt'? There are: gbdt, gru"
"""

import difflib
from collections.abc import Iterable
from pathlib import Path

NAMES_SHOWN = 12


class JourneyLabError(ValueError):
    """The base of every error that a user can mend; the command line prints its text and nothing else."""


class DataError(JourneyLabError):
    """The data handed in cannot be used as they are."""


class ConfigError(JourneyLabError):
    """An experiment file, an option or a setting is wrong."""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that looks most like this one, upper and lower case alike; None where none looks like it."""
    lower = {one.lower(): one for one in reversed(list(known))}
    close = difflib.get_close_matches(name.lower(), lower, n=1, cutoff=0.5)
    return lower[close[0]] if close else None


def unknown_name(what: str, name: str, known: Iterable[str]) -> str:
    """What to say about a name that nobody knows: the nearest one, and which there are."""
    names = list(known)
    close = nearest(name, names)
    hint = f"; did you mean '{close}'?" if close else "."
    return f"no {what} '{name}'{hint} There are: {_some(names)}"


def missing_path(path: Path) -> str:
    """What to say about a path that does not exist: how far it does, and what is there.

    >>> missing_path(Path("/dev/nul")).split(" The folder")[0]
    'There is no /dev/nul; did you mean /dev/null?'
    """
    folder = next((above for above in path.parents if above.is_dir()), Path())
    missing = path.relative_to(folder).parts[0] if path.is_relative_to(folder) else path.name
    names = sorted(one.name for one in folder.iterdir() if not one.name.startswith("."))
    close = nearest(missing, names)
    hint = f"; did you mean {folder / close}?" if close else "."
    return f"There is no {path}{hint} The folder {folder} holds {_some(names) or 'nothing'}."


def _some(names: list[str]) -> str:
    more = f" and {len(names) - NAMES_SHOWN:,} more" if len(names) > NAMES_SHOWN else ""
    return ", ".join(names[:NAMES_SHOWN]) + more
