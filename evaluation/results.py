"""The rows of a folder of results, and what they depend on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from icgn.datasets import Photographs
from icgn.evaluation.evaluate import Entry
from icgn.evaluation.report import read_results, write_results
from icgn.evaluation.restorers import Restorer, fingerprint

RESULTS = "results.json"


@dataclass
class Results:
    """Rows, and the settings that repeat them.

    Attributes
    ----------
    environment : dict
        threads, device, machine and versions of the run that adds rows.
    data : dict
        dataset, hash of the pixels of each picture, colour and seed, of results that are in a folder.
    rows : dict
        those that are there, by key.
    methods : dict
        by name what a method is (:meth:`Restorer.description`), and under ``measured`` the machines, threads and
        versions by which its rows were computed.
    """

    environment: dict[str, Any]
    data: dict[str, Any] = field(default_factory=dict)
    rows: dict[tuple[str, str, float, str], Entry] = field(default_factory=dict)
    methods: dict[str, dict[str, Any]] = field(default_factory=dict)

    def read(self, folder: str | Path) -> None:
        """Take over what a folder holds already.

        Raises
        ------
        ValueError
            if it is of other pictures or another seed, or is not readable.
        OSError
            if it cannot be read.
        """
        path = Path(folder) / RESULTS
        if not path.exists():
            return
        rows, facts = read_results(path)
        for key, value in self.data.items():
            if facts.get(key) != value:
                other = f"another {key}, expected {value!r}"
                what = _other_pictures(facts.get(key), value) if key == "pictures" else other
                raise ValueError(f"{path}: is of {what}; choose another folder")
        self.rows, self.methods = {e.key: e for e in rows}, dict(facts.get("methods", {}))

    def add(self, entry: Entry, restorer: Restorer) -> None:
        """Add a row, unless it is there; the first one of a method that has changed replaces its earlier self."""
        if entry.key in self.rows:
            return
        if any(e.model == entry.model and e.method != entry.method for e in self.rows.values()):
            self.rows = {key: e for key, e in self.rows.items() if e.model != entry.model}
            self.methods.pop(entry.model, None)
        self.rows[entry.key] = entry
        method = self.methods.setdefault(entry.model, {**restorer.description(), "measured": []})
        if self.environment not in method.setdefault("measured", []):
            method["measured"].append(self.environment)

    def write(self, folder: str | Path) -> None:
        """Replace the files of a folder; see :func:`write_results`."""
        rows = sorted(self.rows.values(), key=lambda e: (e.model, e.sigma, e.image))
        write_results(folder, rows, {**self.data, "methods": self.methods})


def data_of(name: str, pictures: Photographs, color: bool, seed: int) -> dict[str, Any]:
    """What rows of pictures of a dataset depend on beside the method; every picture is read."""
    hashes = {n: _hash(pictures, i) for i, n in enumerate(pictures.names)}
    return {"dataset": name, "pictures": hashes, "color": color, "seed": seed}


def current(rows: Sequence[Entry], restorers: Sequence[Restorer]) -> list[Entry]:
    """The rows that are by the present weights and settings of some methods."""
    methods = {r.name: fingerprint(r) for r in restorers}
    return [e for e in rows if methods.get(e.model) == e.method]


def _hash(pictures: Photographs, i: int) -> str:
    image = pictures[i].image
    return hashlib.sha256(repr(tuple(image.shape)).encode() + image.contiguous().numpy().tobytes()).hexdigest()[:16]


def _other_pictures(found: Any, expected: dict[str, str]) -> str:
    if not isinstance(found, dict):
        return "pictures of an icgn that did not say which"
    names = sorted(name for name in {**found, **expected} if found.get(name) != expected.get(name))
    return f"other pictures: {len(names)} of them, {names[0]} for one, are not the same"
