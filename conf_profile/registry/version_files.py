"""The files of a version, by name. Nothing is imported here: what starts the predictor reads some of them, too."""

from __future__ import annotations

TASK = "task.yaml"
"""What the student answers, from which features; versions of earlier releases have `taxonomy.yaml` instead.

This and the next three a student's folder has already, beside the network."""
CALIBRATION = "calibration.json"
"""How its scores become levels."""
VOTE_CALIBRATION = "calibration-vote.json"
"""The same for a vote over several of its answers; after GRPO."""
PROFILE = "profile.json"
"""How a user becomes its prompt."""
CARD = "README.md"
"""The model card. This and the next two come with the promotion."""
THRESHOLDS = "thresholds.json"
"""The lowest level of each attribute that is accepted, unless somebody says otherwise."""
EVALUATION = "evaluation.json"
MANIFEST = "manifest.json"
"""The names, sizes and hashes of all the others."""
