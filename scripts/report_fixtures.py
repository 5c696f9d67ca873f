"""Writes the fixtures of the report pages: `report_fixtures.py [OUT_DIR]`, `crates/report/tests/fixtures` unless given.

The figures are invented, but look like those of a run on `data/tiny`; the pictures are the flags there. Needs nothing
beside Python.
"""

import base64
import json
import math
import random
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OUT = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "crates/report/tests/fixtures"
TINY = ROOT / "data/tiny"
STEPS = 1200
rng = random.Random(14)

flags = sorted(TINY.glob("heldout/*/*.png"))
names = [flag.parent.name for flag in flags]


def picture(path):
    return {
        "path": str(path.relative_to(ROOT)),
        "bytes": base64.b64encode(path.read_bytes()).decode(),
    }


def interval(value, total):
    half = 1.96 * math.sqrt(max(value * (1 - value), 1e-6) / total)
    return {
        "value": round(value, 4),
        "interval": [round(max(0, value - half), 4), round(min(1, value + half), 4)],
    }


def train_steps(every=1, rate=1e-3, final=0.9, seed=0):
    noise = random.Random(seed)
    lines = []
    for step in range(every, STEPS + 1, every):
        done = step / STEPS
        warm = min(1, step / 60)
        learning_rate = rate * warm * 0.5 * (1 + math.cos(math.pi * done))
        loss = final + 4.4 * math.exp(-5.5 * done) + noise.gauss(0, 0.11)
        parts = {
            "image_projection": 1.9,
            "text_tower": 1.1,
            "text_projection": 1.4,
            "logit_scale": 0.02,
        }
        norms = {
            part: round(
                scale * math.exp(-1.2 * done) * math.exp(noise.gauss(0, 0.25)), 4
            )
            for part, scale in parts.items()
        }
        lines.append(
            {
                "step": step,
                "loss": round(loss, 4),
                "chance_loss": 5.545,
                "learning_rate": float(f"{learning_rate:.4g}"),
                "learning_rates": {"text_tower": float(f"{learning_rate / 10:.4g}")},
                "logit_scale": round(14.3 + 31 * done**1.3, 3),
                "grad_norm": round(math.sqrt(sum(x * x for x in norms.values())), 4),
                "grad_norms": norms,
                "image_spread": round(0.71 + 0.18 * done + noise.gauss(0, 0.01), 4),
                "text_spread": round(
                    0.05 + 0.8 * (1 - math.exp(-6 * done)) + noise.gauss(0, 0.01), 4
                ),
                "pairs_per_sec": round(
                    1480 + noise.gauss(0, 60) - (500 if step % 300 < 3 else 0), 1
                ),
                "loader_wait": round(
                    min(1, abs(noise.gauss(0.03, 0.02)))
                    + (0.5 if step % 300 < 3 else 0),
                    4,
                ),
            }
        )
    return lines


def zero_shot(top=0.72, every=100):
    points = []
    for step in range(0, STEPS + 1, every):
        acc1 = 0.011 + top * (1 - math.exp(-3.2 * step / STEPS))
        metrics = {
            "acc1": interval(acc1, 412),
            "acc5": interval(min(0.99, 0.05 + acc1 * 1.28), 412),
            "mean_per_class_recall": interval(acc1 * 0.97, 412),
            "ece": {"value": round(0.03 + 0.1 * math.exp(-4 * step / STEPS), 4)},
            "num_images": {"value": 412},
            "num_classes": {"value": len(names)},
        }
        points.append({"step": step, "metrics": metrics})
    return points


def retrieval_points():
    points = []
    for step in range(0, STEPS + 1, 200):
        metrics = {"num_images": {"value": 412}, "num_texts": {"value": 824}}
        for way, top in [("image", 0.55), ("text", 0.61)]:
            for k, factor in [(1, 1), (5, 1.35), (10, 1.5)]:
                value = 0.002 * k + top * factor * (1 - math.exp(-3 * step / STEPS))
                metrics[f"{way}_retrieval_recall@{k}"] = interval(
                    min(value, 0.995), 412
                )
            metrics[f"{way}_retrieval_median_rank"] = {
                "value": max(1, round(206 * math.exp(-7 * step / STEPS)))
            }
            metrics[f"{way}_retrieval_mrr"] = {
                "value": round(0.01 + 0.66 * (1 - math.exp(-3 * step / STEPS)), 4)
            }
        points.append({"step": step, "metrics": metrics})
    return points


def classification():
    classes, confusions = [], []
    for label, name in enumerate(names):
        images = 4
        hits = min(images, max(0, round(rng.gauss(2.9, 1.1))))
        if name == "Chad":
            hits = 0
        wrong = images - hits
        while wrong > 0:
            count = rng.randint(1, wrong)
            near = [
                place
                for place in range(max(0, label - 6), min(len(names), label + 7))
                if place != label
            ]
            confusions.append(
                {"label": label, "predicted": rng.choice(near), "count": count}
            )
            wrong -= count
        classes.append(
            {
                "name": name,
                "images": images,
                "hits": hits,
                "predicted": max(hits, rng.randint(1, 5)),
            }
        )
    bins = []
    for place in range(15):
        confidence = (place + 0.5) / 15
        count = round(6 + 60 * confidence**2 * rng.uniform(0.5, 1))
        accuracy = min(
            1, max(0, confidence - 0.07 * math.sin(3 * confidence) + rng.gauss(0, 0.03))
        )
        bins.append(
            {
                "count": count if place else 0,
                "confidence": round(confidence, 4),
                "accuracy": round(accuracy, 4),
            }
        )
    return {
        "step": STEPS,
        "classes": classes,
        "confusions": confusions,
        "calibration": bins,
        "ece": 0.034,
    }


def retrieval_examples():
    texts, images = [], []
    for number in range(4):
        true = rng.randrange(len(names))
        rank = [1, 3, 1, 17][number]
        order = rng.sample([place for place in range(len(names)) if place != true], 5)
        if rank <= 5:
            order[rank - 1] = true
        found = [
            {
                "picture": picture(flags[place]),
                "score": round(0.62 - 0.04 * at - rng.random() * 0.02, 4),
                "is_match": place == true,
            }
            for at, place in enumerate(order)
        ]
        texts.append(
            {"text": f"the flag of {names[true]}", "found": found, "rank": rank}
        )
    for number in range(3):
        true = rng.randrange(len(names))
        rank = [1, 2, 41][number]
        order = rng.sample([place for place in range(len(names)) if place != true], 5)
        if rank <= 5:
            order[rank - 1] = true
        found = [
            {
                "text": f"the flag of {names[place]}",
                "score": round(0.6 - 0.05 * at, 4),
                "is_match": place == true,
            }
            for at, place in enumerate(order)
        ]
        images.append({"picture": picture(flags[true]), "found": found, "rank": rank})
    return {
        "chosen": "Drawn at random from the evaluation, with a fixed seed.",
        "texts": texts,
        "images": images,
    }


def pair_cards(low, number, captions):
    cards = []
    for at in range(number):
        place = rng.randrange(len(flags))
        score = (-0.08 + 0.012 * at) if low else (0.81 - 0.004 * at)
        caption = (
            captions[at % len(captions)]
            if captions and at < len(captions)
            else f"flag of {names[place]}"
        )
        cards.append(
            {
                "picture": picture(flags[place]),
                "caption": caption,
                "score": round(score, 4),
            }
        )
    return cards


def points_map():
    images, texts, pairs = [], [], []
    for number in range(240):
        angle, radius = rng.random() * math.tau, rng.gauss(0.5, 0.12)
        x, y = radius * math.cos(angle), radius * math.sin(angle)
        name = names[number % len(names)]
        images.append(
            {
                "x": round(x - 0.32, 4),
                "y": round(y + rng.gauss(0, 0.03), 4),
                "title": f"{name}.png",
            }
        )
        texts.append(
            {
                "x": round(x * 0.7 + 0.45 + rng.gauss(0, 0.05), 4),
                "y": round(y * 0.7 + rng.gauss(0, 0.05), 4),
                "title": f"flag of {name}",
            }
        )
        if number % 4 == 0:
            pairs.append([number, number])
    return {
        "images": images,
        "texts": texts,
        "pairs": pairs,
        "explained": [0.31, 0.12],
        "note": "240 pairs of the evaluation `pairs`, drawn with a fixed seed.",
    }


def similarities():
    def histogram(mean, spread, total):
        bell = [
            math.exp(-(((-0.3 + (place + 0.5) * 0.03 - mean) / spread) ** 2) / 2)
            for place in range(40)
        ]
        return {
            "counts": [round(total * value / sum(bell)) for value in bell],
            "mean": mean,
        }

    return {
        "low": -0.3,
        "high": 0.9,
        "matching": histogram(0.52, 0.11, 824),
        "other": histogram(0.06, 0.09, 60000),
    }


CONFIG = (TINY.parent.parent / "configs").glob("*.toml")
config_text = sorted(CONFIG)[0].read_text()

report = {
    "title": "Flags, locked image tower",
    "run_dir": "runs/flags-lit-b256",
    "state": {
        "status": "finished",
        "step": STEPS,
        "total_steps": STEPS,
        "when": "2026-05-04 13:37 UTC",
        "duration": "2 h 14 min",
    },
    "best": {
        "step": 1100,
        "path": "checkpoints/step-001100",
        "metric": "vendor.acc1",
        "value": 0.6958,
    },
    "steps": train_steps(2),
    "evaluations": [
        {
            "name": "vendor",
            "task": "zero-shot",
            "points": zero_shot(),
            "classification": classification(),
        },
        {
            "name": "pairs",
            "task": "retrieval",
            "points": retrieval_points(),
            "retrieval": retrieval_examples(),
        },
    ],
    "data": [
        {"key": "train", "value": "data/tiny/train.csv: 38,412 pairs of 12,804 images"},
        {"key": "captions", "value": "9,204 distinct, 4 to 31 tokens, median 7"},
        {"key": "fingerprint", "value": "b3:5f1d0c3a9e7742b1"},
        {"key": "left out", "value": "17 images, 3 rows"},
    ],
    "config": [
        {"key": "model", "value": "ViT-B/16 (locked) and BERT base, 512 dimensions"},
        {
            "key": "train",
            "value": "1,200 steps of 256 pairs, softmax loss, AdamW, 1e-3, cosine",
        },
        {"key": "precision", "value": "bf16"},
        {"key": "device", "value": "cuda:0"},
        {"key": "seed", "value": "0"},
    ],
    "config_text": config_text,
    "parameters": [
        {
            "part": "image_tower",
            "tensors": 197,
            "parameters": 85_798_656,
            "trained": 0,
        },
        {
            "part": "text_tower",
            "tensors": 197,
            "parameters": 108_891_648,
            "trained": 85_054_464,
        },
        {
            "part": "image_projection",
            "tensors": 1,
            "parameters": 393_216,
            "trained": 393_216,
        },
        {
            "part": "text_projection",
            "tensors": 1,
            "parameters": 393_216,
            "trained": 393_216,
        },
        {"part": "logit_scale", "tensors": 1, "parameters": 1, "trained": 1},
    ],
    "pairs": {
        "scored": "20,000 training pairs, drawn with a fixed seed, at step 1,200.",
        "worst": pair_cards(
            True,
            12,
            [
                "IMG_2041.JPG",
                "flag of Chad (actually Romania?) seen from the hotel window on a very long and windy afternoon, "
                * 4,
                "علم السعودية يرفرف فوق المبنى",
                "日本の国旗が風になびいている写真",
                "<script>alert('caption')</script> & <b>bold</b>",
            ],
        ),
        "best": pair_cards(False, 6, []),
    },
    "map": points_map(),
    "similarities": similarities(),
    "modality_gap": 0.4182,
    "warnings": [
        {
            "step": 41,
            "name": "text-collapse",
            "message": "text embeddings are nearly equal (spread 0.05); if it lasts, lower `train.learning_rate`",
        },
        {
            "step": 300,
            "name": "loader-wait",
            "message": "half of the time is spent waiting for batches; raise `data.workers`",
        },
    ],
    "bad_samples": [
        {
            "cause": "truncated file",
            "count": 14,
            "example": "data/train/img_00412.jpg",
        },
        {"cause": "caption is empty", "count": 3, "example": "train.csv, line 8,112"},
        {
            "cause": "unsupported format",
            "count": 3,
            "example": "data/train/vector.svg",
        },
    ],
    "made_by": "dualenc 0.1.0",
}


def compared(name, status, top, rate, final, config, seed):
    points = zero_shot(top)
    if status == "killed":
        points = points[:8]
    return {
        "name": name,
        "state": {
            "status": status,
            "step": STEPS if status == "finished" else 760,
            "total_steps": STEPS,
        },
        "config": [{"key": key, "value": value} for key, value in config.items()],
        "steps": [
            line
            for line in train_steps(10, rate, final, seed)
            if status == "finished" or line["step"] <= 760
        ],
        "evaluations": [{"name": "vendor", "task": "zero-shot", "points": points}],
    }


same = {"train.batch_size": "256", "train.loss": "softmax", "run.seed": "0"}
comparison = {
    "title": "Which tower to lock?",
    "runs": [
        compared(
            "flags-lit",
            "finished",
            0.72,
            1e-3,
            0.9,
            same | {"train.learning_rate": "1e-3", "model.image.lock": "true"},
            1,
        ),
        compared(
            "flags-both",
            "finished",
            0.69,
            3e-4,
            1.0,
            same | {"train.learning_rate": "3e-4", "model.image.lock": "false"},
            2,
        ),
        compared(
            "flags-sigmoid",
            "killed",
            0.58,
            1e-3,
            1.6,
            same
            | {
                "train.learning_rate": "1e-3",
                "model.image.lock": "true",
                "train.loss": "sigmoid",
                "model.logit_bias": "-10",
            },
            3,
        ),
    ],
    "made_by": "dualenc 0.1.0",
}


def hits(number, caption=True):
    places = rng.sample(range(len(flags)), number)
    return [
        {
            "picture": picture(flags[place]),
            "score": round(0.61 - 0.013 * at, 4),
            "caption": f"flag of {names[place]}" if caption else None,
        }
        for at, place in enumerate(places)
    ]


results = {
    "title": "Flags",
    "facts": [
        {"key": "index", "value": "embeds.safetensors: 1,000,000 images"},
        {"key": "model", "value": "runs/flags-lit-b256/checkpoints/step-001100"},
        {"key": "time", "value": "0.21 s"},
    ],
    "queries": [
        {"text": "a red flag with a white cross", "results": hits(20)},
        {"picture": picture(flags[7]), "results": hits(8, caption=False)},
        {"text": "علم أخضر مع كتابة", "results": []},
    ],
    "made_by": "dualenc 0.1.0",
}

young = {
    "run_dir": "runs/just-begun",
    "state": {
        "status": "running",
        "step": 3,
        "total_steps": 1200,
        "when": "2026-05-04 11:24 UTC",
    },
    "steps": [
        {
            "step": step,
            "loss": None if step == 2 else 5.4 - step / 10,
            "chance_loss": 5.545,
        }
        for step in (1, 2, 3)
    ],
    "evaluations": [{"name": "vendor", "task": "zero-shot"}],
    "made_by": "dualenc 0.1.0",
}

odd_names = [
    "<script>alert(1)</script>",
    "\"quotes\" & 'apostrophes'",
    "علم المملكة العربية السعودية",
    "日本国旗と富士山と桜の花",
    "a-very-long-class-name-without-any-space-" * 4,
    "",
]
odd = {
    "title": "<b>Odd</b> & \"quoted\" input, with a title that is much longer than anybody would wish for",
    "run_dir": "runs/" + "deep/" * 30,
    "state": {"status": "killed", "step": 99, "total_steps": 10, "note": "The disk <filled> up."},
    "headlines": [
        {"metric": "acc1", "evaluation": odd_names[0], "figure": {"value": None}, "baseline": {"value": 0.1}},
        {"metric": "loss", "evaluation": odd_names[4], "figure": {"value": 1e30}, "baseline": {"value": 3.0}},
        {"metric": "text_retrieval_median_rank", "figure": {"value": 0}, "step": 0},
    ],
    "steps": [
        {"step": 1, "loss": 2.5, "grad_norm": 1e-9, "logit_scale": 1e30},
        {"step": 50, "loss": None, "grad_norm": 1e25, "logit_scale": -5},
        {"step": 1_000_000_000_000, "loss": 2.5, "grad_norm": 0, "logit_scale": 0},
    ],
    "evaluations": [
        {
            "name": odd_names[3],
            "points": [{"step": 7, "metrics": {odd_names[0]: {"value": None}}}],
            "classification": {
                "classes": [
                    {"name": name, "images": 10 * place, "hits": 7 * place, "predicted": 8 * place}
                    for place, name in enumerate(odd_names)
                ],
                "confusions": [
                    {"label": label, "predicted": (label + 2) % 6, "count": 3 * label}
                    for label in range(6)
                ]
                + [{"label": 99, "predicted": 0, "count": 4}],
                "calibration": [{"count": 1, "confidence": 0.5, "accuracy": 1.0}],
            },
            "retrieval": {
                "texts": [
                    {
                        "text": "caption " * 5000,
                        "found": [
                            {"picture": {"path": name, "bytes": "aGVsbG8="}, "score": 0.5}
                            for name in odd_names
                        ],
                    }
                ],
                "images": [{"picture": {}, "found": [{"text": name} for name in odd_names]}],
            },
        }
    ],
    "config_text": "</pre></details><script>alert(2)</script>",
    "data": [{"key": name, "value": name * 20} for name in odd_names],
    "parameters": [{"part": odd_names[4], "parameters": 2**63, "trained": 2**63}] * 2,
    "pairs": {"worst": [{"caption": name, "score": -1} for name in odd_names]},
    "map": {"images": [{"x": 1, "y": 1, "title": name} for name in odd_names]},
    "similarities": {"low": 1, "high": 1, "matching": {"counts": [3]}},
    "modality_gap": 0,
    "warnings": [{"name": name, "message": name * 30} for name in odd_names],
    "bad_samples": [{"cause": name, "count": 2**62, "example": name} for name in odd_names],
}

OUT.mkdir(parents=True, exist_ok=True)
fixtures = {
    "report": report,
    "young": young,
    "empty": {},
    "odd": odd,
    "comparison": comparison,
    "results": results,
}
for name, value in fixtures.items():
    text = (
        json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace(
            "},{", "},\n{"
        )
        + "\n"
    )
    (OUT / f"{name}.json").write_text(text)
