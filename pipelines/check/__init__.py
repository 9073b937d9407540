"""What can be known of a run before anything is paid: its people, labels, lexicon, prompt, champion, cost and machine.

    found = check.inspect(config, data, folder, registry, steps, own_store)
    preflight.require(found.findings, console)

`inspect` reads what the run will read, by the run's own rules, and writes nothing. What cannot work is an error, what
looks wrong is a warning. No finding that is kept (a warning) quotes a user's id or text.
"""

from pipelines.check.inspection import Inspection, inspect, place_findings

__all__ = ["Inspection", "inspect", "place_findings"]
