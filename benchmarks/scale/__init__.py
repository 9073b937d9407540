"""Beyond one machine: measured figures, a cost model over them, a simulation of the shards; docs/scale.md."""
