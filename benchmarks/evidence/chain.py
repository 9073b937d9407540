"""One arm's way through the pipeline's own steps, with everything that arms share done once.

The steps are the functions that the pipeline's components call. What a step writes lies in a folder named by a
hash of its settings, its inputs and the sources of the steps, so an arm that differs in GRPO alone finds features,
teacher's answers and the SFT student of the others. A folder appears under its name when it is whole: an
interrupted experiment repeats only what was under way, and training continues from its checkpoints.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from conf_profile.config import RunConfig
from conf_profile.data.build import build
from conf_profile.data.dataset import FEATURE_FILES, MANIFEST, TEACHING_FILES, Dataset, load
from conf_profile.files import write_text
from conf_profile.source import source_hash

SHAPING_MODULES = ("pipelines.training", "conf_profile.data.build")
"""The modules whose sources make a result; experiments only choose and count."""


@dataclass(frozen=True)
class Chain:
    """One configuration's artefacts under `store`, each made when it is first asked for."""

    config: RunConfig
    store: Path

    @cached_property
    def data(self) -> Dataset:
        """The data set; the same settings and seed give the same files."""
        settings = [source_hash(*SHAPING_MODULES), self.config.data.for_step(), self.config.seed]
        folder = self.store / "data" / _digest(settings)
        return load(folder) if (folder / MANIFEST).is_file() else build(self.config, folder)

    @cached_property
    def features(self) -> Path:
        """The table features."""
        from components.features.step import run

        as_of = self.config.features.as_of or self.data.as_of

        def make(folder: Path) -> None:
            work = folder / "feast"
            run(
                self.data.behaviour, self.data.demographics, folder / "features", folder / "report.json", work, as_of,
                self.config.features,
            )  # fmt: skip
            shutil.rmtree(work, ignore_errors=True)

        return (
            self._make_once("features", [self.data.digest(FEATURE_FILES), as_of, self.config.features.for_step()], make)
            / "features"
        )

    @cached_property
    def candidates(self) -> Path:
        """The teacher's samples; the answers themselves are kept apart, so that none is paid for twice."""
        from components.synthesis.step import run

        teacher = self.config.teacher.model_copy(update={"shards": 1})

        def make(folder: Path) -> None:
            run(
                self.features, self.data.taxonomy, self.data.lexicon, folder / "candidates", teacher,
                self.config.prompt, self.config.seed, 0, self.store / "answers",
            )  # fmt: skip

        known = self.data.digest(TEACHING_FILES)
        key = [_name(self.features), known, teacher.for_step(), self.config.prompt.max_keyphrases, self.config.seed]
        return self._make_once("candidates", key, make) / "candidates"

    @cached_property
    def labelled(self) -> Path:
        """Folder with pseudo_labels, calibration.json and report.json."""
        from components.labelling.step import run

        samples = self.config.teacher.samples

        def make(folder: Path) -> None:
            run(
                [self.candidates], self.data.taxonomy, self.features, folder / "pseudo_labels",
                folder / "calibration.json", folder / "report.json", self.config.labelling, samples,
            )  # fmt: skip

        return self._make_once("labelled", [_name(self.candidates), self.config.labelling.for_step()], make)

    @cached_property
    def sft(self) -> Path:
        """The student after SFT."""
        from components.sft.step import run

        config = self.config

        def make(folder: Path) -> None:
            run(
                self.features, self.labelled / "pseudo_labels", self.data.taxonomy, folder / "student",
                folder / "log.json", config.sft, config.student, config.prompt, self._checkpoints("sft", key),
                config.seed,
            )  # fmt: skip

        settings = [config.sft.for_step(), config.student.for_step(), config.prompt.for_step()]
        key = [_name(self.labelled), *settings, config.seed]
        return self._make_once("sft", key, make) / "student"

    @cached_property
    def refined(self) -> Path:
        """The student after rejection sampling; the SFT student itself where there is none."""
        from components.rejection.step import run

        config = self.config
        if not config.rejection.rounds:
            return self.sft

        def make(folder: Path) -> None:
            run(
                self.features, self.sft, folder / "student", folder / "log.json", config.rejection, config.reference,
                config.student, self._checkpoints("rejection", key), config.seed,
            )  # fmt: skip

        key = [_name(self.sft), config.rejection.for_step(), config.reference.for_step(), config.seed]
        return self._make_once("rejection", key, make) / "student"

    @cached_property
    def reference(self) -> Path:
        """Folder with reference, support and report.json."""
        from components.reference.step import run

        config = self.config

        def make(folder: Path) -> None:
            run(
                self.features, self.refined, folder / "reference", folder / "support", folder / "report.json",
                config.reference, config.student.dtype, config.seed,
            )  # fmt: skip

        return self._make_once("reference", [_name(self.refined), config.reference.for_step(), config.seed], make)

    @cached_property
    def filtered(self) -> Path:
        """The table filtered: who takes part in GRPO."""
        from components.filtering.step import run

        config = self.config

        def make(folder: Path) -> None:
            run(
                self.reference / "reference", folder / "filtered", folder / "report.json", config.filtering, config.seed
            )

        return self._make_once("filtered", [_name(self.reference), config.filtering.for_step(), config.seed], make)

    @cached_property
    def trained(self) -> Path:
        """Folder with the student after GRPO and its log.json."""
        from components.grpo.step import run

        config = self.config

        def make(folder: Path) -> None:
            counts = run(
                self.features, self.reference / "reference", self.reference / "support", self.filtered / "filtered",
                self.refined, folder / "student", folder / "log.json", config.grpo, config.student,
                self._checkpoints("grpo", key), config.seed,
            )  # fmt: skip
            write_text(folder / "counts.json", json.dumps(counts))

        key = [_name(self.filtered), config.grpo.for_step(), config.seed]
        return self._make_once("grpo", key, make)

    def predictions(self, student: Path) -> Path:
        """tables.PREDICTIONS of one student for the validation and test users."""
        from components.evaluation.inference import predict_student

        def make(folder: Path) -> None:
            predict_student(
                student.parent.name, student, self.features, self.config.student, self.config.evaluation.batch_size,
                folder / "predictions",
            )  # fmt: skip

        return self._make_once("predictions", [_name(student), _name(self.features)], make) / "predictions"

    def base_predictions(self) -> Path:
        """The same of the untrained student."""
        from components.evaluation.inference import predict_untrained

        config = self.config

        def make(folder: Path) -> None:
            predict_untrained(
                self.sft, self.features, config.student, config.evaluation.batch_size, config.seed,
                folder / "predictions",
            )  # fmt: skip

        return self._make_once("base", [_name(self.sft), _name(self.features), config.seed], make) / "predictions"

    def _make_once(self, step: str, key: list[Any], make: Callable[[Path], None]) -> Path:
        """The step's folder; made beside it and renamed, so that it is whole whenever it exists.

        Seeds share what does not depend on them (real data have one table of features): who comes second waits.
        """
        final = self.store / step / _digest([source_hash(*SHAPING_MODULES), *key])
        with _lock(final.with_name(f".{final.name}.lock")):
            if not final.is_dir():
                temporary = final.with_name(f".{final.name}.tmp")
                shutil.rmtree(temporary, ignore_errors=True)
                temporary.mkdir()
                with _redirect_output(self.store / "steps.log"):
                    make(temporary)
                temporary.rename(final)
                shutil.rmtree(self._checkpoints(step, key), ignore_errors=True)
        return final

    def _checkpoints(self, step: str, key: list[Any]) -> Path:
        return self.store / "checkpoints" / f"{step}-{_digest([source_hash(*SHAPING_MODULES), *key])}"


@contextmanager
def _lock(lock: Path) -> Iterator[None]:
    """One process at a time; the lock goes with the process that holds it, however that ends."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def _redirect_output(log: Path) -> Iterator[None]:
    """What trainers print goes to a file: an experiment has hundreds of trainings."""
    with log.open("a", encoding="utf-8") as out, redirect_stdout(out), redirect_stderr(out):
        yield


def _name(path: Path) -> str:
    """What identifies an artefact: its step's folder name, which hashes all that it came from."""
    return path.parent.name if path.name in ("features", "candidates", "student") else path.name


def _digest(settings: Any) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:16]
