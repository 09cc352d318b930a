"""The layout of the page; what its buttons do is in :mod:`icgn.app.actions`."""

from __future__ import annotations

from typing import Any

import gradio as gr

from icgn.app import masks, models, text
from icgn.app.actions import OWN, Actions
from icgn.app.pictures import BYTES, PIXELS, photographs
from icgn.app.sessions import Sessions
from icgn.app.tasks import TASKS
from icgn.datasets import SUFFIXES

CONCURRENT = 1
"""Computations at once: each takes all processor cores."""
QUEUE = 40
"""Most requests that wait; further ones get the message that the page is busy."""
_PRECISIONS = [("0.25 gray levels", 0.25), ("0.08 gray levels", 0.08), ("0.025 gray levels", 0.025)]
_KERNELS = [("Out of focus (Gaussian)", "gaussian"), ("Shaken (straight motion)", "motion"), ("My own kernel", "own")]


def build_page(sessions: Sessions | None = None) -> gr.Blocks:
    """Build the page.

    Parameters
    ----------
    sessions : Sessions, optional
        where the pictures of visitors are held; default a new one.
    """
    actions = Actions(sessions or Sessions())
    with gr.Blocks(title="icgn", analytics_enabled=False) as page:
        gr.Markdown(f"# Restore a picture, with a proof\n\n{text.INTRODUCTION}")
        with gr.Row():
            with gr.Column(min_width=300, scale=2):
                picture = _picture_controls(actions)
                orders, mask, groups = _order_controls(actions)
                with gr.Row():
                    run = gr.Button("Restore", variant="primary", elem_id="restore", min_width=120)
                    stop = gr.Button("Stop", variant="stop", elem_id="stop", min_width=120)
                # Beside the buttons, so that what happens is in view.
                results = [gr.HTML(text.IDLE, elem_id="report", min_height=120)]
            with gr.Column(min_width=300, scale=3):
                results += [gr.HTML(elem_id=name) for name in ("compare", "download", "difference", "convergence")]
        _connect(page, actions, [*picture, mask], orders, groups, results)
        asked = run.click(actions.ask, None, None, queue=False, show_progress="hidden", api_visibility="private")
        asked.then(
            actions.restore,
            [picture[0], *orders],
            results,
            concurrency_limit=CONCURRENT,
            concurrency_id="solver",
            api_name="restore",
            show_progress="full",
            show_progress_on=results[0],
        )
        stop.click(actions.stop, None, results[0], queue=False, api_name="stop", show_progress="hidden")
    page.queue(max_size=QUEUE, default_concurrency_limit=8)
    return page


def _picture_controls(actions: Actions) -> list[Any]:
    names = photographs()
    photograph = gr.Dropdown([*names, OWN], value=names[0], label="Photograph", elem_id="photograph")
    upload = gr.UploadButton(
        f"Upload a picture (PNG, JPEG, TIFF; at most {BYTES // 10**6} MB and {PIXELS / 1e6:g} million pixels)",
        file_types=list(SUFFIXES),
        elem_id="upload",
        size="md",
    )
    return [photograph, upload, gr.HTML(actions.preview(names[0]), elem_id="preview")]


def _order_controls(actions: Actions) -> tuple[list[Any], gr.UploadButton, dict[str, gr.Group]]:
    """The controls in the order of the arguments of :meth:`Actions.restore`, the editor of masks, the groups."""
    tasks = [(task.label, key) for key, task in TASKS.items()]
    task = gr.Radio(tasks, value="denoise", label="Task", elem_id="task")
    groups = {}
    with gr.Group(visible=False, elem_id="deblur-options") as groups["deblur"]:
        kind = gr.Dropdown(_KERNELS, value="gaussian", label="Blur", elem_id="kernel")
        width = gr.Slider(0.5, 5, 1.5, step=0.1, label="Out of focus: standard deviation, pixels", elem_id="width")
        length = gr.Slider(2, 40, 9, step=1, label="Shaken: length, pixels", elem_id="length")
        angle = gr.Slider(0, 180, 30, step=1, label="Shaken: angle, degrees", elem_id="angle")
        kernel = gr.UploadButton(
            "Upload a kernel: the picture of a blurred point of light", file_types=[*SUFFIXES, ".npy"], size="sm"
        )
        kernel.upload(actions.upload_kernel, kernel, kind, api_name="kernel")
    ink = "#{:02x}{:02x}{:02x}".format(*masks.INK)
    with gr.Group(visible=False, elem_id="inpaint-options") as groups["inpaint"]:
        editor = gr.ImageEditor(
            label="Draw over what is to be filled in",
            elem_id="mask",
            type="numpy",
            sources=(),
            transforms=(),
            layers=False,
            buttons=[],
            brush=gr.Brush(default_size=16, colors=[ink], default_color=ink, color_mode="fixed"),
            height=360,
        )
        mask = gr.UploadButton(
            "Or upload a mask of the picture's size, black where it is to be filled in",
            file_types=list(SUFFIXES),
            elem_id="mask-upload",
            size="sm",
        )
        rectangle = gr.Textbox(
            label="Or a rectangle: left, top, width, height in percent",
            placeholder="40, 40, 20, 10",
            elem_id="rectangle",
        )
        percent = gr.Slider(0, 90, 0, step=5, label="Or pixels at random, percent", elem_id="percent")
    with gr.Group(visible=False, elem_id="enlarge-options") as groups["enlarge"]:
        factor = gr.Radio([2, 3, 4], value=2, label="Enlarge by", elem_id="factor")
    noise = gr.Slider(0.5, 50, TASKS["denoise"].noise, step=0.5, label="Noise, gray levels of 255", elem_id="noise")
    estimate = gr.Checkbox(True, label="Find the noise of my own pictures", elem_id="estimate")
    model = gr.Dropdown(models.choices(), value="fast", label="Model", elem_id="model")
    with gr.Accordion("More", open=False):
        weight = gr.Slider(0.1, 4, 1, step=0.1, label="Weight of the regularizer; 1 as trained", elem_id="weight")
        precision = gr.Dropdown(
            _PRECISIONS, value=0.08, label="To be proved: distance to the exact minimizer", elem_id="precision"
        )
    blur = [kind, width, length, angle]
    orders = [task, model, noise, estimate, weight, precision, *blur, factor, editor, rectangle, percent]
    return orders, mask, groups


def _connect(
    page: gr.Blocks,
    actions: Actions,
    picture: list[Any],
    orders: list[Any],
    groups: dict[str, gr.Group],
    results: list[Any],
) -> None:
    """Update the page after a choice: preview, options of the task, default noise, picture to draw on, no result."""
    photograph, upload, preview, mask = picture
    task, noise, editor = orders[0], orders[2], orders[11]
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    upload.upload(actions.upload, upload, [photograph, preview, editor, *results], api_name="upload")
    mask.upload(actions.upload_mask, [mask, photograph], preview, api_name="mask")
    photograph.input(actions.choose, [photograph, task], [preview, editor, *results], **quiet)
    task.input(actions.choose_task, [photograph, task], [noise, editor, *groups.values(), *results], **quiet)
    page.unload(actions.leave)
