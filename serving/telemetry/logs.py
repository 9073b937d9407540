"""Structured logs: one JSON object a line, without user ids and without user text."""

from __future__ import annotations

import json
import logging
import sys
import traceback
from datetime import UTC, datetime

FIELDS = "fields"
"""`logger.info("request", extra={FIELDS: {...}})`: further keys of the line."""


class JsonFormatter(logging.Formatter):
    """time, level, logger, event, then the line's own fields."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **getattr(record, FIELDS, {}),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def configure(level: int = logging.INFO) -> None:
    """Our own loggers write JSON to stderr; kserve's and uvicorn's keep theirs."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    ours = logging.getLogger("serving")
    ours.handlers, ours.propagate = [handler], False
    ours.setLevel(level)


def suppress_messages(*loggers: str) -> None:
    """From now on these loggers write of an exception its kind and place, and not its message."""
    for name in loggers:
        logging.getLogger(name).addFilter(_without_message)


def _without_message(record: logging.LogRecord) -> bool:
    """Of an exception with causes the last one alone: what the others say is quoted in no other way."""
    if record.exc_info and record.exc_info[1] is not None:
        kind, _, place = record.exc_info
        record.exc_text = "".join([*traceback.format_tb(place), getattr(kind, "__name__", "exception")])
        record.exc_info = None
    return True
