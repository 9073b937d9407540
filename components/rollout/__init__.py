"""Pipeline step: put the promoted version into service on the cluster, or leave things as they were."""
