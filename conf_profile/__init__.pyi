from conf_profile.analysis.calibration import apply_calibration as apply_calibration
from conf_profile.analysis.calibration import fit_calibration as fit_calibration
from conf_profile.analysis.judgement import choose_thresholds as choose_thresholds
from conf_profile.analysis.judgement import evaluate as evaluate
from conf_profile.analysis.votes import vote as vote
from conf_profile.consensus.confidence import Calibration as Calibration
from conf_profile.errors import ConfProfileError as ConfProfileError

__version__: str
