"""Why a step failed, read from what kfp's local runner prints: kfp itself says no more than which step it was."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass, field

_ERROR = re.compile(r"^\s*conf_profile\.errors\.(\w+): (.*)$")
# kfp indents a step's own output; its own traceback, which follows, says nothing of the cause.
_STEPS_TRACEBACK = re.compile(r"^ +Traceback \(most recent call last\):$")
_STEPS_EXCEPTION = re.compile(r"^ {4}([A-Za-z_][\w.]*(?:: .*)?)$")


@dataclass
class StepFailure:
    """What the output has told so far: one of our errors (`kind`, `error`), and apart from it the last exception."""

    last_lines: deque[str] = field(default_factory=lambda: deque(maxlen=30))
    error: str = ""
    kind: str = ""
    unexpected: str = ""
    in_traceback: bool = False

    def read(self, line: str) -> None:
        """Reads one line of the output, without colours and without the space at its end."""
        if line:
            self.last_lines.append(line)
        if match := _ERROR.match(line):
            self.kind, self.error = match.groups()
        elif _STEPS_TRACEBACK.match(line):
            self.in_traceback = True
        elif self.in_traceback and (match := _STEPS_EXCEPTION.match(line)):
            self.unexpected, self.in_traceback = match[1], False

    @property
    def reason(self) -> str:
        """The step's own message; its last lines where it raised nothing."""
        return self.error or self.unexpected or "\n".join(self.last_lines)
