"""The container image that every step runs in.

KFP's cache key holds the image's name, not its digest, so the name must change with the content: the local runner
sets CONF_PROFILE_IMAGE to a name made of a hash of the sources, and `make images` gives tags made of one, which
`python -m charts.images names training` prints for `conf-profile compile --image`.
"""

import os
import re

HASH_DIGITS = 12
"""Of a tag that `charts.images` makes of an image's content."""
IMAGE = os.environ.get("CONF_PROFILE_IMAGE", "conf-profile/training:0.1.0")


def is_content_made(name: str) -> bool:
    """Whether a name changes with what the image holds: a digest, or a tag that ends in a hash of the content."""
    return re.search(rf"(@sha256:[0-9a-f]{{64}}|:[^:/@]+-[0-9a-f]{{{HASH_DIGITS}}})$", name) is not None
