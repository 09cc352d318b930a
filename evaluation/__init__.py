"""Methods run on data sets: rows, result files, reports."""

from icgn.evaluation.evaluate import Entry, evaluate
from icgn.evaluation.evaluation import Request, evaluation
from icgn.evaluation.report import Mean, markdown, means, read_results, write_results
from icgn.evaluation.restorers import BASELINES, Restoration, Restorer, make_restorer

__all__ = [
    "BASELINES",
    "Entry",
    "Mean",
    "Request",
    "Restoration",
    "Restorer",
    "evaluate",
    "evaluation",
    "make_restorer",
    "markdown",
    "means",
    "read_results",
    "write_results",
]
