"""Reads what a run's report tells its reader to do."""

import html
import re
import shlex


def serving_command(page):
    """The words of the command under "Serve it", as a shell would take them."""
    (command,) = re.findall(r"<h3>Serve it</h3>\s*<pre>(.*?)</pre>", page, re.DOTALL)
    return shlex.split(html.unescape(command))
