"""Is the simulated world an honest exam, and how does the LightGBM of this repository do in it?

    .venv/bin/python experiments/benchmarks/simulated_exam.py [--customers 6000] [--seed 7] [--labels churn,order]

For each label, on held-out cutoffs after every training label has closed: the AUROC of both true probabilities, and
what share of the lift (AUROC − ½) of the one given the events RFM with logistic regression and LightGBM reach.
Ends with status 1 where the exam is not honest: the second probability's AUROC outside .75 to .90, RFM above 80 %
(churn, conversion), LightGBM at 90 % or more where order counts. LightGBM's own bars are printed beside it.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from features.labels.churn import churn_labels
from features.labels.conversion import conversion_labels
from features.simulation.simulator import LABELS, Simulation, simulate
from models.catalogue import make
from training.evaluation.metrics import evaluate

DAYS = 400
TRAIN_DAYS = range(112, 253, 28)
TEST_DAYS = range(308, 345, 18)
AUROC_RANGE = (0.75, 0.90)
RFM_SHARE_AT_MOST = 0.80
GBDT_SHARE_AT_LEAST = {"churn": 0.95, "conversion": 0.95}
ORDER_SHARE_BELOW = 0.90
CALIBRATION_ERROR_AT_MOST = 0.02


@dataclass(frozen=True)
class ExamReport:
    """One label's figures on the held-out rows."""

    label: str
    n_train: int
    n_test: int
    base_rate: float
    auroc_hidden: float
    auroc_observed: float
    truth_calibration_error: float
    rfm_share: float
    gbdt_share: float
    gbdt_calibration_error: float

    def faults(self) -> list[str]:
        """What makes the exam a dishonest one."""
        low, high = AUROC_RANGE
        results = []
        if not low <= self.auroc_observed <= high:
            results.append(f"{self.label}: AUROC {self.auroc_observed:.3f} given the events is outside {low} to {high}")
        if self.label == "order":
            if self.gbdt_share >= ORDER_SHARE_BELOW:
                results.append(f"order: LightGBM reaches {self.gbdt_share:.0%} of the lift without knowing the order")
        elif self.rfm_share > RFM_SHARE_AT_MOST:
            results.append(f"{self.label}: RFM reaches {self.rfm_share:.0%} of the lift")
        return results


def label_table(simulation: Simulation, label: str, days: range) -> pd.DataFrame:
    """`customer_id, cutoff, label` for cutoffs so many days after the start."""
    cutoffs = [simulation.first_day + pd.Timedelta(days=day) for day in days]
    if label == "churn":
        return churn_labels(simulation.journeys, cutoffs, observed_until=simulation.end, **LABELS[label])
    return conversion_labels(simulation.journeys, cutoffs=cutoffs, observed_until=simulation.end, **LABELS[label])


def examine(simulation: Simulation, label: str) -> ExamReport:
    """Both truths and both models on the held-out cutoffs of one label."""
    train, test = label_table(simulation, label, TRAIN_DAYS), label_table(simulation, label, TEST_DAYS)
    truth = simulation.truth(test, label)
    measured = {
        "hidden": measure(test, truth["probability_hidden"]),
        "observed": measure(test, truth["probability_observed"]),
    }
    for kind in ("rfm", "gbdt"):
        model = make(kind, {}).fit(simulation.journeys.at_ids(train), train["label"].to_numpy())
        measured[kind] = measure(test, model.predict(simulation.journeys.at_ids(test)))
    lift = measured["observed"]["auroc"] - 0.5
    return ExamReport(
        label=label,
        n_train=len(train),
        n_test=len(test),
        base_rate=float(test["label"].mean()),
        auroc_hidden=measured["hidden"]["auroc"],
        auroc_observed=measured["observed"]["auroc"],
        truth_calibration_error=measured["observed"]["calibration_error"],
        rfm_share=(measured["rfm"]["auroc"] - 0.5) / lift,
        gbdt_share=(measured["gbdt"]["auroc"] - 0.5) / lift,
        gbdt_calibration_error=measured["gbdt"]["calibration_error"],
    )


def measure(test: pd.DataFrame, p: npt.ArrayLike) -> dict[str, float]:
    """Metrics without intervals."""
    return evaluate(test["label"].to_numpy(), np.asarray(p), test["customer_id"].to_numpy(), n_boot=0)


def show(report: ExamReport) -> None:
    print(
        f"{report.label}: {report.n_train:,} training and {report.n_test:,} held-out rows, "
        f"base rate {report.base_rate:.3f}\n"
        f"  truth given the hidden state    AUROC {report.auroc_hidden:.3f}\n"
        f"  truth given the observed events AUROC {report.auroc_observed:.3f}, "
        f"calibration error {report.truth_calibration_error:.4f}\n"
        f"  RFM + logistic regression       {report.rfm_share:6.1%} of the lift\n"
        f"  LightGBM                        {report.gbdt_share:6.1%} of the lift, "
        f"calibration error {report.gbdt_calibration_error:.4f}",
        flush=True,
    )
    if report.label in GBDT_SHARE_AT_LEAST:
        met = report.gbdt_share >= GBDT_SHARE_AT_LEAST[report.label]
        calm = report.gbdt_calibration_error <= CALIBRATION_ERROR_AT_MOST
        print(f"  bars: lift ≥ 95 % {'met' if met else 'MISSED'}, calibration ≤ .02 {'met' if calm else 'MISSED'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--customers", type=int, default=6_000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--labels", default=",".join(LABELS))
    options = parser.parse_args()
    begun = time.perf_counter()
    simulation = simulate(options.customers, DAYS, options.seed)
    print(
        f"{len(simulation.events):,} events of {options.customers:,} customers in {time.perf_counter() - begun:.1f} s"
    )
    faults = []
    for label in options.labels.split(","):
        report = examine(simulation, label)
        show(report)
        faults += report.faults()
    print("\n".join(faults) or f"An honest exam ({time.perf_counter() - begun:.0f} s).")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
