"""One small hierarchy of errors: a type for each boundary.

Every message says what was wrong, where (file, row, column, key) and what to do. The command line prints
the message of a `ConfProfileError` without a traceback and exits with status 2.
"""


class ConfProfileError(Exception):
    """Anything that a user can put right."""


class ConfigError(ConfProfileError):
    """The run's configuration is wrong."""


class TaxonomyError(ConfProfileError):
    """A taxonomy file breaks a rule."""


class DataError(ConfProfileError):
    """A table or a data set breaks its schema or a rule."""


class OutputFormatError(ConfProfileError):
    """A completion does not follow the output grammar."""


class TeacherError(ConfProfileError):
    """The teacher cannot be asked, or its answers cannot be kept."""


class MalformedAnswersError(TeacherError):
    """Most of the teacher's answers cannot be read: asking on would be money for nothing."""


class StudentError(ConfProfileError):
    """A student model cannot be built, loaded or trained."""


class RegistryError(ConfProfileError):
    """The model registry in S3 cannot be read or written."""


class RegistryConflictError(RegistryError):
    """Somebody else wrote first: the version exists, or the champion pointer has moved."""


class RolloutError(ConfProfileError):
    """A version cannot be put into service on the cluster."""


class RolloutConflictError(RolloutError):
    """Somebody else is rolling out the same model, or has changed what serves it."""


class RolloutLostError(RolloutError):
    """This rollout was silent for so long that another one took its place."""


class PipelineError(ConfProfileError):
    """A pipeline step failed; its own message is included."""


class UnreadableTeacherError(PipelineError):
    """A run stopped because most of its teacher's answers are malformed."""


class BackendUnreachableError(PipelineError):
    """A KFP backend does not answer, which may pass; what it refuses is another error."""


class RunNotFoundError(PipelineError):
    """A KFP backend has no run of this id: it was never there, or somebody has deleted it."""


class PreflightError(ConfProfileError):
    """A run on a cluster cannot work as it is declared; every reason that was found is included."""


class LostPromotionError(PipelineError):
    """Another promotion came first: the run competed with a version that is not the champion any more."""


class ServingError(ConfProfileError):
    """The serving path cannot start: its model, feature store or predictor is not what it must be."""


class ImageError(ConfProfileError):
    """The container images cannot be built or saved."""
