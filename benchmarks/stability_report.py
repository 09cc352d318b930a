"""What ``benchmarks/stability.py`` writes: the table, what the theorem says of it, and the picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import harness
from torch import Tensor

# Gradient that counts as an exact first solution, as a part of sigma.
EXACT = 1e-6
EXACT_NAME = ", exact start"


def violations(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The measurements that contradict the theorem: ratios above 1 by more than their error, where it holds."""
    return [
        f"{r['method']}, sigma {r['sigma']:g}, size {r['size']:g}, {r['picture']}: {largest(r)}"
        for r in rows
        if r["bounded"] and not all(v <= 1 + r["error"] + 1e-9 for v in (*r["random"], r["adversarial"]))
    ]


def largest(row: dict[str, Any]) -> float:
    """The largest ratio of a row."""
    return max(*row["random"], row["adversarial"])


def markdown(content: dict[str, Any]) -> str:
    """The table: mean and largest ratio by method, sigma and size, and what the theorem says of it."""
    rows, sizes = content["rows"], sorted({r["size"] for r in content["rows"]})
    heads = [f"{kind} {size:g}" for size in sizes for kind in ("random", "adversarial")]
    lines = []
    for sigma in sorted({r["sigma"] for r in rows}):
        for method in dict.fromkeys(r["method"] for r in rows):
            own = [r for r in rows if r["sigma"] == sigma and r["method"] == method]
            cells = [_cell([r for r in own if r["size"] == size], kind) for size in sizes
                     for kind in ("random", "adversarial")]  # fmt: skip
            theory = "at most 1" if own[0]["bounded"] else "none"
            lines.append((f"{sigma:g}", method, *cells, theory))
    page = harness.table(("sigma", "method", *heads, "theory"), lines)
    return "\n".join([page, "", _legend(content), "", verdict(rows)])


def _cell(rows: Sequence[dict[str, Any]], kind: str) -> str:
    values = [v for r in rows for v in (r["random"] if kind == "random" else [r["adversarial"]])]
    return f"{sum(values) / len(values):.3f} ({max(values):.3f})"


def _legend(content: dict[str, Any]) -> str:
    s = content["settings"]
    error = max(r["error"] for r in content["rows"])
    text = (
        f"Denoising of {', '.join(s['pictures'])}, {s['side']} x {s['side']} pixels: mean (largest) ratio"
        " |x(y + e) - x(y)| / |e|. The number above a column is the RMS of e in gray levels; sigma is in gray levels"
        f" too. Random: {s['directions']} white Gaussian e per picture. Adversarial: the largest ratio after"
        f" {s['steps']} steps of gradient ascent from the best of them, a lower bound of the worst case. All are ratios"
        f" of the exact minimizers of the last problems up to {error:.0e}, which is certified."
    )
    if any(r["method"].endswith(EXACT_NAME) for r in content["rows"]):
        text += (
            f' "{EXACT_NAME[2:].capitalize()}": the first solution is computed to a gradient of {EXACT:.0e} sigma, not'
            " as loosely as the card says."
        )
    if any(r["method"] == "bm3d" for r in content["rows"]):
        text += (
            " BM3D has no derivative: it gets the e found for the networks, and a random search of"
            f" {s['tries']} tries from the best."
        )
    return text


def verdict(rows: Sequence[dict[str, Any]]) -> str:
    """One sentence on the measurements that the theorem bounds."""
    bounded, broken = [r for r in rows if r["bounded"]], violations(rows)
    count = sum(len(r["random"]) + 1 for r in bounded)
    if broken:
        return f"Theory, at most 1: contradicted {len(broken)} times: " + "; ".join(broken)
    if not bounded:
        return "Theory, at most 1: nothing measured that it speaks of."
    return f"Theory, at most 1: holds in all {count} measurements, the largest {max(map(largest, bounded)):.6f}."


Example = tuple[str, Tensor, Tensor]


def drawing(content: dict[str, Any], y: Tensor, examples: Sequence[Example], title: str) -> bytes:
    """Ratios against the size of e, a panel for each sigma, above the worst perturbations of one picture; a PNG.

    Parameters
    ----------
    content : dict
        of results.json.
    y : Tensor
        noisy picture (H, W) of the examples.
    examples : sequence of (method, e, change)
        pictures (H, W), both over the RMS of e.
    title : str
        what the examples are of.
    """
    rows = content["rows"]
    levels, methods = sorted({r["sigma"] for r in rows}), list(dict.fromkeys(r["method"] for r in rows))
    figure = harness.figure(13, 9.2, dpi=90)
    upper, lower = figure.subfigures(2, 1, height_ratios=(1.25, 1))
    panels = upper.subplots(1, len(levels), sharey=True, squeeze=False)[0]
    for axes, sigma in zip(panels, levels, strict=True):
        _curves(axes, [r for r in rows if r["sigma"] == sigma], methods)
        axes.set(xlabel="RMS of e, gray levels", title=f"sigma {sigma:g}")
    panels[0].set_ylabel("|x(y + e) - x(y)| / |e|, largest over pictures")
    handles, labels = panels[0].get_legend_handles_labels()
    upper.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=9)
    _show(lower, y, examples, title)
    return harness.png(figure)


def _curves(axes: Any, rows: Sequence[dict[str, Any]], methods: Sequence[str]) -> None:
    sizes = sorted({r["size"] for r in rows})
    for k, method in enumerate(methods):
        own = {s: [r for r in rows if r["method"] == method and r["size"] == s] for s in sizes}
        style = {"color": f"C{k}", "marker": "ovs^Dx"[k % 6], "markersize": 6}
        axes.plot(sizes, [max(r["adversarial"] for r in own[s]) for s in sizes], label=f"{method}", **style)
        axes.plot(sizes, [max(max(r["random"]) for r in own[s]) for s in sizes], linestyle=":", **style)
    axes.axhline(1.0, color="black", linewidth=1.2, label="theory: at most 1 where c is fixed or absent")
    # For the legend: what solid and dotted lines are.
    axes.plot([], [], color="gray", label="adversarial")
    axes.plot([], [], color="gray", linestyle=":", label="random")
    axes.set(xscale="log", yscale="log")
    axes.set_xticks(sizes, [f"{s:g}" for s in sizes])
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ticks = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)
    low, high = axes.get_ylim()
    axes.set_yticks([v for v in ticks if low <= v <= high])
    axes.grid(alpha=0.3)


def _show(figure: Any, y: Tensor, examples: Sequence[Example], title: str) -> None:
    """Perturbations in the upper row and what becomes of them in the lower one, all in the same colours."""
    figure.suptitle(title, fontsize=11)
    axes = figure.subplots(2, len(examples) + 1, squeeze=False)
    for a in axes.flat:
        a.set(xticks=[], yticks=[])
    axes[0, 0].imshow(y.numpy(), cmap="gray", vmin=0, vmax=1)
    axes[0, 0].set_title("y", fontsize=9)
    axes[1, 0].set_axis_off()
    for k, (name, e, change) in enumerate(examples, 1):
        for i, picture in enumerate((e, change)):
            shown = axes[i, k].imshow(picture.numpy(), cmap="RdBu_r", vmin=-4, vmax=4, interpolation="nearest")
        ratio = float(change.square().mean().sqrt() / e.square().mean().sqrt())
        axes[0, k].set_title(f"{name.replace(', ', chr(10))}", fontsize=9)
        axes[1, k].set_xlabel(f"ratio {ratio:.2f}", fontsize=9)
    axes[0, 1].set_ylabel("e", fontsize=9)
    axes[1, 1].set_ylabel("x(y + e) - x(y)", fontsize=9)
    figure.colorbar(shown, ax=axes, label="over the RMS of e")
