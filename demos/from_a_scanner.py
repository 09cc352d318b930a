"""
From a scanner to a certified picture
=====================================

Undersampled k-space of eight coils, and a sinogram of few photons, each as an instrument measures it. What comes out is
the one minimizer of a convex problem, with a proved gap. The strength is found by held-out samples: no true picture is
used. On files of your own the commands ``icgn mri`` and ``icgn ct`` do the same.

    python demos/from_a_scanner.py [FOLDER] [--quick]
"""

import argparse
from pathlib import Path

import deepinv
import torch
import torch.nn.functional as F  # noqa: N812
from skimage.data import shepp_logan_phantom

from icgn import load_pretrained
from icgn.datasets import bundled
from icgn.scanners import Geometry, KSpace, Sinogram, prepare_coils, reconstruct_ct, reconstruct_mri

parser = argparse.ArgumentParser(description="MRI with coils and CT by counts.")
parser.add_argument("folder", nargs="?", type=Path, default=Path("out"), help="where the figures go")
parser.add_argument("--quick", action="store_true", help="small pictures, solved roughly")
options = parser.parse_args()
options.folder.mkdir(parents=True, exist_ok=True)
side, gap_tol, sigma = (40, 0.1, 0.06) if options.quick else (128, 1e-3, None)
model = load_pretrained("ridge-gray-small" if options.quick else "conditional-gray")
generator = torch.Generator().manual_seed(0)

# %%
# Eight coils around a picture with a smooth phase: what each measures is the transform of the picture times its own
# sensitivity. Places of k-space are drawn at random, more of them in the middle, and noise is added.
photograph = bundled(gray=True).find("coins").image[None, :, 20:276, 20:276].double()
clean = F.interpolate(photograph, size=(side, side), mode="bilinear", antialias=True)[0, 0].clamp(0, 1)
t = torch.linspace(-1, 1, side, dtype=torch.float64)
angles = 2 * torch.pi * torch.arange(8, dtype=torch.float64).view(-1, 1, 1) / 8
away = (t[:, None] - 1.1 * angles.sin()).square() + (t - 1.1 * angles.cos()).square()
maps = torch.polar((-away / 1.2).exp(), angles + 0.4 * t)
maps = maps / maps.abs().square().sum(0).sqrt()
phase = 0.9 * t[:, None] - 0.6 * t + 0.8 * t.square()
samples = deepinv.physics.MultiCoilMRI.fft(maps * torch.polar(clean, phase), dim=(-2, -1))
samples = samples + 0.01 * torch.randn(samples.shape, dtype=samples.dtype, generator=generator)
radius = (t[:, None].square() + t.square()).sqrt()
mask = torch.rand(side, side, dtype=torch.float64, generator=generator) < 0.3 * (1 - radius / 1.5).clamp_min(0) ** 2
mask |= radius < 0.16
kspace = KSpace.of(samples * mask)

# %%
# The picture, beside zero filling and CG-SENSE, which stops before it fits the noise.
found = reconstruct_mri(kspace, maps=maps, noise=0.01 / 2**0.5, regularizer=model, sigma=sigma, gap_tol=gap_tol)
data = prepare_coils(kspace, maps=maps, noise=0.01 / 2**0.5)
plain = {"zero filling": data.physics().A_adjoint(data.y), "CG-SENSE": data.sense}
shown = {name: data.noise.level * torch.linalg.vector_norm(u[0], dim=0) for name, u in plain.items()}
shown["certified"] = found.x.abs().double()
print(f"MRI, {kspace.acceleration:.1f} times undersampled: F(x) within {100 * found.relative_gap:.3f} % of its minimum")


def labelled(pictures: dict[str, torch.Tensor], true: torch.Tensor) -> list[str]:
    """PSNR of each, in dB."""
    return [f"{10 * torch.log10(true.max().square() / (p - true).square().mean()):.2f} dB" for p in pictures.values()]


def draw(pictures: dict[str, torch.Tensor], labels: list[str], white: float, name: str) -> None:
    """A row of pictures, all with the same black and white."""
    deepinv.utils.plot(
        [p[None, None] / white for p in pictures.values()], list(pictures), subtitles=labels, rescale_mode="clip",
        vmin=0, vmax=1, figsize=(12, 3.4), show=False, save_fn=options.folder / name, dpi=120,
    )  # fmt: skip


labels = labelled(shown, clean)
print(dict(zip(shown, labels, strict=True)))
draw({"measured": mask.double(), **shown, "true": clean}, ["", *labels, ""], 1.0, "scanners-mri.png")

# %%
# A phantom of attenuations in 1/cm, 20 cm wide, and 5,000 photons for each ray of a fan. Where nothing attenuates all
# of them are counted, behind the phantom fewer: each ray has its own noise.
attenuation = torch.from_numpy(shepp_logan_phantom())[None, None].double()
attenuation = 0.3 * F.interpolate(attenuation, size=(side, side), mode="bilinear", antialias=True)[0, 0].clamp(0, 1)
views = torch.arange(side, dtype=torch.float64) * 360 / side
geometry = Geometry(
    views, cells=round(1.5 * side), detector_spacing=400 / side, beam="fan", source_distance=500, detector_distance=500,
    size=side, pixel_spacing=200 / side,
)  # fmt: skip
attenuation = attenuation * geometry.circle
integrals = 0.1 * geometry.pixel_spacing * geometry.slant * geometry.physics().A(attenuation[None, None])[0, 0].T
counts = torch.poisson(5000 * (-integrals).exp(), generator=generator)

# %%
# The slice, in 1/cm.
slice_ = reconstruct_ct(Sinogram.of_counts(counts, 5000), geometry, regularizer=model, sigma=sigma, gap_tol=gap_tol)
print(f"CT, {len(views)} views: F(x) within {100 * slice_.relative_gap:.3f} % of its minimum")
pictures = {"certified": slice_.x.double()}
labels = labelled(pictures, attenuation)
print(dict(zip(pictures, labels, strict=True)))
top = float(counts.max())
draw({"counts": counts * 0.3 / top, **pictures, "true": attenuation}, ["", *labels, ""], 0.3, "scanners-ct.png")
