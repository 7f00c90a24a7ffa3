"""On which engine a command runs: this machine, or Spark, with its master and settings.

>>> spark_asked("spark", "local[2]", ["spark.executor.memory=2g"])
SparkAsked(master='local[2]', settings={'spark.executor.memory': '2g'})
>>> spark_asked(None, None, []) is None
True
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from features.errors import ConfigError

LOCAL, SPARK = "local", "spark"


@dataclass(frozen=True)
class SparkAsked:
    """Where Spark runs.

    Attributes:
        master: as Spark writes it; None for what the environment says.
        settings: Spark's own, by name.
    """

    master: str | None = None
    settings: dict[str, str] = field(default_factory=dict)


def spark_asked(engine: str | None, master: str | None, conf: Sequence[str]) -> SparkAsked | None:
    """What options of the command line say; None for this machine.

    Args:
        engine: "local", "spark", or None: spark where a master is named.
        master: of Spark.
        conf: `KEY=VALUE` settings of Spark.

    Raises:
        ConfigError: no such engine, options of Spark without it, a setting without a value.
    """
    if engine not in (None, LOCAL, SPARK):
        raise ConfigError(f"There is no engine '{engine}': write --engine local or --engine spark.")
    if engine == LOCAL and (master or conf):
        raise ConfigError("--master and --conf are for --engine spark.")
    if engine is None and master is None:
        if conf:
            raise ConfigError("--conf is for --engine spark: name the engine, too.")
        return None
    if engine == LOCAL:
        return None
    settings = {}
    for one in conf:
        name, given, value = one.partition("=")
        if not given or not name.startswith("spark."):
            raise ConfigError(f"--conf {one}: write a setting of Spark as spark.executor.memory=8g.")
        settings[name] = value
    return SparkAsked(master, settings)


def refuse_here(options: Mapping[str, object]) -> None:
    """Raise a `ConfigError` where options that are for Spark were given for this machine.

    Args:
        options: name → value, None where it was not given.
    """
    if given := [name for name, value in options.items() if value is not None]:
        raise ConfigError(f"{' and '.join(given)} {'is' if len(given) == 1 else 'are'} for --engine spark.")
