"""The rows of a folder of results, and what they depend on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from icgn.datasets import Photographs
from icgn.training.evaluate import Entry
from icgn.training.report import environment, read_results, write_results
from icgn.training.restorers import Restorer, fingerprint

RESULTS = "results.json"


@dataclass
class Results:
    """Rows, and the settings that repeat them.

    Attributes
    ----------
    data : dict
        dataset, hash of the pixels of each picture, colour and seed.
    threads, device : int, str
        of the run that adds rows.
    rows : list of Entry
        those that are there.
    methods : dict
        by name what a method is (:meth:`Restorer.description`), and under ``measured`` the machines, threads and
        versions by which its rows were computed.
    """

    data: dict[str, Any]
    threads: int
    device: str
    rows: list[Entry] = field(default_factory=list)
    methods: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, pictures: Photographs, color: bool, seed: int, threads: int, device: str) -> Results:
        """No rows yet, of pictures of a dataset."""
        hashes = {n: _hash(pictures, i) for i, n in enumerate(pictures.names)}
        return cls({"dataset": name, "pictures": hashes, "color": color, "seed": seed}, threads, device)

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
                what = f"another {key}, expected {value!r}"
                what = _other_pictures(facts.get(key), value) if key == "pictures" else what
                raise ValueError(f"{path}: is of {what}; choose another folder")
        self.rows, self.methods = rows, dict(facts.get("methods", {}))

    def add(self, entry: Entry, restorer: Restorer) -> None:
        """Add a row that was computed; the first one of a method that has changed replaces its earlier self."""
        if any(e.model == entry.model and e.method != entry.method for e in self.rows):
            self.rows = [e for e in self.rows if e.model != entry.model]
            self.methods.pop(entry.model, None)
        self.rows = sorted(
            [*(e for e in self.rows if e.key != entry.key), entry], key=lambda e: (e.model, e.sigma, e.image)
        )
        method = self.methods.setdefault(entry.model, {**restorer.description(), "measured": []})
        now = {"threads": self.threads, "device": self.device, **environment()}
        if now not in method.setdefault("measured", []):
            method["measured"].append(now)

    def write(self, folder: str | Path) -> None:
        """Replace the files of a folder; see :func:`write_results`."""
        write_results(folder, self.rows, {**self.data, "methods": self.methods})


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
