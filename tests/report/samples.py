"""Results as a run would hand them in: synthetic but plausible numbers, real photographs from scikit-image."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
from skimage import data

from selftaught.report import images

PHOTOS = (
    "astronaut",
    "brick",
    "camera",
    "cat",
    "coffee",
    "coins",
    "grass",
    "gravel",
    "rocket",
    "retina",
    "moon",
    "immunohistochemistry",
)


@cache
def photo(name: str) -> np.ndarray:
    return np.asarray(getattr(data, name)())


def crop(name: str, rng: np.random.Generator, side: int = 96) -> np.ndarray:
    image = photo(name)
    y, x = (int(rng.integers(0, s - side)) for s in image.shape[:2])
    return image[y : y + side, x : x + side]


def metrics(rng: np.random.Generator, steps: int = 1200) -> dict[str, Any]:
    step = np.arange(1, steps + 1)
    invariance = 0.5 * np.exp(-step / 260) + 0.09 + 0.02 * rng.normal(size=steps)
    spread = 4.6 * np.exp(-step / 420) + 1.25 + 0.09 * rng.normal(size=steps)
    lr = 1e-3 * np.minimum(step / 60, 0.5 * (1 + np.cos(math.pi * step / steps)))
    at = np.arange(100, steps + 1, 100)
    knn = 0.79 - 0.42 * np.exp(-at / 310) + 0.008 * rng.normal(size=at.size)
    loss = invariance + spread
    loss[steps // 4] = np.nan
    terms = {"alignment": invariance, "contrast": spread}
    series = {"loss": loss, "terms": terms, "knn": np.stack([at, knn], 1), "lr": lr}
    series["throughput"] = 610 + 14 * rng.normal(size=steps)
    return {"step": step, "series": series, "chance": 1 / len(PHOTOS), "unit": "images/s"}


def label_efficiency(lift: float = 0.0) -> dict[str, Any]:
    x = [1, 2, 5, 10, 20, 50, 100]
    means = {
        "raw pixels": [0.21, 0.26, 0.33, 0.39, 0.43, 0.48, 0.51],
        "untrained encoder": [0.24, 0.31, 0.40, 0.46, 0.52, 0.58, 0.62],
        "this encoder": [v + lift for v in (0.49, 0.61, 0.74, 0.81, 0.85, 0.88, 0.90)],
    }
    width = [0.045, 0.036, 0.026, 0.019, 0.014, 0.011, 0.009]
    curves = []
    for name, mean in means.items():
        low, high = ([m + sign * w for m, w in zip(mean, width, strict=True)] for sign in (-1, 1))
        curves.append({"name": name, "mean": mean, "low": low, "high": high})
    note = "Mean of 5 draws of the labels; bands are 95 % intervals of the mean (Student t)."
    return {"x": x, "curves": curves, "chance": 1 / len(PHOTOS), "metric": "accuracy", "note": note}


def number(mean: float, half: float) -> dict[str, Any]:
    return {"mean": mean, "low": mean - half, "high": mean + half, "values": [mean - half / 2, mean + half / 2]}


def protocols() -> list[dict[str, Any]]:
    def result(name: str, **numbers: tuple[float, float]) -> dict[str, Any]:
        return {"name": name, "numbers": {k: number(*v) for k, v in numbers.items()}, "figures": {}, "note": ""}

    def rank(name: str, value: float) -> dict[str, Any]:
        only = {"mean": value, "low": None, "high": None, "values": [value]}
        return {"name": name, "numbers": {"effective rank": only}, "figures": {}, "note": ""}

    return [
        {
            "name": "k-NN",
            "note": "20 neighbours, cosine, weighted",
            "this": result("k-NN", accuracy=(0.794, 0.021), top5=(0.962, 0.01)),
            "random": result("k-NN", accuracy=(0.452, 0.025), top5=(0.781, 0.02)),
            "raw": result("k-NN", accuracy=(0.387, 0.024), top5=(0.702, 0.02)),
        },
        {
            "name": "Linear probe",
            "note": "logistic regression, C chosen on held-out data",
            "this": result("Linear", accuracy=(0.871, 0.017), loss=(0.412, 0.03)),
            "random": result("Linear", accuracy=(0.603, 0.024), loss=(1.205, 0.05)),
            "raw": result("Linear", accuracy=(0.498, 0.025), loss=(1.742, 0.07)),
        },
        {
            "name": "Retrieval",
            "this": result("Retrieval", mAP=(0.611, 0.018)),
            "random": result("r", mAP=(0.274, 0.02)),
            "raw": None,
        },
        {
            "name": "Collapse",
            "note": "larger is not always better",
            "this": rank("c", 83.2),
            "random": rank("c", 9.4),
            "raw": rank("c", 21.7),
        },
    ]


def embedding(rng: np.random.Generator, count: int = 600) -> tuple[dict[str, Any], list[np.ndarray]]:
    label = rng.integers(0, len(PHOTOS), count)
    angle = np.arange(len(PHOTOS)) * 2 * math.pi / len(PHOTOS)
    centre = np.stack([10 * np.cos(angle) + 2 * np.sin(3 * angle), 8 * np.sin(angle)], 1)
    xy = centre[label] + rng.normal(size=(count, 2)) * [1.5, 1.3]
    thumbs = [crop(PHOTOS[c], rng) for c in label]
    names = [f"{PHOTOS[c]}/test-{i:04d}" for i, c in enumerate(label)]
    section = {"xy": xy, "label": label, "classes": list(PHOTOS), "names": names, "method": "t-SNE, perplexity 30"}
    return section | {"thumbs": images.sprite_sheet(thumbs, tile=56)}, thumbs


def neighbours(rng: np.random.Generator, queries: int = 6) -> list[dict[str, Any]]:
    rows = []
    for name in rng.permutation(PHOTOS)[:queries]:
        hits = []
        for k in range(7):
            other = str(rng.choice(PHOTOS)) if rng.random() < 0.05 * k else str(name)
            picture = images.encode(crop(other, rng), format="jpeg")
            hits.append({"png": picture, "label": other, "similarity": 0.97 - 0.035 * k})
        rows.append({"query": images.encode(crop(str(name), rng), format="jpeg"), "label": str(name), "hits": hits})
    return rows


def views(rng: np.random.Generator) -> dict[str, Any]:
    rows = []
    for name in PHOTOS[:5]:
        original = crop(name, rng, 128)
        seen = [original]
        for _ in range(4):
            y, x = rng.integers(0, 48, 2)
            view = original[y : y + 80, x : x + 80].astype(float) * rng.uniform(0.7, 1.2) + rng.uniform(-25, 25)
            seen.append(np.clip(view[:, :: rng.choice([-1, 1])], 0, 255).astype(np.uint8))
        rows.append([images.encode(v, format="jpeg") for v in seen])
    return {"columns": ["original", "view 1", "view 2", "view 3", "view 4"], "rows": rows, "names": list(PHOTOS[:5])}


def spectrum() -> dict[str, Any]:
    k = np.arange(128)
    return {"this": 9 * np.exp(-k / 46), "random": 11 * np.exp(-k / 6) + 1e-4, "raw": 14 * (1 + k) ** -1.25}


def unlabelled_run() -> dict[str, Any]:
    """The main case: no labels, so no scores; an untrained encoder's neighbours beside the trained one's."""
    run = {k: v for k, v in image_run().items() if k not in ("label_efficiency", "protocols", "notes", "map")}
    traces = {k: v for k, v in run["metrics"]["series"].items() if k != "knn"}
    run["metrics"] = {**run["metrics"], "series": traces}
    shown = {k: v for k, v in image_run()["map"].items() if k not in ("label", "classes")}
    rows = []
    for row in run["neighbours"]:
        hits = [{k: v for k, v in hit.items() if k != "label"} | {"point": i} for i, hit in enumerate(row["hits"])]
        rows.append({"query": row["query"], "name": "img-0001.jpg", "point": 9, "hits": hits, "untrained": hits[::-1]})
    values = {
        "this": {"effective_rank": 83.2, "std_ratio": 0.91, "dead_features": 0.0, "neighbour_stability": 0.61},
        "random": {"effective_rank": 9.4, "std_ratio": 0.22, "dead_features": 0.0, "neighbour_stability": 0.83},
        "raw": {"effective_rank": 21.7, "std_ratio": 0.4, "dead_features": 0.0},
    }
    found: dict[str, Any] = {"name": "diagnostics"}
    for role, numbers in values.items():
        found[role] = {"name": "diagnostics", "numbers": {k: {"mean": v, "values": [v]} for k, v in numbers.items()}}
    source = {k: v for k, v in run["source"].items() if k not in ("classes", "test")}
    return run | {"source": source, "protocols": [found], "map": shown, "neighbours": rows}


def restoration(rng: np.random.Generator) -> list[dict[str, Any]]:
    items = []
    for name, box in (("cat", (40, 90)), ("coffee", (60, 150)), ("camera", (60, 100))):
        y, x = box
        clean = photo(name)[y : y + 240, x : x + 320].astype(float)
        noise = rng.normal(size=clean.shape) * 22
        noise = (noise + np.roll(noise, 1, 0) + np.roll(noise, 1, 1)) / 1.7
        noisy = np.clip(clean + noise, 0, 255)
        restored = np.clip(clean + 0.16 * noise, 0, 255)
        shown = {
            k: images.encode(v.astype(np.uint8), format="png")
            for k, v in (("noisy", noisy), ("restored", restored), ("clean", clean))
        }
        items.append({"name": f"{name}.png", "ssim": 0.91, "ssim_noisy": 0.44, **shown})
    del items[-1]["clean"], items[-1]["ssim"], items[-1]["ssim_noisy"]
    return items


def series(rng: np.random.Generator) -> dict[str, Any]:
    activities = ["walking", "running", "stairs up", "stairs down", "sitting"]
    t = np.arange(256) / 64
    windows = []
    for k, name in enumerate(activities):
        strength = (1.0, 2.2, 0.8, 0.9, 0.06)[k]
        wave = [
            strength * np.sin(2 * math.pi * (1.2 + 0.5 * k) * t + c) + 0.12 * rng.normal(size=t.size) for c in range(6)
        ]
        windows.append(
            {
                "channels": wave,
                "label": name,
                "rate": 64,
                "channel_names": ["acc x", "acc y", "acc z", "gyr x", "gyr y", "gyr z"],
            }
        )
        windows[-1]["predicted"] = "stairs up" if name == "stairs down" else name
    matrix = np.diag([88, 95, 61, 57, 120]) + rng.integers(0, 6, (5, 5))
    matrix[3, 2] = 29
    return {"windows": windows, "confusion": {"matrix": matrix, "classes": activities}}


def config(batch: int = 256, temperature: float = 0.1) -> dict[str, Any]:
    return {
        "method": {"temperature": temperature, "sigma": None, "projector": {"hidden": 2048, "out": 128, "layers": 2}},
        "encoder": "resnet18",
        "data": {"source": "photos", "size": 96, "by": "given"},
        "optimiser": {"name": "adamw", "lr": 1e-3, "weight_decay": 0.05, "betas": [0.9, 0.95]},
        "schedule": {"name": "cosine", "warmup_steps": 60},
        "batch_size": batch,
        "steps": 1200,
        "seed": 0,
        "precision": "bf16-mixed",
    }


def image_run() -> dict[str, Any]:
    return dict(_image_run())


@cache
def _image_run() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "title": "DCL on photos",
        "method": "dcl",
        "method_title": "DCL, decoupled contrastive learning",
        "paper": {
            "title": "Decoupled Contrastive Learning",
            "authors": "Yeh et al.",
            "venue": "ECCV",
            "year": 2022,
            "url": "arXiv 2110.06848",
        },
        "source": {
            "name": "photos",
            "describe": "12 photographs, crops of 96 pixels",
            "train": 9600,
            "test": 2400,
            "classes": list(PHOTOS),
            "channels": 3,
            "generated": False,
        },
        "created": "2025-11-23 05:10",
        "seconds": 187.4,
        "command": "selftaught train --config runs/dcl-photos/config.yaml --out runs/dcl-photos-again",
        "config": config(),
        "environment": {
            "selftaught": "0.1.0",
            "torch": "2.15.0",
            "python": "3.11.2",
            "device": "cpu, 2 cores",
            "precision": "float32",
        },
        "metrics": metrics(rng),
        "label_efficiency": label_efficiency(),
        "protocols": protocols(),
        "map": embedding(rng)[0],
        "neighbours": neighbours(rng),
        "views": views(rng),
        "spectrum": spectrum(),
        "skipped": [
            {"name": "photos/broken-01.jpg", "reason": "truncated"},
            {"name": "photos/empty.png", "reason": "empty file"},
            {"name": "photos/broken-02.jpg", "reason": "truncated"},
        ],
        "samples": 9603,
        "notes": ["Which photograph a crop is from serves as the label, for evaluation only."],
        "stages": [{"name": "pre-training", "steps": 1200, "epochs": 32, "seconds": 181.2, "note": ""}],
    }


def restoration_run() -> dict[str, Any]:
    rng = np.random.default_rng(1)
    return {
        "title": "C-BSN on photographs with correlated noise",
        "method": "c-bsn",
        "method_title": "C-BSN",
        "source": {"name": "photos with noise", "train": 800, "generated": True},
        "seconds": 512.0,
        "metrics": metrics(rng, 300),
        "restoration": restoration(rng),
        "config": config(),
    }


def series_run() -> dict[str, Any]:
    rng = np.random.default_rng(2)
    return {
        "title": "Frame projections on watch",
        "method": "frame-projections",
        "source": {"name": "watch", "modality": "series", "train": 4210, "test": 1103, "channels": 6},
        "metrics": metrics(rng, 200),
        "protocols": protocols()[:2],
        "series": series(rng),
        "stages": [
            {"name": "pre-training", "steps": 1200, "seconds": 99.0},
            {"name": "fusion", "epochs": 10, "seconds": 41.5, "note": "three encoders frozen"},
        ],
    }


def comparison_runs() -> list[dict[str, Any]]:
    light = {k: v for k, v in image_run().items() if k not in ("map", "neighbours", "views")}
    near = {"title": "SimCLR on photos", "method": "simclr", "method_title": "SimCLR", "seconds": 192.0}
    near |= {"label_efficiency": label_efficiency(-0.018), "config": config(batch=512, temperature=0.5)}
    near["metrics"] = metrics(np.random.default_rng(3))
    low = {"title": "Barlow Twins on photos", "method": "barlow-twins", "method_title": "Barlow Twins"}
    low |= {"label_efficiency": label_efficiency(-0.13), "protocols": protocols()[:1]}
    low["metrics"] = metrics(np.random.default_rng(4))
    return [image_run(), light | near, light | low]
