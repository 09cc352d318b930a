"""Seconds beside yardsticks: one run, its ratios, and a table that grows with the numbers of threads."""

import pytest
import torch


@pytest.fixture
def seconds(script):
    return script("seconds")


def test_all_methods_run_on_the_same_picture(seconds):
    clean = torch.rand(1, 24, 26, generator=torch.Generator().manual_seed(0))
    rows = {row["method"]: row for row in seconds.measured(clean, 0.1, 1e-3, 1, ["ridge-gray-small"])}
    assert {seconds.NETWORK, seconds.LAST, "ridge-gray-small"} <= set(rows)
    ours, network = rows["ridge-gray-small"], rows[seconds.NETWORK]
    assert ours["status"] == "converged" and ours["rms_distance"] <= 1e-3 and ours["iterations"] > 0
    assert ours["over"][seconds.NETWORK] == pytest.approx(ours["seconds"][0] / network["seconds"][0])


def test_the_two_memory_formats_are_the_same_network(seconds):
    noisy = torch.rand(1, 3, 12, 14, generator=torch.Generator().manual_seed(0))
    plain, last = (call() for call in seconds.networks(noisy).values())
    torch.testing.assert_close(plain, last, rtol=1e-4, atol=1e-5)


def test_the_table_has_columns_for_each_number_of_threads(seconds):
    def run(time):
        row = {"method": "m", "channels": 3, "seconds": [time, 2 * time], "over": {"network": 0.5}}
        return {"rows": [{**row, "iterations": 7, "status": "converged", "rms_distance": 1e-5, "psnr": 30.0}]}

    settings = {"sigma": 25.0, "tol": 1e-4, "rounds": 2, "data": "bundled"}
    text = seconds.markdown({"settings": settings, "runs": {"2": run(1.0), "1": run(1.8)}})
    assert "| seconds, 1 thread |" in text and "| m, colour | 1.80 | 0.50 |  | 1.00 | 0.50 |  |" in text
    assert "- m: 7 iterations, converged, RMS distance 1.0e-05, 30.00 dB" in text


def test_pictures_have_the_size_of_bsd68(seconds):
    assert seconds.picture(1, None).shape == (1, 321, 481) and seconds.picture(3, None).shape == (3, 321, 481)
