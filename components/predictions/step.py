"""What one student says of the users that are measured, as a table of its own. No label reaches this step.

The evaluation makes the same predictions for itself; this step is for runs that end with them.
"""

from __future__ import annotations

from pathlib import Path

from conf_profile.config import StudentConfig
from conf_profile.students.predictions import predict_student, predict_untrained


def run(
    features: Path,
    student: Path,
    predictions: Path,
    untrained: bool,
    config: StudentConfig,
    batch_size: int,
    seed: int,
) -> None:
    """Writes tables.PREDICTIONS of the student for the validation and test users.

    With `untrained` of the model that its SFT began with, whose first weights follow from `seed`.
    """
    if untrained:
        predict_untrained(student, features, config, batch_size, seed, predictions)
    else:
        predict_student("the student", student, features, config, batch_size, predictions)
