"""Where a command processes the event log: memory, disk partitions or Spark, with Spark's master and settings.

>>> engine_options("spark", "local[2]", ["spark.executor.memory=2g"])
Engine(name='spark', master='local[2]', settings={'spark.executor.memory': '2g'}, partitions=None)
>>> engine_options(None, None, []).name is None     # memory, or disk where the log is too large for it
True
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from features.errors import ConfigError

MEMORY, DISK, SPARK = "memory", "disk", "spark"
ENGINES = (MEMORY, DISK, SPARK)


@dataclass(frozen=True)
class Engine:
    """Where the event log is processed.

    Attributes:
        name: "memory", "disk" or "spark"; None for memory, or disk where the log is too large for it.
        master: of Spark; None for what the environment says.
        settings: Spark's own, by name.
        partitions: of customers, on disk and on Spark; by default one for each million events.
    """

    name: str | None = None
    master: str | None = None
    settings: dict[str, str] = field(default_factory=dict)
    partitions: int | None = None


AUTOMATIC = Engine()


def engine_options(
    engine: str | None, master: str | None, conf: Sequence[str], partitions: int | None = None
) -> Engine:
    """The engine that options of the command line name.

    Args:
        engine: a name; None is spark where a master is named.
        master: of Spark.
        conf: `KEY=VALUE` settings of Spark.
        partitions: of customers.

    Raises:
        ConfigError: no such engine, options of Spark without it, a setting without a value.
    """
    if engine is not None and engine not in (*ENGINES, "local"):
        raise ConfigError(f"There is no engine '{engine}': write --engine memory, --engine disk or --engine spark.")
    name = MEMORY if engine == "local" else engine  # what memory was called before there was disk
    if name in (MEMORY, DISK) and (master or conf):
        raise ConfigError("--master and --conf are for --engine spark.")
    if name is None and master is None and conf:
        raise ConfigError("--conf is for --engine spark: name the engine, too.")
    if name == MEMORY and partitions is not None:
        raise ConfigError("--partitions is for --engine disk and --engine spark.")
    name = SPARK if master else name or (DISK if partitions is not None else None)
    settings = {}
    for entry in conf:
        key, equals, value = entry.partition("=")
        if not equals or not key.startswith("spark."):
            raise ConfigError(f"--conf {entry}: write a setting of Spark as spark.executor.memory=8g.")
        settings[key] = value
    return Engine(name, master, settings, partitions)
