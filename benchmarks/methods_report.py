"""The results of ``methods.py`` as a Markdown table and as a picture."""

from __future__ import annotations

from typing import Any

import harness

LEVELS = (1e-4, 1e-6, 1e-8)
OURS = "conjugate"
_BASELINE = "nmapg"
# Reds are ours.
_COLORS = ("C0", "C1", "C2", "C4", "C5", "C6", "C7", "C8", "C9", "navy")


def markdown(content: dict[str, Any]) -> str:
    """The table: work and seconds to each level, as multiples of ours in brackets, and a summary."""
    rows = {(r["method"], r["level"]): r for r in content["table"]}
    names = list(dict.fromkeys(r["method"] for r in content["table"]))
    heads = [f"{key} to {_power(level)}" for key in ("work", "seconds") for level in LEVELS]
    lines = []
    for name in names:
        cells = [_cell(rows, name, level, key) for key in ("work", "seconds") for level in LEVELS]
        lines.append((f"**{name}**" if name == OURS else name, *cells))
    parts = [harness.table(("method", *heads), lines), _legend(content["settings"]), summary(rows, names)]
    return "\n\n".join(parts)


def summary(rows: dict[tuple[str, float], dict[str, Any]], names: list[str]) -> str:
    """What the table says of ours against the baseline of the literature and against deepinv."""
    own = [n for n in names if n.startswith("deepinv")]
    lines = []
    for name in [_BASELINE, *own]:
        ratios = [
            f"{_ratio(rows, name, level, key)} times the {key} to {_power(level)}"
            for level, key in ((1e-6, "work"), (1e-6, "seconds"), (1e-8, "work"))
        ]
        lines.append(f"- {name}: {', '.join(ratios)}")
    return f"Against `{OURS}`:\n\n" + "\n".join(lines)


def _legend(settings: dict[str, Any]) -> str:
    s = settings
    pictures = s["pictures"].replace(",", ", ")
    kind = "Deblurring" if s["physics"] == "blur" else "Denoising"
    return (
        f"{kind} of {pictures}, {s['side']} x {s['side']} pixels, {s['model']}, {s['dtype']},"
        f" {s['threads']} thread(s), {s['clock']} time: geometric means over the pictures of pairs of W and W^T, and of"
        f" seconds, until (F - F*) / F* is at most the level; in brackets the multiple of `{OURS}`; > where it was not"
        " reached."
    )


def _cell(rows: dict[tuple[str, float], dict[str, Any]], name: str, level: float, key: str) -> str:
    row = rows[name, level]
    value = f"{row[key]:.0f}" if key == "work" else f"{row[key]:.2f}"
    if name == OURS:
        return value if row["reached"] else f"> {value}"
    return f"{'' if row['reached'] else '> '}{value} ({_ratio(rows, name, level, key)})"


def _ratio(rows: dict[tuple[str, float], dict[str, Any]], name: str, level: float, key: str) -> str:
    row = rows[name, level]
    more = "" if row["reached"] else "> "
    return f"{more}{row[key] / rows[OURS, level][key]:.1f}"


def _power(level: float) -> str:
    return f"{level:.0e}".replace("e-0", "e-")


def drawing(content: dict[str, Any]) -> bytes:
    """Gap against work, and certified distance (gap where nothing is proved of the distance) against seconds; a PNG."""
    figure = harness.figure(13, 5)
    left, right = figure.subplots(1, 2)
    picture, curves = next(iter(content["curves"].items()))
    # Without strong convexity the bound of the distance never becomes useful; then it is not drawn.
    proved = any(d is not None and d < 1e-2 for d in curves[OURS]["distance"])
    for name, curve in _ordered(curves):
        style = _style(name, list(curves))
        left.plot(curve["work"], _positive(curve["gap"]), **style)
        right.plot(curve["seconds"], _positive(curve["distance" if proved else "gap"]), **{**style, "label": None})
    s = content["settings"]
    gap = "relative objective gap, best so far"
    left.set(xlabel="work (pairs of W and W^T)", ylabel=gap, ylim=(1e-9, 3))
    left.set_title(f"{s['physics']}, {picture}, {s['side']} x {s['side']}, {s['model']}", fontsize=10)
    right.set(xlabel="seconds", ylabel="certified RMS distance to the minimizer" if proved else gap)
    if not proved:
        right.set_ylim(1e-9, 3)
    for axes in (left, right):
        axes.set(xscale="log", yscale="log")
        axes.grid(alpha=0.3)
    figure.legend(loc="outside right center", fontsize=9)
    return harness.png(figure)


def _ordered(curves: dict[str, Any]) -> list[tuple[str, Any]]:
    """Ours last, so that it is drawn above the others."""
    return sorted(curves.items(), key=lambda item: item[0] == OURS)


def _style(name: str, names: list[str]) -> dict[str, Any]:
    style = {"label": name, "drawstyle": "steps-post"}
    if name == OURS:
        return {**style, "color": "crimson", "linewidth": 3.0}
    if name == _BASELINE:
        return {**style, "color": "black", "linewidth": 2.0}
    dashed = name.startswith("deepinv")
    group = [n for n in names if n.startswith("deepinv") == dashed and n not in (OURS, _BASELINE)]
    color = _COLORS[group.index(name) % len(_COLORS)]
    return {**style, "color": color, "linewidth": 1.8 if dashed else 1.3, "linestyle": "--" if dashed else "-"}


def _positive(values: list[float | None]) -> list[float]:
    """Values for a logarithmic axis: nothing where they are 0 or unknown."""
    return [float("nan") if v is None or v <= 0 else v for v in values]
