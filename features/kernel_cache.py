"""Where compiled kernels are kept: by what their source says, not by where it lies.

Numba keeps compiled code beside the source, so each copy of it (a logged model's, a bento's, another checkout's) would
compile anew, for the better part of a minute. Here equal sources share one folder of the user's cache,
`~/.cache/journeylab/kernels`; `NUMBA_CACHE_DIR` puts it elsewhere. A bento brings its own, in `kernels/` beside
`features/`.

A module with cached kernels imports this one before it declares them.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from numba.core import caching, config

HERE = Path(__file__).resolve().parent
WITH_KERNELS = (HERE, HERE.parent / "models")
BROUGHT = HERE.parent / "kernels"
NUMBAS_OWN = "UserProvidedCacheLocator,InTreeCacheLocator,UserWideCacheLocator,IPythonCacheLocator,ZipCacheLocator"


_Locator: Any = caching.InTreeCacheLocator


class SharedLocator(_Locator):  # type: ignore[misc]
    """Numba's extension point: says where a function's compiled code is kept."""

    def __init__(self, py_func: Any, py_file: str) -> None:
        super().__init__(py_func, py_file)
        self._cache_path = str(cache_folder() / entry(Path(py_file)))

    @classmethod
    def from_function(cls, py_func: Any, py_file: str) -> Any:
        """A locator for a function of our folders; None for those of others."""
        return (
            super().from_function(py_func, py_file)
            if set(WITH_KERNELS) & set(Path(py_file).resolve().parents)
            else None
        )


def entry(source: Path) -> str:
    """The folder's name for a source file: its name and the beginning of its SHA-256."""
    return f"{source.stem}-{hashlib.sha256(source.read_bytes()).hexdigest()[:16]}"


@cache
def cache_folder() -> Path:
    """The first of these that can be written to: what a bento brought, the user's cache, a folder of this process.

    Numba refuses a cache that it cannot write to, a full one included; in a read-only container the brought kernels are
    copied to a temporary folder.
    """
    if BROUGHT.is_dir():
        return BROUGHT if _writable(BROUGHT) else Path(shutil.copytree(BROUGHT, _temporary(), dirs_exist_ok=True))
    users = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "journeylab" / "kernels"
    wanted = Path(os.environ.get("NUMBA_CACHE_DIR") or users)
    return wanted if _writable(wanted) else _temporary()


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return False
    return True


def _temporary() -> Path:
    return Path(tempfile.mkdtemp(prefix="journeylab-kernels-"))


if not config.CACHE_LOCATOR_CLASSES:  # type: ignore[attr-defined]
    vars(config)["CACHE_LOCATOR_CLASSES"] = f"{__name__}.{SharedLocator.__name__},{NUMBAS_OWN}"
