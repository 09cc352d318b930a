import os
import re
import signal
import socket
import struct
import sys
import threading
import time
import urllib.request
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import deepinv
import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from icgn import cli
from icgn.datasets import Picture, PictureError, add_noise, bundled, quality, read_picture, write_picture
from icgn.regularizers import load_pretrained
from icgn.solvers import Problem, Status, solve

pytest.importorskip("gradio", reason="gradio is not installed: pip install 'icgn[app]'")

from icgn.app import masks, pictures, restore, server, text
from icgn.app.sessions import Sessions
from icgn.app.tasks import TASKS, Damage
from icgn.app.watch import StoppedError, TooLongError, Watch
from icgn.pictures import read_kernel, solving

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
CROP = (slice(None), slice(100, 148), slice(200, 264))

# Gradio warns of its own use of pandas.
pytestmark = pytest.mark.filterwarnings("ignore:::gradio.queueing")


def small(gray=True):
    return bundled(gray=gray).find("camera" if gray else "coffee").image[CROP].clone()


def noisy_file(path, height=48, width=64, seed=0):
    write_picture(path, Picture(add_noise(small()[:, :height, :width], 25 / 255, seed)))
    return path


@pytest.fixture
def small_photographs(monkeypatch):
    monkeypatch.setattr(restore, "photograph", lambda name: Picture(small(gray=name == "camera")))


# The watch


@pytest.mark.parametrize("model", ["ridge-gray-small", "conditional-gray"])
def test_noted_bounds_are_bounds(model):
    y = add_noise(small()[None, :, :32, :40], 25 / 255, 0).double()
    problem = Problem(y, deepinv.physics.Denoising(), load_pretrained(model), 25 / 255)
    watch, visited = Watch(), []
    noted = watch.callback
    solution = solve(problem, tol=1e-5, callback=lambda event: visited.append((event.stage, event.x)) or noted(event))
    left = Problem(y, problem.physics, problem.regularizer, problem.sigma, condition=solution.condition)
    exact = solve(left, tol=1e-10).x
    final = [x for stage, x in visited if stage == "final"]
    assert ("first" in watch.history) == (model == "conditional-gray")
    for (_, distance, measure), x in zip(watch.history["final"], final, strict=True):
        assert float((x - exact).square().mean().sqrt()) <= distance * (1 + 1e-6)
        assert distance == pytest.approx(1e-5 * measure)
    iterations = [iteration for points in watch.history.values() for iteration, _, _ in points]
    assert iterations == list(range(len(iterations)))


def test_progress_grows_from_0_to_1(small_photographs):
    told = []
    watch = Watch(report=lambda done, words: told.append(done))
    restore.restore_photograph(restore.Order("denoise", "best", 25.0), "camera", watch)
    assert all(0 <= t <= 1 for t in told) and told[0] == 0 and told[-1] > 0.8


@pytest.mark.parametrize("model", ["fast", "best"])
def test_a_stop_ends_the_solver_within_one_iteration(small_photographs, model):
    watch = Watch(report=lambda done, words: words == "step 5" and watch.stop.set())
    with pytest.raises(StoppedError):
        restore.restore_photograph(restore.Order("denoise", model, 25.0), "camera", watch)
    assert sum(map(len, watch.history.values())) == 5


def test_when_time_is_over_the_unfinished_result_has_its_own_proof(small_photographs):
    order = restore.Order("denoise", "fast", 25.0)
    exact = restore.restore_photograph(restore.Order("denoise", "fast", 25.0, tol=1e-3), "camera", Watch())
    result = restore.restore_photograph(order, "camera", Watch(seconds=0))
    done = result.restored
    assert not done.converged and "less than was asked for: stopped" in text.report(result)
    distance = float((done.picture.pixels - exact.restored.picture.pixels).square().mean().sqrt())
    assert order.tol / 255 < distance <= done.rms_distance + exact.restored.rms_distance
    with pytest.raises(TooLongError):
        restore.restore_photograph(restore.Order("denoise", "best", 25.0), "camera", Watch(seconds=0))


# The work


@pytest.mark.parametrize(("task", "gray"), [*((task, True) for task in TASKS), ("denoise", False)])
def test_every_task_restores_and_proves(small_photographs, task, gray):
    missing = masks.scattered(40, 48, 64)
    order = restore.Order(
        task, "fast", TASKS[task].noise, damage=Damage(read_kernel("gaussian:1.2"), factor=2, missing=missing)
    )
    result = restore.restore_photograph(order, "camera" if gray else "coffee", Watch())
    after, clean = result.restored.picture.pixels, result.clean
    assert after.shape == clean.shape == result.before.shape and len(after) == (1 if gray else 3)
    assert quality(after, clean).psnr > quality(result.before.clamp(0, 1), clean).psnr + 1
    if task == "denoise":
        assert 0 < 255 * result.restored.rms_distance <= order.tol and "gray levels of the exact" in text.report(result)
    else:
        assert 0 < result.restored.relative_gap <= restore.GAP and "% of its minimum" in text.report(result)
    for part in (text.slider, text.difference_picture, text.plot, text.download):
        assert "data:image/png;base64," in part(result) and "alt=''" not in part(result)


@pytest.mark.parametrize("name", ["camera", "coffee"])
def test_errors_are_shown_where_they_are_calibrated(small_photographs, name):
    result = restore.restore_photograph(restore.Order("denoise", "best", 25.0), name, Watch())
    shown = text.errors_picture(result)
    assert "data:image/png;base64," in shown and "90% of the errors were smaller" in shown and "gray levels" in shown
    for order in (restore.Order("denoise", "fast", 25.0), restore.Order("denoise", "best", 25.0, weight=2.0)):
        assert not text.errors_picture(restore.restore_photograph(order, name, Watch()))


def test_uploads_keep_depth_and_transparency_and_can_be_estimated():
    alpha = torch.linspace(0, 1, 48 * 64).reshape(1, 48, 64)
    picture = Picture(add_noise(small(), 20 / 255, 0), alpha=alpha, bits=16)
    result = restore.restore_upload(restore.Order("denoise", "fast", None), picture, "x", Watch())
    kept = result.restored.picture
    assert kept.bits == 16 and torch.equal(kept.alpha, alpha) and abs(255 * result.restored.noise.value - 20) < 4
    assert result.clean is None and "PSNR" not in text.report(result) and "(estimated)" in text.report(result)
    enlarged = restore.restore_upload(
        restore.Order("enlarge", "fast", 20.0, damage=Damage(factor=2)), picture, "x", Watch()
    )
    assert enlarged.restored.picture.pixels.shape == (1, 96, 128) and enlarged.restored.picture.alpha is None


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"task": "paint"}, "task: got 'paint'"),
        ({"model": "none"}, "model: got 'none'"),
        ({"noise": 0.0}, "noise: got 0"),
        ({"noise": float("nan")}, "noise: got nan"),
        ({"noise": None}, "only uploads can be estimated"),
        ({"weight": -1.0}, "weight: got -1"),
        ({"tol": 0.0}, "precision: got 0"),
        ({"task": "inpaint"}, "nothing is marked"),
        ({"task": "inpaint", "damage": Damage(missing=torch.ones(1, 48, 64, dtype=torch.bool))}, "everything"),
        ({"task": "deblur"}, "got no kernel"),
        ({"task": "deblur", "damage": Damage(read_kernel("motion:90,0"))}, "expected less than the picture"),
    ],
)
def test_senseless_orders_are_refused_in_words(small_photographs, changed, word):
    order = restore.Order(**{"task": "denoise", "model": "fast", "noise": 25.0, **changed})
    with pytest.raises(ValueError, match=re.escape(word)):
        restore.restore_photograph(order, "camera", Watch())


def test_masks():
    assert masks.rectangle("25, 50; 50, 25", 8, 8).nonzero()[:, 1:].tolist() == [
        [r, c] for r in (4, 5) for c in range(2, 6)
    ]
    assert not masks.rectangle(" ", 4, 4).any() and masks.rectangle("50, 50, 100, 100", 4, 4).sum() == 4
    for bad in ("1, 2, 3", "a, b, c, d", "0, 0, 0, 10", "-1, 0, 10, 10", "nan, 0, 1, 1"):
        with pytest.raises(ValueError, match="rectangle: got"):
            masks.rectangle(bad, 4, 4)
    assert abs(float(masks.scattered(30, 200, 200).float().mean()) - 0.3) < 0.01
    layer = np.zeros((4, 6, 4), dtype=np.uint8)
    layer[1, 2, 3] = 255
    assert masks.drawn([layer], 4, 6).nonzero().tolist() == [[0, 1, 2]]
    assert masks.drawn([layer], 8, 12).sum() == 4 and not masks.drawn([], 3, 3).any()
    painted = masks.painted(torch.zeros(1, 4, 6), torch.from_numpy(layer[None, :, :, 3]) > 0)
    assert painted.sum(0).nonzero().tolist() == [[1, 2]] and painted.shape == (3, 4, 6)


def test_printed_bounds_are_rounded_up():
    for value in (0.0712, 0.01, 1.0, 0.999, 12.3, 3e-4, 123.0):
        shown = float(text._short(value))
        assert value <= shown * (1 + 1e-9) and shown <= 1.1 * value
    assert text._short(0) == "0"


# Uploads and visitors


def test_uploads_are_bounded_before_they_are_decoded(tmp_path, monkeypatch):
    good = noisy_file(tmp_path / "good.png")
    assert torch.equal(pictures.read_upload(good).pixels, read_picture(good).pixels)
    content = good.read_bytes()
    header = b"IHDR" + struct.pack(">II", 30_000, 30_000) + content[24:29]
    (tmp_path / "bomb.png").write_bytes(content[:12] + header + struct.pack(">I", zlib.crc32(header)) + content[33:])
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "cut.png").write_bytes(good.read_bytes()[:-300])
    words = {"bomb": "30000 x 30000 pixels, expected at most 2000000", "text": "not a PNG", "cut": "cut"}
    for name, word in words.items():
        with pytest.raises(PictureError, match=word) as caught:
            pictures.read_upload(tmp_path / f"{name}.png")
        assert str(caught.value).startswith(f"{name}.png: ") and str(tmp_path) not in str(caught.value)
    monkeypatch.setattr(pictures, "BYTES", 1000)
    with pytest.raises(PictureError, match=r"good\.png: got 0"):
        pictures.read_upload(good)
    with pytest.raises(ValueError, match="would have 2000 x 1001 pixels"):
        pictures.check_pixels("x", 1001, 2000)


def test_visitors_do_not_see_each_other_and_are_forgotten():
    sessions = Sessions(most=2)
    sessions.keep("a", Picture(torch.zeros(1, 4, 4)), "a.png")
    sessions.keep("b", Picture(torch.ones(1, 4, 4)), "b.png")
    assert sessions.uploaded("a")[1] == "a.png" and sessions.uploaded("b")[0].pixels.min() == 1
    first = sessions.begin("a")
    other = sessions.begin("b")
    again = sessions.begin("a")
    assert first.is_set() and not again.is_set() and not other.is_set()
    sessions.stop("a")
    sessions.stop("nobody")
    assert again.is_set() and not other.is_set()
    sessions.ask("a")
    assert not sessions.begin("a").is_set()
    sessions.ask("a")
    sessions.stop("a")
    assert sessions.begin("a").is_set() and not sessions.begin("a").is_set()
    sessions.leave("b")
    assert other.is_set() and len(sessions) == 1
    with pytest.raises(ValueError, match="upload one first"):
        sessions.uploaded("b")
    sessions.keep("c", Picture(torch.zeros(1, 4, 4)), "c.png")
    assert len(sessions) == 2
    with pytest.raises(ValueError, match="upload one first"):
        sessions.uploaded("a")  # idle longest


def test_names_of_files_are_shown_as_text():
    shown = text.preview(Picture(torch.zeros(3, 4, 5)), "<b>&.png", clean=False)
    assert "&lt;b&gt;&amp;.png, 5 x 4, colour" in shown and "<b>" not in shown


# The command


def test_a_port_that_is_taken_is_told():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = CliRunner().invoke(cli.app, ["app", "--port", str(port), "--no-browser"])
    assert result.exit_code == 2 and f"--port {port}" in result.stderr and "expected a free port" in result.stderr


def test_without_gradio_the_command_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    result = CliRunner().invoke(cli.app, ["app", "--port", "0", "--no-browser"])
    assert result.exit_code == 2 and "pip install 'icgn[app]'" in result.stderr


def test_the_command_ends_when_terminated_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    seen = []

    def visit(url):
        with urllib.request.urlopen(url) as answer:
            seen.extend([answer.status, len(list(tmp_path.glob("icgn-app-*")))])
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()

    monkeypatch.setattr("webbrowser.open", visit)
    result = CliRunner().invoke(cli.app, ["app", "--port", "0"])
    assert result.exit_code == 0 and "The page is at http://127.0.0.1:" in result.stdout
    assert seen == [200, 1] and not list(tmp_path.iterdir())


# The server


@pytest.fixture(scope="module")
def address():
    patch = pytest.MonkeyPatch()
    patch.setattr(server, "EVERY", 0.5)
    patch.setattr("icgn.app.actions.photograph", lambda name: Picture(small(gray=name == "camera")))
    patch.setattr(restore, "photograph", lambda name: Picture(small(gray=name == "camera")))
    with server.serving(host="127.0.0.1", port=0) as url:
        yield url
    patch.undo()


@pytest.fixture(scope="module")
def uploads(address):
    """The folder of uploads of the server."""
    return Path(os.environ["GRADIO_TEMP_DIR"])


@pytest.fixture
def endless(monkeypatch):
    """The next computation does not end by itself; the event says that it has begun."""
    begun, honest = threading.Event(), solving.solve

    def solve_on(problem, **options):
        if begun.is_set():
            return honest(problem, **options)
        begun.set()
        while Status.STOPPED not in (solution := honest(problem, **options)).status:
            pass
        return solution

    monkeypatch.setattr(solving, "solve", solve_on)
    return begun


def client(address):
    from gradio_client import Client

    return Client(address, verbose=False, analytics_enabled=False, httpx_kwargs={"timeout": 120})


def order(name, model="fast", tol=0.25):
    return [name, "denoise", model, 25, False, 1, tol, "gaussian", 1, 9, 0, 2, None, "", 0]


def upload(visitor, path, *more, api_name="/upload"):
    from gradio_client import handle_file

    return visitor.predict(handle_file(str(path)), *more, api_name=api_name)


@pytest.mark.slow
def test_twenty_at_once_each_with_a_picture_of_their_own(address, uploads, tmp_path, monkeypatch):
    def visit(i):
        visitor = client(address)
        upload(visitor, noisy_file(tmp_path / f"{i}.png", width=20 + i, seed=i))
        return visitor.predict(*order("my own picture"), api_name="/restore")

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(visit, range(20)))
    for i, answer in enumerate(answers):
        assert "Proved: within" in answer[0] and f"{20 + i} x 48)" in answer[2]
    monkeypatch.setattr(server, "AGE", 1.0)
    end = time.monotonic() + 60
    while any(p.is_file() for p in uploads.rglob("*")) and time.monotonic() < end:
        time.sleep(0.5)
    assert not [p for p in uploads.rglob("*") if p.is_file()]


def test_one_visitor_stops_the_other_goes_on(address, endless):
    visitors = [client(address) for _ in range(2)]
    long = visitors[0].submit(*order("camera"), api_name="/restore")
    assert endless.wait(30)
    waiting = visitors[1].submit(*order("camera"), api_name="/restore")
    assert "Stopped" in visitors[0].predict(api_name="/stop")
    assert "Stopped" in long.result(timeout=60)[0] and "Proved: within" in waiting.result(timeout=60)[0]


def test_bad_input_is_told_in_words(address, tmp_path):
    visitor = client(address)
    with pytest.raises(Exception, match="upload one first"):
        visitor.predict(*order("my own picture"), api_name="/restore")
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(Exception, match=r"text\.png: not a PNG"):
        upload(visitor, tmp_path / "text.png")
    Image.new("L", (30, 20)).save(tmp_path / "mask.png")
    with pytest.raises(Exception, match=r"^mask: hides every pixel"):
        upload(visitor, tmp_path / "mask.png", "camera", api_name="/mask")
    Image.new("L", (30, 20), 255).save(tmp_path / "mask.png")
    with pytest.raises(Exception, match="mask: got 30 x 20 pixels, expected those of the picture, 64 x 48"):
        upload(visitor, tmp_path / "mask.png", "camera", api_name="/mask")
    with pytest.raises(Exception, match="not in the list"):
        visitor.predict("nobody", *order("")[1:], api_name="/restore")


# The browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    sync = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM.exists():
        pytest.skip(f"no browser at {CHROMIUM}")
    with sync.sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            str(tmp_path_factory.mktemp("profile")), executable_path=str(CHROMIUM), headless=True, args=ARGUMENTS
        )
        context.set_default_timeout(60_000)
        yield context
        context.close()


@pytest.fixture
def tab(browser, address):
    opened = browser.new_page()
    opened.requested, opened.failed = [], []
    opened.on("request", lambda request: opened.requested.append(request.url))
    opened.on("pageerror", lambda error: opened.failed.append(str(error)))
    opened.goto(address)
    opened.wait_for_selector("#restore")
    yield opened
    outside = [u for u in opened.requested if not u.startswith((address, "data:", "blob:"))]
    assert not outside and not opened.failed
    opened.close()


@pytest.mark.slow
def test_upload_restore_and_read_the_result(tab, tmp_path):
    source = noisy_file(tmp_path / "mine.png")
    with tab.expect_file_chooser() as chooser:
        tab.click("#upload")
    chooser.value.set_files(source)
    tab.get_by_text("yours, restored as it is").wait_for()
    assert "mine.png, 64 x 48" in tab.inner_text("#preview")
    tab.click("#restore")
    tab.wait_for_selector("#report .proof")
    bound = float(re.search(r"within ([\d.]+) gray levels", tab.inner_text("#report"))[1])
    assert 0 < bound <= 0.08
    with tab.expect_download() as saved:
        tab.click("a.download")
    restored = read_picture(saved.value.path()).pixels
    noisy = read_picture(source).pixels
    assert quality(restored, small()).psnr > quality(noisy, small()).psnr + 3
    for name in ("compare", "difference", "convergence"):
        assert all(
            w > 0 for w in tab.locator(f"#{name} img").evaluate_all("all => all.map(image => image.naturalWidth)")
        )
    tab.screenshot(path=tmp_path / "page.png", full_page=True)
    assert min(Image.open(tmp_path / "page.png").size) > 400


@pytest.mark.slow
def test_keyboard_alone_reaches_everything_that_is_needed(tab):
    reached = []
    for _ in range(60):
        tab.keyboard.press("Tab")
        reached.append(
            tab.evaluate(
                "(document.activeElement.closest('[id]:not([id^=component]):not([id^=range])') || document.body).id"
            )
        )
        if reached[-1] == "restore":
            break
    wanted = ["photograph", "upload", "task", "noise", "estimate", "model", "restore"]
    assert [w for w in wanted if not any(w in r for r in reached)] == [], reached
    style = "getComputedStyle(document.activeElement)"
    assert tab.evaluate(f"{style}.outlineStyle") == "solid" and tab.evaluate(f"parseFloat({style}.outlineWidth)") >= 2
    tab.keyboard.press("Enter")
    tab.wait_for_selector("#report .proof")
    slider = tab.get_by_label("shown as it was before")
    slider.focus()
    tab.keyboard.press("ArrowRight")
    assert slider.input_value() == "51"
    assert tab.evaluate("getComputedStyle(document.querySelector('figure.slider')).getPropertyValue('--cut')") == "51"
    assert tab.get_by_role("status", name="Result and proof").count() == 1


@pytest.mark.slow
def test_every_control_has_a_name_for_screen_readers(tab):
    for label in ("Sharpen a blur", "Fill in", "Enlarge"):
        tab.get_by_label(label, exact=True).check()
        tab.wait_for_timeout(300)
        unnamed = tab.evaluate(
            """() => [...document.querySelectorAll("input, button, textarea, select")].filter(e =>
                e.offsetParent && e.type !== "file" && !(e.labels && e.labels.length) && !e.ariaLabel && !e.title &&
                !e.innerText.trim() && !e.getAttribute("aria-labelledby")).map(e => e.outerHTML.slice(0, 200))"""
        )
        assert unnamed == []


@pytest.mark.slow
def test_a_phone_shows_it_without_scrolling_sideways_and_draws(tab, tmp_path):
    tab.set_viewport_size({"width": 390, "height": 844})
    tab.get_by_label("Fill in", exact=True).check()
    canvas = tab.locator("#mask canvas").last
    canvas.wait_for()
    tab.wait_for_timeout(1500)
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    tab.mouse.move(x - 8, y)
    tab.mouse.down()
    tab.mouse.move(x + 8, y, steps=5)
    tab.mouse.up()
    tab.wait_for_timeout(500)
    tab.click("#restore")
    tab.wait_for_selector("#report .proof")
    assert "of its minimum" in tab.inner_text("#report") and "with missing pixels" in tab.inner_text("#report")
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.slow
def test_a_mask_is_uploaded_and_the_result_goes_with_its_picture(tab, tmp_path):
    known = np.full((48, 64), 255, np.uint8)
    known[10:20, 30:50] = 0
    Image.fromarray(known).save(tmp_path / "mask.png")
    tab.get_by_label("Fill in", exact=True).check()
    tab.locator("#mask canvas").last.wait_for()
    with tab.expect_file_chooser() as chooser:
        tab.click("#mask-upload")
    chooser.value.set_files(tmp_path / "mask.png")
    tab.get_by_text("camera, masked, 64 x 48, gray").wait_for()
    tab.click("#restore")
    tab.wait_for_selector("#report .proof")
    assert "with missing pixels" in tab.inner_text("#report")
    tab.screenshot(path=tmp_path / "filled.png", full_page=True)
    tab.locator("#photograph input").click()
    tab.get_by_role("option", name="coffee").click()
    tab.get_by_text("Choose a picture and a task").wait_for()
    assert tab.locator("#compare img").count() == 0 and tab.locator("#report .proof").count() == 0
    tab.click("#restore")
    tab.get_by_text("nothing is marked").wait_for()


@pytest.mark.slow
def test_stop_ends_a_long_computation_and_says_so(tab, endless):
    tab.click("#restore")
    assert endless.wait(30)
    tab.click("#stop")
    tab.get_by_text("Stopped.").wait_for()
    tab.click("#restore")
    tab.wait_for_selector("#report .proof")
