"""Every tabular feature of one snapshot in plain numpy and pandas: the reference of the compiled kernels."""

from __future__ import annotations

import numpy as np
import pandas as pd

from features.journeys.journeys import Journeys
from features.tabular.features import TabularFeatures

DAY = 86_400_000_000
WINDOWS = (7, 30, 90)


class Reference:
    """One snapshot as a frame; each method gives one group as name -> value."""

    def __init__(self, journeys: Journeys, features: TabularFeatures, customer: int, cutoff: int) -> None:
        low, high = journeys.offsets[customer], journeys.offsets[customer + 1]
        mask = journeys.t[low:high] < cutoff
        frame = pd.DataFrame({"t": journeys.t[low:high][mask]})
        for name, category in journeys.categories.items():
            names = np.array([*category.names, None], dtype=object)
            frame[name] = names[category.codes[low:high][mask]]
        for name, values in journeys.numbers.items():
            frame[name] = values[low:high][mask]
        learned = features.learned_
        assert learned is not None
        self.vocabularies, self.units = learned.vocabularies, learned.units
        self.raw = frame.copy()
        for column in (*learned.vocabularies,):
            known = frame[column].isin(learned.vocabularies[column])
            frame[column] = frame[column].where(known | frame[column].isna(), "other").fillna("missing")
        self.frame, self.cutoff, self.n = frame, cutoff, len(frame)
        self.days = (cutoff - frame["t"].to_numpy(dtype=np.int64)) / DAY
        self.t = frame["t"].to_numpy(dtype=np.int64)
        self.value = frame["value"].to_numpy()
        pauses = np.diff(self.t) > 3600 * 1_000_000
        self.visit = np.concatenate(([0], np.cumsum(pauses))).astype(int) if self.n else np.empty(0, int)
        self.m = self.visit[-1] + 1 if self.n else 0

    def windows(self) -> dict[str, np.ndarray]:
        """Which events are in each window."""
        inside = {f"{w}d": self.t >= self.cutoff - w * DAY for w in WINDOWS}
        return {**inside, "all": np.ones(self.n, bool)}

    def codes(self, columns: tuple[str, ...] = ("touchpoint", "channel", "stage", "item")) -> dict[str, np.ndarray]:
        """Every code with the events that have it."""
        found = {}
        for column in columns:
            rest = ("other",) if column == "touchpoint" else ("other", "missing")
            for value in (*self.vocabularies[column], *rest):
                slug = value.replace(" ", "_").replace(":", "_")
                found[f"{column}.{slug}"] = (self.frame[column] == value).to_numpy(dtype=bool)
        return found

    def known(self, column: str) -> dict[str, np.ndarray]:
        """The same without other and missing; `touchpoint` keeps only those with a name."""
        return {k: v for k, v in self.codes((column,)).items() if not k.endswith((".other", ".missing"))}

    def volume(self) -> dict[str, float]:
        out: dict[str, float] = {}
        for label, inside in self.windows().items():
            out |= {f"{code}.count_{label}": (inside & has).sum() for code, has in self.codes().items()}
            out[f"events_{label}"] = inside.sum()
            out[f"value_{label}"] = np.nansum(self.value[inside])
        return out

    def value_group(self) -> dict[str, float]:
        return {
            f"{code}.value_{label}": np.nansum(self.value[inside & has])
            for label, inside in self.windows().items()
            if label in ("30d", "all")
            for code, has in self.codes().items()
        }

    def recency(self) -> dict[str, float]:
        out = {"recency_days": last(self.days)}
        return out | {f"{code}.recency_days": last(self.days[has]) for code, has in self.codes().items()}

    def trend(self) -> dict[str, float]:
        out: dict[str, float] = {}
        windows = self.windows()
        for (label, inside), (wider, around) in zip(windows.items(), list(windows.items())[1:], strict=False):
            days = int(label[:-1])
            before = (self.t >= self.cutoff - 2 * days * DAY) & ~inside
            out[f"events_share_{label}_of_{wider}"] = ratio(inside.sum(), around.sum())
            out[f"events_growth_{label}"] = np.log((inside.sum() + 1) / (before.sum() + 1))
            whole = np.nansum(self.value[around])
            out[f"value_share_{label}_of_{wider}"] = np.nansum(self.value[inside]) / whole if whole > 0 else np.nan
            out[f"value_change_{label}"] = np.nansum(self.value[inside]) - np.nansum(self.value[before])
        half = self.cutoff - (self.cutoff - self.t[0]) // 2 if self.n else 0
        out["events_share_second_half"] = ratio((self.t >= half).sum(), self.n)
        for code, has in self.codes(("touchpoint",)).items():
            out[f"{code}.recent_share_30d"] = ratio((has & windows["30d"]).sum(), has.sum())
        return out

    def rfm(self) -> dict[str, float]:
        baskets = np.array([np.nansum(self.value[self.visit == v]) for v in range(self.m)])
        some = self.value[~np.isnan(self.value)]
        out = {
            "visits": self.m, "value_total": baskets.sum(), "valued_events": len(some),
            "value_mean": some.mean() if len(some) else np.nan, "value_max": some.max() if len(some) else np.nan,
            "value_per_day": baskets.sum() / max(self.days[0], 1) if self.n else np.nan,
        }  # fmt: skip
        for name, function in {
            "mean": np.mean, "median": np.median, "min": np.min, "max": np.max, "last": lambda b: b[-1],
            "before_last": lambda b: b[-2] if len(b) > 1 else np.nan, "last_to_mean": lambda b: ratio(b[-1], b.mean()),
            "ewm": lambda b: ewm(b, 0.5), "std": lambda b: np.std(b, ddof=1) if len(b) > 1 else np.nan, "slope": slope,
        }.items():  # fmt: skip
            out[f"basket_{name}"] = function(baskets) if self.m else np.nan
        for label, inside in self.windows().items():
            visits = np.unique(self.visit[inside])
            out[f"basket_mean_{label}"] = baskets[visits].mean() if len(visits) else np.nan
        return out

    def rhythm(self) -> dict[str, float]:
        new = np.flatnonzero(np.diff(self.visit)) + 1
        return gaps_of("gap", (self.t[new] - self.t[new - 1]) / DAY, last(self.days))

    def day_rhythm(self) -> dict[str, float]:
        days = np.unique(self.t // DAY)
        current = self.cutoff // DAY - days[-1] if self.n else np.nan
        return gaps_of("day_gap", np.diff(days).astype(float), current)

    def sessions(self) -> dict[str, float]:
        sizes = np.bincount(self.visit, minlength=self.m)
        spans = np.array([np.ptp(self.t[self.visit == v]) / 1e6 for v in range(self.m)])
        some = self.frame["duration_s"].dropna().to_numpy()
        any_ = self.m > 0
        out = {f"visits_{label}": len(np.unique(self.visit[inside])) for label, inside in self.windows().items()}
        duration = self.frame["duration_s"].to_numpy()
        out |= {f"duration_s_{label}": np.nansum(duration[inside]) for label, inside in self.windows().items()}
        return out | {
            "visit_seconds_total": spans.sum(), "visit_seconds_mean": spans.mean() if any_ else np.nan,
            "visit_seconds_max": spans.max() if any_ else np.nan, "visit_seconds_last": last(spans),
            "visit_events_mean": sizes.mean() if any_ else np.nan, "visit_events_max": sizes.max() if any_ else 0,
            "visit_events_last": last(sizes), "visit_events_last_to_mean": sizes[-1] / sizes.mean() if any_ else np.nan,
            "bounce_share": (sizes == 1).mean() if any_ else np.nan,
            "visit_ongoing": float(any_ and self.cutoff - self.t[-1] <= 3600 * 1_000_000),
            "duration_s_mean": some.mean() if len(some) else np.nan,
            "duration_s_max": some.max() if len(some) else np.nan, "duration_s_last": last(some),
        }  # fmt: skip

    def tenure(self) -> dict[str, float]:
        stamps = pd.Series(pd.to_datetime(self.t, unit="us"))
        day, month = self.t // DAY, (stamps.dt.year * 12 + stamps.dt.month).to_numpy()
        out: dict[str, float] = {}
        for label, inside in self.windows().items():
            out[f"active_days_{label}"] = len(np.unique(day[inside]))
            out[f"active_weeks_{label}"] = len(stamps[inside].dt.isocalendar()[["year", "week"]].drop_duplicates())
            out[f"active_months_{label}"] = len(np.unique(month[inside]))
        days = np.unique(day)
        runs = np.split(days, np.flatnonzero(np.diff(days) != 1) + 1)
        end = pd.Timestamp(self.cutoff, unit="us")
        known = self.days[0] if self.n else np.nan
        return out | {
            "tenure_days": known, "span_days": np.ptp(self.t) / DAY if self.n else np.nan,
            "active_days_share": len(days) / (np.floor(known) + 1),
            "active_months_share": len(np.unique(month)) / (end.year * 12 + end.month - month[0] + 1)
            if self.n else np.nan,
            "events_per_active_day": ratio(self.n, len(days)), "longest_streak_days": max(len(run) for run in runs),
            "events_per_day": self.n / max(known, 1) if self.n else np.nan,
        }  # fmt: skip

    def variety(self) -> dict[str, float]:
        out: dict[str, float] = {}
        for column in ("touchpoint", "channel", "stage"):
            shares = self.frame[column].value_counts(normalize=True).to_numpy()
            out[f"{column}s_distinct"] = len(shares)
            out[f"{column}_entropy"] = -(shares * np.log(shares)).sum() if self.n else np.nan
            values = self.frame[column].to_numpy()
            out[f"{column}_changes"] = (values[1:] != values[:-1]).sum()
        item = self.raw["item"].to_numpy()
        has = np.array([value is not None and value == value for value in item], bool)
        first_visit: dict[str, int] = {}
        again = np.zeros(self.n, bool)
        for i in np.flatnonzero(has):
            again[i] = first_visit.setdefault(item[i], self.visit[i]) < self.visit[i]
        in_last = has & (self.visit == self.m - 1)
        counts = pd.Series(item[has]).value_counts()
        visits = pd.DataFrame({"item": item[has], "visit": self.visit[has]}).groupby("item")["visit"].nunique()
        shares = (counts / counts.sum()).to_numpy(dtype=float)
        for label, inside in self.windows().items():
            out[f"items_distinct_{label}"] = len(set(item[has & inside]))
            out[f"items_new_{label}"] = len(set(item[has & inside]) - set(item[has & ~inside]))
        return out | {
            "item_repeat_share": ratio(again.sum(), has.sum()),
            "item_repeat_share_before_last": ratio((again & ~in_last).sum(), (has & ~in_last).sum()),
            "item_repeat_share_last": ratio((again & in_last).sum(), in_last.sum()),
            "item_new_lines_last": (in_last & ~again).sum(), "items_distinct_per_line": ratio(len(counts), has.sum()),
            "items_repeated": (visits > 1).sum(), "items_repeated_share": ratio((visits > 1).sum(), len(visits)),
            "item_top_share": ratio(counts.max(), has.sum()) if len(counts) else np.nan,
            "item_entropy": -(shares * np.log(shares)).sum() if len(counts) else np.nan,
            "items_distinct_per_visit": ratio(len(counts), self.m),
        }  # fmt: skip

    def returns(self) -> dict[str, float]:
        out: dict[str, float] = {}
        back = self.value < 0
        for label, inside in self.windows().items():
            out[f"returns_{label}"] = (back & inside).sum()
            out[f"returned_value_{label}"] = -self.value[back & inside].sum()
        bought = self.value[self.value > 0].sum()
        return out | {
            "returns_share": ratio(back.sum(), self.n), "return_recency_days": last(self.days[back]),
            "returned_value_share": -self.value[back].sum() / bought if bought > 0 else np.nan,
            "returns_last_visit": (back & (self.visit == self.m - 1)).sum(),
            "zero_value_events": (self.value == 0).sum(),
        }  # fmt: skip

    def calendar(self) -> dict[str, float]:
        stamps, end = pd.Series(pd.to_datetime(self.t, unit="us")), pd.Timestamp(self.cutoff, unit="us")
        hours = lambda s: s.hour + s.minute / 60 + s.second / 3600 + s.microsecond / 3.6e9  # noqa: E731
        out: dict[str, float] = {}
        for k, part in enumerate(("night", "morning", "afternoon", "evening")):
            out[f"{part}_share"] = ratio((stamps.dt.hour // 6 == k).sum(), self.n)
        for day in ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"):
            out[f"{day.lower()}_share"] = ratio((stamps.dt.day_name() == day).sum(), self.n)
        season = 2 * np.pi * self.cutoff / DAY / 365.2425
        return out | {
            "weekend_share": ratio((stamps.dt.day_of_week >= 5).sum(), self.n),
            "last_hour": hours(stamps.iloc[-1]) if self.n else np.nan,
            "last_weekday": stamps.iloc[-1].day_of_week if self.n else np.nan,
            "season_sin": np.sin(season), "season_cos": np.cos(season), "cutoff_weekday": end.day_of_week,
            "cutoff_hour": hours(end), "cutoff_month": end.month,
        }  # fmt: skip

    def satisfaction(self) -> dict[str, float]:
        answers = self.frame["satisfaction"].to_numpy()
        has, out = ~np.isnan(answers), {}
        for label, inside in self.windows().items():
            some = answers[has & inside]
            out[f"answers_{label}"] = len(some)
            out[f"satisfaction_mean_{label}"] = some.mean() if len(some) else np.nan
            out[f"bad_answers_{label}"] = (some <= 2).sum()
        some = answers[has]
        empty = dict.fromkeys(("last", "before_last", "step", "min", "max", "last3", "last3_less_mean"), np.nan)
        out |= {f"satisfaction_{k}": v for k, v in empty.items()}
        if len(some):
            out |= {
                "satisfaction_last": some[-1], "satisfaction_min": some.min(), "satisfaction_max": some.max(),
                "satisfaction_last3": some[-3:].mean(), "satisfaction_last3_less_mean": some[-3:].mean() - some.mean(),
            }  # fmt: skip
        if len(some) > 1:
            out |= {"satisfaction_before_last": some[-2], "satisfaction_step": some[-1] - some[-2]}
        return out | {
            "bad_share": ratio((some <= 2).sum(), len(some)), "satisfaction_slope": slope(some),
            "satisfaction_std": np.std(some, ddof=1) if len(some) > 1 else np.nan,
            "answer_recency_days": last(self.days[has]), "bad_recency_days": last(self.days[has & (answers <= 2)]),
        }  # fmt: skip

    def code(self, column: str, i: int) -> float:
        """The code of event `i`, counted from the end where negative."""
        if not -self.n <= i < self.n:
            return np.nan
        value = self.frame[column].iloc[i]
        return np.nan if value == "missing" else [*self.vocabularies[column], "other"].index(value)

    def touch(self) -> dict[str, float]:
        out: dict[str, float] = {}
        for column in ("touchpoint", "channel", "stage", "item"):
            out |= {f"first_{column}": self.code(column, 0), f"last_{column}": self.code(column, -1)}
        for k in (1, 2):
            out[f"touchpoint_before_last_{k}"] = self.code("touchpoint", -1 - k)
            out[f"last_step_{k}_days"] = (self.t[-k] - self.t[-1 - k]) / DAY if self.n > k else np.nan
        door = int(np.flatnonzero(self.visit == self.m - 1)[0]) if self.n else 0
        out["last_visit_door"] = self.code("touchpoint", door)
        return out | {f"{code}.first_days": first(self.days[has]) for code, has in self.codes().items()}

    def order(self) -> dict[str, float]:
        out: dict[str, float] = {}
        for column in ("touchpoint", "stage"):
            codes = self.known(column)
            firsts = {code: first(self.t[has]) for code, has in codes.items()}
            lasts = {code: last(self.t[has]) for code, has in codes.items()}
            start = first(self.t)
            for code, has in codes.items():
                gaps = np.diff(self.t[has]) / DAY
                mean = gaps.mean() if len(gaps) else np.nan
                out[f"{code}.delay_first_days"] = (firsts[code] - start) / DAY
                out[f"{code}.delay_last_days"] = (lasts[code] - start) / DAY
                earlier = sum(other < firsts[code] for other in firsts.values())
                out[f"{code}.first_rank"] = earlier if has.any() else np.nan
                out[f"{code}.last_gap_days"] = last(gaps)
                out[f"{code}.mean_gap_days"] = mean
                out[f"{code}.current_to_mean_gap"] = last(self.days[has]) / mean if mean > 0 else np.nan
            names = list(codes)[:6]
            for i, a in enumerate(names):
                for b in names[i + 1 :]:
                    short = b.split(".", 1)[1]
                    out[f"{a}.to_{short}.first_days"] = (firsts[b] - firsts[a]) / DAY
                    out[f"{a}.to_{short}.last_days"] = (lasts[b] - lasts[a]) / DAY
        stage = self.frame["stage"].to_numpy()
        changes = np.flatnonzero(stage[1:] != stage[:-1])
        since = changes[-1] + 1 if len(changes) else 0
        return out | {"stage_days": self.days[since] if self.n else np.nan, "stage_events": self.n - since}

    def transitions(self) -> dict[str, float]:
        codes = list(self.known("touchpoint").items())[:6]
        return {
            f"{a}.then_{b.split('.', 1)[1]}": (has_a[:-1] & has_b[1:]).sum() for a, has_a in codes for b, has_b in codes
        }

    def open_work(self) -> dict[str, float]:
        out: dict[str, float] = {}
        states = {}
        for unit, names in {
            "call": {"call SCHEDULE": 0, "call START": 1, "call COMPLETE": 2},
            "mail": {"mail:start": 1, "mail:done": 2},
        }.items():
            if unit not in self.units:  # in training it was not both begun and completed
                continue
            open_, since, waiting, worked, waited, done, begun = 0, np.nan, np.nan, 0.0, 0.0, 0, 0
            for t, name in zip(self.t, self.raw["touchpoint"], strict=True):
                role = names.get(name)
                if role == 0 and np.isnan(waiting):
                    waiting = t
                if role in (1, 2) and not np.isnan(waiting):
                    waited, waiting = waited + t - waiting, np.nan
                if role == 1:
                    begun, open_ = begun + 1, open_ + 1
                    since = t if open_ == 1 else since
                if role == 2:
                    done += 1
                    if open_ == 1:
                        worked, since = worked + t - since, np.nan
                    open_ = max(open_ - 1, 0)
            worked += 0.0 if np.isnan(since) else self.cutoff - since
            states[unit] = (
                open_, (self.cutoff - since) / DAY, (self.cutoff - waiting) / DAY, worked / DAY * 24, waited / DAY * 24,
                done,
            )  # fmt: skip
            parts = ("open", "open_days", "waiting_days", "worked_hours", "waited_hours", "done")
            out |= {f"work.{unit}.{part}": x for part, x in zip(parts, states[unit], strict=True)}
            states[unit] += (begun,)
        if not states:
            return {}
        table = np.array(list(states.values()))
        return out | {
            "work_open": (table[:, 0] > 0).sum(), "work_waiting": (~np.isnan(table[:, 2])).sum(),
            "work_oldest_open_days": np.fmax.reduce(table[:, 1]),
            "work_oldest_waiting_days": np.fmax.reduce(table[:, 2]), "work_hours": table[:, 3].sum(),
            "work_waited_hours": table[:, 4].sum(), "work_done_share": ratio(table[:, 5].sum(), table[:, 6].sum()),
        }  # fmt: skip

    def properties(self) -> dict[str, float]:
        agent = self.frame["agent"]
        known = np.flatnonzero((agent != "missing").to_numpy(dtype=bool))
        codes = np.array([self.code("agent", int(i)) for i in known])
        changes = np.flatnonzero(np.diff(codes)) + 1 if len(codes) else np.empty(0, int)
        since = changes[-1] if len(changes) else 0
        counts = pd.Series(codes).value_counts()
        out = {
            "agent.last": last(codes), "agent.first": first(codes), "agent.distinct": len(counts),
            "agent.changes": len(changes), "agent.streak": len(codes) - since,
            "agent.changed_days": self.days[known[since]] if len(known) else np.nan,
            "agent.top_share": ratio(counts.max(), len(codes)) if len(codes) else np.nan,
            "agent.missing_share": ratio(self.n - len(known), self.n),
            "agent.other_share": ratio((agent == "other").sum(), len(codes)),
        }  # fmt: skip
        for value in self.vocabularies["agent"]:
            out[f"agent.{value}.share"] = ratio((agent == value).sum(), len(codes))
        for code, has in self.known("touchpoint").items():
            out[f"agent.at.{code.split('.', 1)[1]}"] = last(codes[has[known]])
        return out

    def profile(self) -> dict[str, float]:
        country = np.flatnonzero((self.frame["country"] != "missing").to_numpy(dtype=bool))
        return {
            "profile.country": self.code("country", int(country[-1])) if len(country) else np.nan,
            "profile.age": last(self.frame["age"].dropna().to_numpy()),
        }


def last(values: np.ndarray) -> float:
    return float(values[-1]) if len(values) else np.nan


def first(values: np.ndarray) -> float:
    return float(values[0]) if len(values) else np.nan


def ratio(a: float, b: float) -> float:
    return a / b if b else np.nan


def ewm(values: np.ndarray, weight: float) -> float:
    return float(pd.Series(values).ewm(alpha=weight, adjust=False).mean().iloc[-1])


def slope(values: np.ndarray) -> float:
    return float(np.polyfit(np.arange(len(values)), values, 1)[0]) if len(values) > 1 else np.nan


def gaps_of(prefix: str, gaps: np.ndarray, current: float) -> dict[str, float]:
    names = (
        "mean", "min", "lower_quartile", "median", "upper_quartile", "max", "last", "before_last", "ewm_fast",
        "ewm_slow", "last3", "last3_to_mean", "last_to_mean", "current_to_mean", "current_to_median",
        "current_to_upper", "current_to_max", "current_to_ewm", "share_longer", "std", "variation", "slope",
        "current_z",
    )  # fmt: skip
    out = {f"{prefix}_current": current} | {f"{prefix}_{name}": np.nan for name in names}
    if len(gaps) == 0:
        return out
    mean, recent, fast = gaps.mean(), gaps[-3:].mean(), ewm(gaps, 0.5)
    std = np.std(gaps, ddof=1) if len(gaps) > 1 else np.nan
    quartiles = np.quantile(gaps, [0, 0.25, 0.5, 0.75, 1])
    values = (
        mean, *quartiles, gaps[-1], gaps[-2] if len(gaps) > 1 else np.nan, fast, ewm(gaps, 0.2), recent, recent / mean,
        gaps[-1] / mean, current / mean, current / quartiles[2], current / quartiles[3], current / quartiles[4],
        current / fast, (gaps > current).mean(), std, std / mean, slope(gaps),
        (current - mean) / std if std > 1e-9 else np.nan,
    )  # fmt: skip
    order = ("mean", "min", "lower_quartile", "median", "upper_quartile", "max", *names[6:])
    return out | {f"{prefix}_{name}": value for name, value in zip(order, values, strict=True)}
