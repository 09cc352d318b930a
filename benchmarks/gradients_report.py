"""The results of ``gradients.py`` as Markdown tables, CSV and pictures."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

import harness
import torch
from torch import Tensor

Row = dict[str, Any]

# The margin that the maximum of affine functions has to show, dB.
MARGIN = 10.0


@dataclass(frozen=True)
class Fields:
    """Values on the plane of a picture: the gradient in it (N, N, 2), its norm (N, N), and the error of each network.

    The first axis is that of the first coordinate; `box` has the bounds of both.
    """

    box: tuple[float, float]
    arrows: Tensor
    norm: Tensor
    errors: dict[str, Tensor]


def markdown(content: dict[str, Any]) -> str:
    """The page of a results.json: decibels at a glance, what they say of the ICNN, and everything else measured."""
    rows, names = content["rows"], list(dict.fromkeys(r["network"] for r in content["rows"]))
    parts = [glance(content, names), legend(content), verdict(content), details(rows)]
    return "\n\n".join(parts)


def glance(content: dict[str, Any], names: Sequence[str]) -> str:
    """Mean (least) decibels over the seeds, a line for each problem; the best in bold."""
    lines = []
    for card in content["problems"]:
        own = {n: scores(content["rows"], card, n) for n in names}
        best = max(names, key=lambda n: mean(own[n]))
        cells = [f"**{_score(own[n])}**" if n == best else _score(own[n]) for n in names]
        lines.append((card["title"], f"{card['size']:,}", f"{card['affine']:.1f}", *cells))
    return harness.table(("target", "parameters", "affine", *names), lines)


def legend(content: dict[str, Any]) -> str:
    """What was measured, and how."""
    s = content["settings"]
    return (
        "Fit in decibels, 10 log10 of the mean of |grad f|² over that of |N - grad f|², at"
        f" {s['test']:,} points that were not learned from ({s['train']:,} were): mean over {s['seeds']} seeds"
        " (the worst of them); more is better. *Affine* is the best affine map, by least squares. Every network was"
        f" trained for {s['seconds']:g} s of CPU time on {s['threads']} thread, by Adam with a cosine schedule and"
        f" batches of {s['batch']}. The way it is built, the scale of its first weights and its learning rate were"
        f" chosen among {s['choices']}, as many for each, on another function of the same kind. All have the same"
        " quadratic term. *quadrature* is the ICGN of the paper as it defines it; *ridge* is the same in closed form;"
        " *deep* with softplus layers is the ICNN, its gradient by an explicit sweep instead of autograd."
    )


def verdict(content: dict[str, Any]) -> str:
    """Where the ICNN wins and where it does not, and the margin on the maximum of affine functions, all computed."""
    lines = [_compared(content, card) for card in content["problems"]]
    won = sum(_margin(content, card)[1] > 0 for card in content["problems"])
    head = (
        f"**The ICNN is the best of all in {won} of {len(lines)} problems.** Its mean against the best other network:"
    )
    return "\n".join([head, "", *lines, "", speed(content["rows"]), *required(content)])


def _compared(content: dict[str, Any], card: Row) -> str:
    other, margin, clear = _margin(content, card)
    words = "better" if margin > 0 else "worse"
    doubt = "" if clear else ", within the spread of the seeds"
    return f"- {card['title']}, {card['size']:,}: {abs(margin):.1f} dB {words} than {other}{doubt}"


def _margin(content: dict[str, Any], card: Row) -> tuple[str, float, bool]:
    """The best network besides the ICNN, by how much the ICNN is better, and whether all seeds say so."""
    rows = content["rows"]
    icnn = scores(rows, card, "ICNN")
    others = {n: scores(rows, card, n) for n in dict.fromkeys(r["network"] for r in rows) if n != "ICNN"}
    best = max(others, key=lambda n: mean(others[n]))
    clear = min(icnn) > max(others[best]) or max(icnn) < min(others[best])
    return best, mean(icnn) - mean(others[best]), clear


def speed(rows: Sequence[Row]) -> str:
    """How long an evaluation and a training step take, against those of the ICNN: geometric means over problems."""
    parts = []
    for name in dict.fromkeys(r["network"] for r in rows if r["network"] != "ICNN"):
        ratios = [_ratio(rows, name, key) for key in ("evaluation_seconds", "step_seconds")]
        parts.append(f"{name} {ratios[0]:.2f} and {ratios[1]:.2f}")
    return f"Seconds of an evaluation and of a training step, as multiples of the ICNN's: {', '.join(parts)}."


def _ratio(rows: Sequence[Row], name: str, key: str) -> float:
    keys = dict.fromkeys((r["target"], r["size"]) for r in rows)
    logs = []
    for target, size in keys:
        own = [r for r in rows if (r["target"], r["size"]) == (target, size)]
        pair = [mean(r[key] for r in own if r["network"] == n) for n in (name, "ICNN")]
        logs.append(math.log(pair[0] / pair[1]))
    return math.exp(mean(logs))


def required(content: dict[str, Any]) -> list[str]:
    """Lines on the maximum of affine functions: the best gradient network against the ridge network and the ICNN."""
    lines = []
    for card in content["problems"]:
        if card["target"] != "maximum":
            continue
        own = {n: mean(scores(content["rows"], card, n)) for n in ("deep", "softmax", "group", "ridge", "ICNN")}
        best = max(("deep", "softmax", "group"), key=lambda n: own[n])
        over = own[best] - own["ridge"]
        met = "at least" if over >= MARGIN else "less than"
        against = own[best] - own["ICNN"]
        lines += ["", (
            f"{card['title']}, {card['size']:,} parameters: {best} is {over:.1f} dB better than ridge ({met}"
            f" {MARGIN:g} dB), and {abs(against):.1f} dB {'better' if against > 0 else 'worse'} than the ICNN trained"
            " for the same seconds."
        )]  # fmt: skip
    return lines


def details(rows: Sequence[Row]) -> str:
    """Every network on every problem: how it was built and trained, its defects and its seconds."""
    heads = (
        "target", "size", "network", "built", "scale", "rate", "parameters", "steps", "step, ms", "1024 points, ms",
        "dB", "worst asymmetry", "least curvature",
    )  # fmt: skip
    lines = []
    for key in dict.fromkeys((r["target"], r["size"], r["network"]) for r in rows):
        own = [r for r in rows if (r["target"], r["size"], r["network"]) == key]
        first = own[0]
        cells = (
            first["target"], f"{first['size']:,}", first["network"], first["variant"], f"{first['sharpness']:g}",
            f"{first['rate']:g}", f"{first['parameters']:,}", f"{mean(r['steps'] for r in own):,.0f}",
            f"{1e3 * mean(r['step_seconds'] for r in own):.2f}",
            f"{1e3 * mean(r['evaluation_seconds'] for r in own):.2f}",
            _score([r["decibels"] for r in own]), f"{max(r['asymmetry'] for r in own):.0e}",
            f"{min(r['least_curvature'] for r in own):.0e}",
        )  # fmt: skip
        lines.append(cells)
    note = (
        "Scale: factor of the first weights at the start. Asymmetry |J - Jᵀ| / |J| and least eigenvalue over the"
        " greatest, the worst of 16 points and all seeds, with Jacobians J by central differences in float64: rounding"
        " leaves about 1e-10, up to 1e-6 where J is almost zero, and a secant across a kink of a piecewise linear"
        " network may show more."
    )
    return "\n".join([harness.table(heads, lines), "", note])


def table(rows: Sequence[Row]) -> bytes:
    """Every run as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def scores(rows: Sequence[Row], card: Row, name: str) -> list[float]:
    """Decibels of the seeds of a network on a problem."""
    key = (card["target"], card["size"], name)
    return [r["decibels"] for r in rows if (r["target"], r["size"], r["network"]) == key]


def _score(values: Sequence[float]) -> str:
    return f"{mean(values):.1f} ({min(values):.1f})"


def drawing(title: str, fields: Fields, rows: Sequence[Row], labels: tuple[str, str]) -> bytes:
    """The field and the errors of all networks on one logarithmic scale, and decibels against parameters; a PNG.

    Parameters
    ----------
    title : str
        of the target.
    fields : Fields
        of the networks of one size.
    rows : sequence of dict
        of the target, all sizes.
    labels : tuple of str
        of the axes of the plane.
    """
    from matplotlib.colors import LogNorm

    figure = harness.figure(14, 6.6, dpi=85)
    figure.suptitle(title)
    axes = figure.subplots(2, 4)
    panels = axes.flatten().tolist()
    extent = (*fields.box, *fields.box)
    _field(panels[0], fields, extent)
    scale = float(fields.norm.square().mean().sqrt())
    relative = {name: error.T / scale for name, error in fields.errors.items()}
    every = torch.stack(list(relative.values())).flatten()
    norm = LogNorm(float(every.quantile(0.01)), float(every.max()), clip=True)
    for panel, (name, error) in zip(panels[1:], fields.errors.items(), strict=False):
        shown = panel.imshow(relative[name].numpy(), origin="lower", extent=extent, cmap="magma", norm=norm)
        here = 20 * math.log10(scale / float(error.square().mean().sqrt()))
        panel.set_title(f"{name}: {here:.1f} dB here", fontsize=10)
    for panel in panels[: 1 + len(fields.errors)]:
        panel.set_xlabel(labels[0], labelpad=1)
        panel.set_ylabel(labels[1], labelpad=1)
    figure.colorbar(shown, ax=axes[:, -1], label="|N - grad f| over the RMS of |grad f|", shrink=0.8)
    panel = panels[-1]
    (_curves if len({r["size"] for r in rows}) > 1 else _bars)(panel, rows)
    panel.grid(alpha=0.3)
    return harness.png(figure)


def _field(axes: Any, fields: Fields, extent: tuple[float, ...]) -> None:
    shown = axes.imshow(fields.norm.T.numpy(), origin="lower", extent=extent, cmap="viridis")
    axes.figure.colorbar(shown, ax=axes, label="|grad f|", shrink=0.8)
    step = max(1, len(fields.norm) // 12)
    low, high = fields.box
    side = [low + (high - low) * i / (len(fields.norm) - 1) for i in range(len(fields.norm))][step // 2 :: step]
    u, v = fields.arrows[step // 2 :: step, step // 2 :: step].unbind(2)
    axes.quiver(side, side, u.T.numpy(), v.T.numpy(), color="white", width=0.006)
    axes.set_title("the gradient of f", fontsize=10)


def _curves(axes: Any, rows: Sequence[Row]) -> None:
    """Decibels of every seed against the number of parameters, lines through the means."""
    for k, name in enumerate(dict.fromkeys(r["network"] for r in rows)):
        sizes = sorted({r["size"] for r in rows})
        own = {s: [r for r in rows if r["size"] == s and r["network"] == name] for s in sizes}
        style = {"color": "black" if name == "ICNN" else f"C{k}", "marker": "ovs^DX"[k % 6], "markersize": 5}
        at = [mean(r["parameters"] for r in own[s]) for s in sizes]
        axes.plot(at, [mean(r["decibels"] for r in own[s]) for s in sizes], label=name, **style)
        for r in (r for s in sizes for r in own[s]):
            axes.plot(r["parameters"], r["decibels"], alpha=0.35, linestyle="", **style)
    axes.set(xscale="log", xlabel="parameters", ylabel="fit at the test points, dB")
    axes.legend(fontsize=8)


def _bars(axes: Any, rows: Sequence[Row]) -> None:
    """Mean decibels at the one size there is, and those of every seed."""
    names = list(dict.fromkeys(r["network"] for r in rows))
    values = [[r["decibels"] for r in rows if r["network"] == n] for n in names]
    axes.barh(names, [mean(v) for v in values], color=["black" if n == "ICNN" else "C0" for n in names], alpha=0.7)
    axes.plot([v for own in values for v in own], [n for n, own in zip(names, values, strict=True) for _ in own], "rx")
    axes.invert_yaxis()
    axes.set_xlabel("fit at the test points, dB")
