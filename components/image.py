"""The container image that every step runs in.

KFP's cache key holds the image's name, not its digest, so the name must change with the content: the local runner
sets CONF_PROFILE_IMAGE to a name made of a hash of the sources, and `make images` gives tags made of one, which
`python -m charts.images names training` prints for `conf-profile compile --image`.
"""

import os

IMAGE = os.environ.get("CONF_PROFILE_IMAGE", "conf-profile/training:0.1.0")
