{{- define "conf-profile.serving.labels" -}}
{{ include "conf-profile.labels" . }}
app.kubernetes.io/component: serving
{{- end }}

{{/* KServe's labels of the pods: (list . "predictor"). */}}
{{- define "conf-profile.serving.selector" -}}
serving.kserve.io/inferenceservice: {{ include "conf-profile.fullname" (index . 0) }}
component: {{ index . 1 }}
{{- end }}

{{- define "conf-profile.serving.runtime" -}}
{{ include "conf-profile.fullname" . }}-vllm-{{ .Values.serving.predictor.device }}
{{- end }}

{{- define "conf-profile.model.base" -}}
champion://{{ .Values.s3.bucket }}/models/{{ .Values.s3.model }}
{{- end }}

{{/*
The model's URI. A version of the values wins; else what a rollout has pinned in the cluster stays as it is, so that an
upgrade of the chart never changes the model.
*/}}
{{- define "conf-profile.model.uri" -}}
{{- $base := include "conf-profile.model.base" . }}
{{- if .Values.serving.version }}
{{- printf "%s@%s" $base .Values.serving.version }}
{{- else }}
{{- $there := dict }}
{{- if .Capabilities.APIVersions.Has "serving.kserve.io/v1beta1" }}
{{- $there = lookup "serving.kserve.io/v1beta1" "InferenceService" .Release.Namespace (include "conf-profile.fullname" .) }}
{{- end }}
{{- $pinned := dig "spec" "predictor" "model" "storageUri" "" $there }}
{{- ternary $pinned $base (hasPrefix (printf "%s@" $base) $pinned) }}
{{- end }}
{{- end }}

{{/* Seconds that a pod goes on answering after it was told to end: its last requests, and the news of its leaving. */}}
{{- define "conf-profile.serving.drainSeconds" -}}
{{- add (ceil .Values.serving.deadlineSeconds | int) 5 }}
{{- end }}

{{/* PodSpec fields that transformer and predictor share: (list . "predictor"). */}}
{{- define "conf-profile.serving.pod" -}}
{{- $root := index . 0 }}
{{- $part := index . 1 }}
{{- $values := index $root.Values.serving $part -}}
deploymentStrategy:
  type: RollingUpdate
  rollingUpdate:
    {{- toYaml $values.rollingUpdate | nindent 4 }}
serviceAccountName: {{ include "conf-profile.serviceAccountName" (list $root $root.Values.serving.serviceAccount "serving") }}
automountServiceAccountToken: false
enableServiceLinks: false
terminationGracePeriodSeconds: {{ add (include "conf-profile.serving.drainSeconds" $root) 30 }}
securityContext:
  {{- include "conf-profile.podSecurityContext" $root | nindent 2 }}
{{- with include "conf-profile.pullSecrets" $root }}
{{ . }}
{{- end }}
{{- with include "conf-profile.pool" (list $root $values.pool) | trim }}
{{ . }}
{{- end }}
{{- with $values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- if $values.topologySpread.enabled }}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: {{ $values.topologySpread.topologyKey }}
    whenUnsatisfiable: {{ $values.topologySpread.whenUnsatisfiable }}
    labelSelector:
      matchLabels:
        {{- include "conf-profile.serving.selector" (list $root $part) | nindent 8 }}
{{- end }}
{{- end }}

{{/* Whether there is more than one pod at any time: (list . "predictor"). */}}
{{- define "conf-profile.serving.several" -}}
{{- $values := index (index . 0).Values.serving (index . 1) }}
{{- $scaled := include "conf-profile.serving.scaled" . }}
{{- if gt (ternary (int $values.autoscaling.minReplicas) (int $values.replicas) (eq $scaled "true")) 1 }}true{{ end }}
{{- end }}

{{- define "conf-profile.serving.scaled" -}}
{{- $values := index (index . 0).Values.serving (index . 1) }}
{{- if eq (index . 1) "predictor" }}
{{- ne $values.autoscaling.type "none" }}
{{- else }}
{{- $values.autoscaling.enabled }}
{{- end }}
{{- end }}

{{- define "conf-profile.checks.serving" -}}
{{- include "conf-profile.checks.storageContainer" . }}
{{- $predictor := .Values.serving.predictor }}
{{- $transformer := .Values.serving.transformer }}
{{- include "conf-profile.checks.pool" (list . "serving.predictor" $predictor.pool $predictor.gpus) }}
{{- include "conf-profile.checks.pool" (list . "serving.transformer" $transformer.pool 0) }}
{{- if and (eq $predictor.device "gpu") (eq (int $predictor.gpus) 0) }}
{{- fail "serving.predictor.device is gpu and serving.predictor.gpus is 0: set gpus to 1 or more, and pool to a node pool that has them" }}
{{- end }}
{{- if and (eq $predictor.device "cpu") (gt (int $predictor.gpus) 0) }}
{{- fail "serving.predictor.gpus is more than 0 and serving.predictor.device is cpu: set device to gpu, or gpus to 0" }}
{{- end }}
{{- include "conf-profile.checks.rollingUpdate" (list "serving.predictor" $predictor.rollingUpdate) }}
{{- include "conf-profile.checks.rollingUpdate" (list "serving.transformer" $transformer.rollingUpdate) }}
{{- include "conf-profile.checks.podDisruptionBudget" (list "serving.predictor" $predictor.podDisruptionBudget) }}
{{- include "conf-profile.checks.podDisruptionBudget" (list "serving.transformer" $transformer.podDisruptionBudget) }}
{{- if ne $predictor.autoscaling.type "none" }}
{{- include "conf-profile.checks.replicas" (list "serving.predictor.autoscaling" $predictor.autoscaling) }}
{{- end }}
{{- if and (eq $predictor.autoscaling.type "keda") (not $predictor.autoscaling.prometheus) }}
{{- fail "serving.predictor.autoscaling.type is keda and serving.predictor.autoscaling.prometheus is empty: KEDA asks Prometheus, give its address" }}
{{- end }}
{{- if $transformer.autoscaling.enabled }}
{{- include "conf-profile.checks.replicas" (list "serving.transformer.autoscaling" $transformer.autoscaling) }}
{{- end }}
{{- if .Values.serving.writeBack.enabled }}
{{- if not .Values.features.enabled }}
{{- fail "serving.writeBack.enabled needs features.enabled: there is no feature store to write to" }}
{{- end }}
{{- $mode := .Values.serving.writeBack.persistence.accessMode }}
{{- if eq $mode "ReadWriteOncePod" }}
{{- fail "serving.writeBack.persistence.accessMode is ReadWriteOncePod: neither the next transformer nor the job that erases could start beside the one that runs; set it to ReadWriteMany, or to ReadWriteOnce on a cluster of one node" }}
{{- end }}
{{- if and (eq $mode "ReadWriteOnce") (or $transformer.autoscaling.enabled (gt (int $transformer.replicas) 1)) }}
{{- fail "serving.writeBack.persistence.accessMode is ReadWriteOnce and there are several transformers: set it to ReadWriteMany, or serving.transformer.replicas to 1" }}
{{- end }}
{{- end }}
{{- include "conf-profile.checks.external" . }}
{{- end }}

{{/* That an address outside leads anywhere: callers that nobody has changed leave the ingress' pods out. */}}
{{- define "conf-profile.checks.external" -}}
{{- $policy := .Values.networkPolicy }}
{{- if and .Values.serving.external $policy.enabled (eq (toJson $policy.callers) `[{"podSelector":{}}]`) }}
{{- fail "serving.external is true and networkPolicy.callers lets in the release's namespace alone: name the ingress' pods there, e.g. {namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: NAMESPACE}}}" }}
{{- end }}
{{- end }}

{{/* Who counts the pods: KServe, or a scaler of ours, which KServe must then leave alone (no minReplicas). */}}
{{- define "conf-profile.serving.replicas" -}}
{{- if ne (include "conf-profile.serving.scaled" .) "true" -}}
minReplicas: {{ (index (index . 0).Values.serving (index . 1)).replicas }}
{{- end }}
{{- end }}

{{/* A checksum starts new transformers when files change that they read at their start. */}}
{{- define "conf-profile.serving.podAnnotations" -}}
{{- $root := index . 0 -}}
serving.kserve.io/autoscalerClass: {{ ternary "external" "none" (eq (include "conf-profile.serving.scaled" .) "true") }}
{{- if eq (index . 1) "transformer" }}
checksum/settings: {{ include "conf-profile.serving.settings" $root | sha256sum }}
{{- if $root.Values.features.enabled }}
checksum/features: {{ include "conf-profile.features.repository" $root | sha256sum }}
{{- end }}
{{- end }}
{{- with (index $root.Values.serving (index . 1)).podAnnotations }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* One for the whole cluster: the namespace keeps two releases of the same name apart. */}}
{{- define "conf-profile.storageContainer.name" -}}
{{- list .Release.Namespace (include "conf-profile.fullname" .) | compact | join "-" }}
{{- end }}

{{- define "conf-profile.storageContainer.regex" -}}
{{- printf "^%s(@.+)?$" (include "conf-profile.model.base" . | regexQuoteMeta) }}
{{- end }}

{{/* That no other release of the cluster fetches this model: KServe would take either of two. */}}
{{- define "conf-profile.checks.storageContainer" -}}
{{- if .Values.serving.storageContainer.create }}
{{- $own := include "conf-profile.storageContainer.name" . }}
{{- $regex := include "conf-profile.storageContainer.regex" . }}
{{- range (lookup "serving.kserve.io/v1alpha1" "ClusterStorageContainer" "" "").items }}
{{- $other := .metadata.name }}
{{- range .spec.supportedUriFormats }}
{{- if and (ne $other $own) (eq (default "" .regex) $regex) }}
{{- fail (printf "serving.storageContainer.create: ClusterStorageContainer %s of another release fetches %s in this cluster already, and KServe would take either: set serving.storageContainer.create=false to use that one, or give this release an s3.bucket or s3.model of its own" $other (include "conf-profile.model.base" $)) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
