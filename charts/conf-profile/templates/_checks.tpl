{{/*
Combinations of values that a schema cannot refuse. Each message names the keys and says what to do.
A check says what is wrong with `fail`; nothing of it is rendered.
*/}}
{{- define "conf-profile.checks" -}}
{{- if not (or .Values.serving.enabled .Values.features.enabled .Values.pipelines.enabled) }}
{{- fail "serving.enabled, features.enabled and pipelines.enabled are all false: nothing is left to install" }}
{{- end }}
{{- include "conf-profile.checks.s3" . }}
{{- if .Values.serving.enabled }}
{{- include "conf-profile.checks.serving" . }}
{{- end }}
{{- if .Values.features.enabled }}
{{- include "conf-profile.checks.features" . }}
{{- end }}
{{- if .Values.pipelines.enabled }}
{{- include "conf-profile.checks.pipelines" . }}
{{- end }}
{{- include "conf-profile.checks.prepare" . }}
{{- include "conf-profile.checks.monitoring" . }}
{{- end }}

{{- define "conf-profile.checks.s3" -}}
{{- $s3 := .Values.s3 }}
{{- if not $s3.endpoint }}
{{- fail "s3.endpoint is empty: give the object store's address, e.g. https://s3.eu-central-1.amazonaws.com" }}
{{- end }}
{{- if and (not $s3.existingSecret) (not $s3.workloadIdentity) }}
{{- fail (printf "s3.existingSecret is empty and s3.workloadIdentity is false: name the Secret that holds %s and %s, or let the service accounts have a role" $s3.secretKeys.accessKeyId $s3.secretKeys.secretAccessKey) }}
{{- end }}
{{- if and $s3.existingSecret $s3.workloadIdentity }}
{{- fail "s3.existingSecret and s3.workloadIdentity exclude each other: keys of a Secret would win over the role" }}
{{- end }}
{{- if and $s3.existingSecret $s3.checkSecret }}
{{- include "conf-profile.checks.secret" (list . "s3.existingSecret" $s3.existingSecret (list $s3.secretKeys.accessKeyId $s3.secretKeys.secretAccessKey)) }}
{{- end }}
{{- end }}

{{/* That a Secret is there with its keys: (list . key name keys). Only where a cluster can be asked: it always holds kube-root-ca.crt. */}}
{{- define "conf-profile.checks.secret" -}}
{{- $root := index . 0 }}
{{- $key := index . 1 }}
{{- $name := index . 2 }}
{{- $namespace := $root.Release.Namespace }}
{{- if lookup "v1" "ConfigMap" $namespace "kube-root-ca.crt" }}
{{- $secret := lookup "v1" "Secret" $namespace $name }}
{{- if not $secret }}
{{- fail (printf "%s: there is no Secret %s in namespace %s: make it with `kubectl create secret generic %s -n %s --from-literal=%s=...` (s3.checkSecret=false leaves this check out)" $key $name $namespace $name $namespace (join "=... --from-literal=" (index . 3))) }}
{{- end }}
{{- range index . 3 }}
{{- if not (hasKey (default dict $secret.data) .) }}
{{- fail (printf "%s: the Secret %s in namespace %s has no key %s: add it, or set s3.secretKeys" $key $name $namespace .) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* That a node pool is there and has so many GPUs: (list . "serving.predictor" pool gpus). */}}
{{- define "conf-profile.checks.pool" -}}
{{- $pools := (index . 0).Values.nodePools }}
{{- $key := index . 1 }}
{{- $name := index . 2 }}
{{- $gpus := index . 3 | int }}
{{- if not (hasKey $pools $name) }}
{{- fail (printf "%s.pool: there is no node pool %q in nodePools; it has %s" $key $name (keys $pools | sortAlpha | join ", ")) }}
{{- end }}
{{- $there := dig "gpu" "count" 0 (index $pools $name) | int }}
{{- if gt $gpus $there }}
{{- fail (printf "%s.gpus: %d are asked for, a node of the pool has nodePools.%s.gpu.count = %d" $key $gpus $name $there) }}
{{- end }}
{{- end }}

{{/* That pods can be replaced at all: (list "serving.predictor" rollingUpdate). */}}
{{- define "conf-profile.checks.rollingUpdate" -}}
{{- $update := index . 1 }}
{{- if and (has (toString $update.maxSurge) (list "0" "0%")) (has (toString $update.maxUnavailable) (list "0" "0%")) }}
{{- fail (printf "%s.rollingUpdate: maxSurge and maxUnavailable are both 0, so that no pod could ever be replaced" (index . 0)) }}
{{- end }}
{{- end }}

{{/* That a node can ever be drained: (list "serving.predictor" podDisruptionBudget). */}}
{{- define "conf-profile.checks.podDisruptionBudget" -}}
{{- $budget := index . 1 }}
{{- if and $budget.enabled (regexMatch "^0+%?$" (toString $budget.maxUnavailable)) }}
{{- fail (printf "%s.podDisruptionBudget.maxUnavailable is %v: no pod could ever be evicted, and the drain of a node would never end; set it to 1 or more, or podDisruptionBudget.enabled to false" (index . 0) $budget.maxUnavailable) }}
{{- end }}
{{- end }}

{{/* That a range of replicas is one: (list "key" autoscaling). */}}
{{- define "conf-profile.checks.replicas" -}}
{{- $scaling := index . 1 }}
{{- if gt (int $scaling.minReplicas) (int $scaling.maxReplicas) }}
{{- fail (printf "%s: minReplicas %d is more than maxReplicas %d" (index . 0) (int $scaling.minReplicas) (int $scaling.maxReplicas)) }}
{{- end }}
{{- end }}
