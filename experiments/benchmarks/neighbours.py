"""Who else used this machine while something was timed? Figures taken beside others' work say so.

watch = Watch()
...                          # subprocesses, waited for
watch.others()               # cores that neither this process nor its children kept busy, on average
"""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path

STAT = Path("/proc/stat")


class Watch:
    """A clock of the machine and of this process with its children, from now on."""

    def __init__(self) -> None:
        self.began, self.machine, self.own = time.monotonic(), _machine_s(), _own_s()

    def others(self) -> float:
        """Cores that others kept busy since then, on average; children count once they were waited for."""
        seconds = time.monotonic() - self.began
        used = (_machine_s() - self.machine) - (_own_s() - self.own)
        return round(max(0.0, used / seconds), 2)


def _machine_s() -> float:
    """Seconds of all cores that were not idle."""
    fields = [int(field) for field in STAT.read_text().splitlines()[0].split()[1:9]]
    user, nice, system, _idle, _wait, irq, softirq, steal = fields
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def _own_s() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)
