"""The cache of compiled kernels: keyed by their source, not by its path.

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

FEATURES = Path(__file__).resolve().parent
WITH_KERNELS = (FEATURES, FEATURES.parent / "models")
BUNDLED = FEATURES.parent / "kernels"
NUMBA_LOCATORS = "UserProvidedCacheLocator,InTreeCacheLocator,UserWideCacheLocator,IPythonCacheLocator,ZipCacheLocator"


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
    """The first of these that can be written to: the kernels of a bento, the user's cache, a folder of this process.

    Numba refuses a cache that it cannot write to, a full one included; in a read-only container the bundled kernels are
    copied to a temporary folder.
    """
    if BUNDLED.is_dir():
        return BUNDLED if _writable(BUNDLED) else Path(shutil.copytree(BUNDLED, _temporary(), dirs_exist_ok=True))
    users = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "journeylab" / "kernels"
    folder = Path(os.environ.get("NUMBA_CACHE_DIR") or users)
    return folder if _writable(folder) else _temporary()


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
    vars(config)["CACHE_LOCATOR_CLASSES"] = f"{__name__}.{SharedLocator.__name__},{NUMBA_LOCATORS}"
