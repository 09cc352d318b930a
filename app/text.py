"""The words of the page: the certificate, the numbers, and the pieces of HTML that hold pictures."""

from __future__ import annotations

import html
import math

from torch import Tensor

from icgn.app.pictures import data_url, png
from icgn.app.plots import convergence, proves_distance
from icgn.app.restore import Result
from icgn.app.tasks import TASKS
from icgn.datasets import Picture, difference, quality, visible_gain
from icgn.pictures.errors import error_map, error_model

INTRODUCTION = (
    "The result is the one minimizer of a convex function that was learned from photographs; a certificate proves how"
    " close the computation came to it. Pictures stay on the computer that serves this page, in its memory while the"
    " page is open, and are not kept."
)
IDLE = "<p>Choose a picture and a task, then press <b>Restore</b>. The proof appears here.</p>"
STOPPED = "<p>Stopped. Nothing was kept of the unfinished result.</p>"


def report(result: Result) -> str:
    """The certificate in plain words, the quality where the truth is known, and what it took."""
    done = result.restored
    lines = [f"<p class='proof'>{_proof(result)}</p>"]
    if result.clean is not None:
        before, after = (quality(p.clamp(0, 1), result.clean) for p in (result.before, done.picture.pixels))
        lines.append(
            f"<p>Against the original: PSNR {before.psnr:.2f} dB {TASKS[result.order.task].before},"
            f" <b>{after.psnr:.2f} dB</b> restored; SSIM {before.ssim:.3f}, <b>{after.ssim:.3f}</b>.</p>"
        )
    estimated = "" if done.noise.found == "given" else f" ({done.noise.found})"
    lines.append(
        f"<p>Noise {255 * done.noise.value:.1f} gray levels{estimated}; model <code>{html.escape(result.model)}</code>,"
        f" asked to remove {255 * done.sigma:.1f}; {done.iterations} iterations, {done.seconds:.1f} s.</p>"
    )
    found = [note.text(scale=255, unit="gray levels") for note in done.notes if note.topic == "noise"]
    lines += [f"<p>{html.escape(words[0].upper() + words[1:])}.</p>" for words in found]
    if done.solution.condition is not None:
        lines.append(
            "<p>The proof is for the convex problem that is left once a network has computed from the picture where"
            " edges and texture are to be kept.</p>"
        )
    return "".join(lines)


def slider(result: Result) -> str:
    """The pictures before and after in one frame, with a slider between them that the keyboard moves too."""
    before, after = (_image_url(Picture(p)) for p in (result.before, result.restored.picture.pixels))
    label = TASKS[result.order.task].before
    return (
        "<h2>Before and after</h2><figure class='slider'><div class='frame'>"
        f"<img src='{after}' alt='restored picture'>"
        f"<img class='over' src='{before}' alt='picture before: {label}'>"
        f"<span class='tag left'>{label}</span><span class='tag right'>restored</span></div>"
        "<input type='range' min='0' max='100' value='50' aria-label='Part of the picture that is shown as it was"
        " before, from the left, in percent' oninput=\"this.parentElement.style.setProperty('--cut', this.value)\">"
        "</figure>"
    )


def difference_picture(result: Result) -> str:
    """What was taken away, amplified until it is visible."""
    before, after = result.before.clamp(0, 1), result.restored.picture.pixels.clamp(0, 1)
    gain = visible_gain(before, after)
    url = _image_url(Picture(difference(before, after, gain)))
    words = f"{TASKS[result.order.task].before} minus restored, times {gain:g}; middle gray is no difference"
    return (
        f"<h2>Difference</h2><figure><img src='{url}' alt='{words}'><figcaption>{words.capitalize()}.</figcaption>"
        "</figure>"
    )


def errors_picture(result: Result) -> str:
    """How far pixels may be from the truth, in gray levels; empty where the errors of the model are not calibrated."""
    if result.order.task != "denoise":
        return ""
    try:
        model = error_model(result.model, len(result.before))
        half = 255 * error_map(result.restored, result.before, model).mean(0, keepdim=True)
    except ValueError:
        return ""
    most = float(half.max())
    url = _image_url(Picture((half / most).float()))
    words = f"half width of an interval for each pixel: black is 0, white {most:.1f} gray levels; {model.text()}"
    return (
        f"<h2>How large the error may be</h2><figure><img src='{url}' alt='{words}'>"
        f"<figcaption>{words.capitalize()}.</figcaption></figure>"
    )


def plot(result: Result) -> str:
    """The convergence plot."""
    what = "distance to the exact minimizer" if proves_distance(result) else "objective gap"
    alt = f"plot of the bound of the {what} against the iterations, {result.restored.iterations} of them, falling"
    url = data_url(convergence(result))
    return f"<h2>Convergence</h2><figure><img src='{url}' alt='{alt}'></figure>"


def download(result: Result) -> str:
    """A link that saves the restored picture; it is in the page, so that no file is left on the server."""
    picture = result.restored.picture
    height, width = picture.pixels.shape[-2:]
    return (
        f"<a class='download' download='restored.png' href='{data_url(png(picture))}'>Download the restored picture"
        f" (PNG, {picture.bits} bit, {width} x {height})</a>"
    )


def preview(picture: Picture, name: str, clean: bool, shown: Tensor | None = None) -> str:
    """The picture that will be worked on, or other pixels `shown` (C, H, W) in its place."""
    height, width = picture.pixels.shape[-2:]
    kind = "gray" if len(picture.pixels) == 1 else "colour"
    role = "a clean photograph, which is damaged first and compared with" if clean else "yours, restored as it is"
    words = f"{html.escape(name)}, {width} x {height}, {kind}; {role}."
    url = _image_url(Picture(picture.pixels if shown is None else shown))
    return f"<figure class='preview'><img src='{url}' alt='chosen picture'><figcaption>{words}</figcaption></figure>"


def _image_url(picture: Picture) -> str:
    return data_url(png(picture))


def _proof(result: Result) -> str:
    done = result.restored
    late = "" if done.converged else f" That is less than was asked for: {html.escape(str(done.status).split(';')[0])}."
    if proves_distance(result):
        return (
            f"<b>Proved: within {_short(255 * done.rms_distance)} gray levels of the exact minimizer</b> (root mean"
            f" square over all pixels, white being 255; before rounding to whole levels).{late}"
        )
    if math.isfinite(done.relative_gap):
        return (
            f"<b>Proved: the objective is within {_short(100 * done.relative_gap)} % of its minimum.</b> What was lost"
            f" leaves parts of the picture undetermined, so no distance can be proved.{late}"
        )
    return f"<b>Nothing could be proved.</b>{late}"


def _short(value: float) -> str:
    """Two digits, rounded up, so that a bound stays a bound."""
    if value <= 0:
        return "0"
    digits = 1 - math.floor(math.log10(value))
    return f"{math.ceil(value * 10**digits - 1e-9) / 10**digits:.{max(digits, 0)}f}"
