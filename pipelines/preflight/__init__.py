"""What a program can check before a run starts on a cluster: image, endpoints, Kubernetes' objects, nodes, data.

    found = preflight.findings(preflight.PreflightRequest(...))
    preflight.require(found, console)

`findings` starts nothing, writes nothing and raises nothing for what it finds; it asks the object store, and Kubernetes
where that may be asked. `require` prints warnings and notes and raises one error that lists all errors. What cannot be
known beforehand (whether the nodes can pull the image, whether they have room when the step comes) stays open.
"""

from pipelines.preflight.checks import findings
from pipelines.preflight.finding import Finding, require
from pipelines.preflight.request import PreflightRequest

__all__ = ["Finding", "PreflightRequest", "findings", "require"]
