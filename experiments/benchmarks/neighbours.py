"""Who else used this machine while something was timed? Figures taken beside others' work say so.

watch = Watch()
...                          # subprocesses, waited for
watch.other_cores()               # cores that neither this process nor its children kept busy, on average
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
        self.began, self.machine, self.process_s = time.monotonic(), _machine_s(), _process_s()

    def other_cores(self) -> float:
        """Cores that others kept busy since then, on average; children count once they were waited for."""
        seconds = time.monotonic() - self.began
        used = (_machine_s() - self.machine) - (_process_s() - self.process_s)
        return round(max(0.0, used / seconds), 2)


def _machine_s() -> float:
    """Seconds of all cores that were not idle."""
    fields = [int(field) for field in STAT.read_text().splitlines()[0].split()[1:9]]
    user, nice, system, _idle, _wait, irq, softirq, steal = fields
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def _process_s() -> float:
    used = [resource.getrusage(scope) for scope in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)
