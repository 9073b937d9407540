"""A generated world for the tests of evaluation and report: users, truth, and arms of a chosen accuracy."""

from __future__ import annotations

import numpy as np

from components.evaluation.step import score
from conf_profile import tables
from conf_profile.config import EvaluationConfig
from conf_profile.dialogue.task import Task, parse

TWO_ATTRIBUTES: Task = parse({"attributes": {"age": ["young", "middle", "old"], "gender": ["female", "male"]}})
CONFIG = EvaluationConfig(bootstrap=100, target_precision=0.6)


class World:
    """Users u0..uN with known truth; writes the tables that evaluation reads."""

    def __init__(self, folder, users: int = 240, taxonomy: Task = TWO_ATTRIBUTES) -> None:
        self.folder = folder
        self.taxonomy = taxonomy
        self.random = np.random.default_rng(0)
        self.users = [f"u{number}" for number in range(users)]
        self.split = ["test" if n % 2 else "validation" if n % 4 else "train" for n in range(users)]
        self.truth = {
            (user, attribute.name): int(self.random.integers(len(attribute.tags)))
            for user in self.users
            for attribute in self.taxonomy.attributes
        }
        self.taxonomy.save(folder / "task.yaml")
        self.write_features()
        self.write_labels(self.truth)

    def write_features(self) -> None:
        rows = [
            {
                "user_id": user, "split": split, "watch": ["w"] * (number % 7), "search": [], "submit": ["s"],
                "self_age": "30" if number % 3 else None, "self_gender": None, "signature": None,
                "region": ["north", "south", None][number % 3],
            }
            for number, (user, split) in enumerate(zip(self.users, self.split, strict=True))
        ]  # fmt: skip
        tables.write(self.folder / "features.parquet", tables.from_rows(rows, tables.FEATURES), tables.FEATURES)

    def write_labels(self, truth) -> None:
        rows = [
            {"user_id": user, "attribute": name, "tag": self.taxonomy[name].tags[tag]}
            for (user, name), tag in truth.items()
        ]
        tables.write(self.folder / "labels.parquet", tables.from_rows(rows, tables.LABELS), tables.LABELS)

    def answer(self, user: str, name: str, accuracy: float) -> tuple[str, int]:
        """A tag that is right with the given probability, surer when it is right."""
        right = self.random.random() < accuracy
        tags = self.taxonomy[name].tags
        wrong = (self.truth[user, name] + 1 + self.random.integers(len(tags) - 1)) % len(tags)
        level = int(np.clip(round(self.random.normal(3.6 if right else 2.4, 1.2)), 1, 5))
        return tags[self.truth[user, name] if right else wrong], level

    def predict(self, arm: str, accuracy: float, leave_out: int = 0):
        rows = []
        for user in self.users[leave_out:]:
            for name in self.taxonomy.names:
                tag, level = self.answer(user, name, accuracy)
                rows.append({"user_id": user, "attribute": name, "tag": tag, "level": level, "score": level / 5})
        return self.write_predictions(arm, rows)

    def silent(self, arm: str):
        empty = {"tag": None, "level": None, "score": None}
        rows = [{"user_id": u, "attribute": n, **empty} for u in self.users for n in self.taxonomy.names]
        return self.write_predictions(arm, rows)

    def write_predictions(self, arm: str, rows):
        path = self.folder / f"{arm}.parquet"
        tables.write(path, tables.from_rows(rows, tables.PREDICTIONS), tables.PREDICTIONS)
        return path

    def candidates(self, accuracy: float, samples: int = 7, users: list[str] | None = None):
        """Two shards; every tenth sample is malformed."""
        paths = []
        for shard in range(2):
            rows = []
            for user in (users if users is not None else self.users)[shard::2]:
                for sample in range(samples):
                    formed = self.random.random() > 0.1
                    for name in self.taxonomy.names:
                        tag, level = self.answer(user, name, accuracy) if formed else (None, None)
                        rows.append(
                            {
                                "user_id": user, "sample": sample, "attribute": name, "tag": tag,
                                "level": level, "rationale": None, "well_formed": formed,
                            }
                        )  # fmt: skip
            paths.append(self.folder / f"candidates-{shard}.parquet")
            tables.write(paths[-1], tables.from_rows(rows, tables.CANDIDATES), tables.CANDIDATES)
        return paths

    def score(self, predictions, candidates=(), ceiling=None, seed: int = 0, config=CONFIG, **given):
        return score(
            predictions,
            candidates,
            self.folder / "features.parquet",
            self.folder / "labels.parquet",
            self.folder / "task.yaml",
            ceiling,
            self.folder / "evaluation.json",
            config,
            seed,
            **given,
        )

    def score_without_labels(self, predictions, candidates=(), **given):
        """A run that was given no labels; the ceiling that it names is not there, as nobody may read it."""
        return score(
            predictions,
            candidates,
            self.folder / "features.parquet",
            None,
            self.folder / "task.yaml",
            self.folder / "no-such-ceiling.parquet",
            self.folder / "evaluation.json",
            CONFIG,
            0,
            **given,
        )
