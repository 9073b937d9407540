"""Where a training step keeps its checkpoints: a local folder, or a copy in an object store beside it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from conf_profile.storage.object_address import is_remote
from conf_profile.students import training
from conf_profile.students.checkpoints import remote as remote_checkpoints

DISCARD = "CONF_PROFILE_DISCARD_CHECKPOINTS"
"""Environment variable: a step that has ended deletes its checkpoints, for those who train hundreds of students."""


@contextmanager
def open_checkpoints(workspace: str, module: str, inputs: Sequence[Path], settings: Sequence[str]) -> Iterator[Path]:
    """The folder for a step's checkpoints, with those of an earlier, killed try of the same work.

    `workspace` is a folder, whose checkpoints stay unless the environment has `DISCARD`; empty for a temporary one; or
    `s3://BUCKET/PREFIX[?endpoint=URL&region=NAME]`: every whole checkpoint is copied there, a later try of the same
    work goes on from it, and the copies are deleted once the block ends well. `module`, `inputs` and `settings` name
    the work, see `training.checkpoint_folder`. RegistryError where the store cannot be reached at the start.
    """
    if not is_remote(workspace):
        folder = training.checkpoint_folder(workspace, module, inputs, settings)
        yield folder
        if os.environ.get(DISCARD):
            shutil.rmtree(folder, ignore_errors=True)
        return
    with tempfile.TemporaryDirectory(prefix="checkpoints-") as root:
        folder = training.checkpoint_folder(root, module, inputs, settings)
        folder.mkdir(parents=True)
        place = remote_checkpoints.begin(workspace, folder)
        yield folder
        remote_checkpoints.finish(place)
