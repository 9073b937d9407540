{{- define "conf-profile.features.labels" -}}
{{ include "conf-profile.labels" (index . 0) }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{/* Labels of the pods of a part: (list . "online-store"). */}}
{{- define "conf-profile.features.selector" -}}
app.kubernetes.io/name: {{ include "conf-profile.name" (index . 0) }}
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "conf-profile.features.podLabels" -}}
{{ include "conf-profile.stableLabels" (index . 0) }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "conf-profile.features.onlineStore.address" -}}
{{- $store := .Values.features.onlineStore }}
{{- if $store.inside.enabled }}
{{- include "conf-profile.fullname" . }}-online-store.{{ .Release.Namespace }}:6379
{{- else }}
{{- $store.address }}
{{- end }}
{{- end }}

{{- define "conf-profile.features.onlineStore.secret" -}}
{{- $store := .Values.features.onlineStore }}
{{- $store.existingSecret | default (ternary (printf "%s-online-store" (include "conf-profile.fullname" .)) "" $store.inside.enabled) }}
{{- end }}

{{/* Feast fills ${REDIS_PASSWORD} in when it reads feature_store.yaml. */}}
{{- define "conf-profile.features.onlineStore.env" -}}
{{- with include "conf-profile.features.onlineStore.secret" . -}}
- name: REDIS_PASSWORD
  valueFrom:
    secretKeyRef: {name: {{ . }}, key: {{ $.Values.features.onlineStore.passwordKey }}}
{{- end }}
{{- end }}

{{/*
The Feast repository of a pod: a folder of its own (Feast keeps locks in it), or the shared volume of the inferred tags,
with the ConfigMap's file in it. The volumes: (list . "claim"), the claim empty for a folder of its own.
*/}}
{{- define "conf-profile.features.volumeMounts" -}}
- {name: features, mountPath: /var/lib/conf-profile/features}
- {name: feature-store, mountPath: /var/lib/conf-profile/features/feature_store.yaml, subPath: feature_store.yaml, readOnly: true}
{{- end }}

{{- define "conf-profile.features.volumes" -}}
- name: features
  {{- with index . 1 }}
  persistentVolumeClaim:
    claimName: {{ . }}
  {{- else }}
  emptyDir: {}
  {{- end }}
- name: feature-store
  configMap:
    name: {{ include "conf-profile.fullname" (index . 0) }}-features
{{- end }}

{{/* The claim with inferred tags, if any. One of somebody's own keeps its rows when write-back is turned off. */}}
{{- define "conf-profile.features.inferredClaim" -}}
{{- $writeBack := .Values.serving.writeBack }}
{{- $made := ternary (printf "%s-inferred" (include "conf-profile.fullname" .)) "" (and .Values.serving.enabled $writeBack.enabled) }}
{{- default $made $writeBack.persistence.existingClaim }}
{{- end }}

{{/*
The pod of a job of the serving image: (dict "root" . "part" "materialise" "command" (list ...) "resources" ...), and
"claim" for one that works on the inferred tags.
*/}}
{{- define "conf-profile.features.jobPod" -}}
{{- $root := .root -}}
metadata:
  labels:
    {{- include "conf-profile.features.podLabels" (list $root .part) | nindent 4 }}
spec:
  restartPolicy: Never
  serviceAccountName: {{ include "conf-profile.serviceAccountName" (list $root $root.Values.features.serviceAccount "features") }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  securityContext:
    {{- include "conf-profile.podSecurityContext" $root | nindent 4 }}
  {{- with include "conf-profile.pullSecrets" $root }}
  {{- . | nindent 2 }}
  {{- end }}
  {{- with include "conf-profile.pool" (list $root $root.Values.features.pool) }}
  {{- . | nindent 2 }}
  {{- end }}
  containers:
    - name: {{ .part }}
      {{- include "conf-profile.image" (list $root "serving") | nindent 6 }}
      command:
        {{- toYaml .command | nindent 8 }}
      env:
        {{- include "conf-profile.env.writable" $root | nindent 8 }}
        {{- include "conf-profile.s3.env" $root | nindent 8 }}
        - name: CONF_PROFILE_BEHAVIOUR
          value: {{ include "conf-profile.features.source" (list $root "behaviour") }}
        - name: CONF_PROFILE_DEMOGRAPHICS
          value: {{ include "conf-profile.features.source" (list $root "demographics") }}
        {{- if $root.Values.features.task }}
        - {name: CONF_PROFILE_TASK, value: /var/lib/conf-profile/features/task.yaml}
        {{- end }}
        {{- with include "conf-profile.features.onlineStore.env" $root }}
        {{- . | nindent 8 }}
        {{- end }}
      terminationMessagePolicy: FallbackToLogsOnError
      resources:
        {{- toYaml .resources | nindent 8 }}
      securityContext:
        {{- include "conf-profile.securityContext" $root | nindent 8 }}
      volumeMounts:
        - {name: tmp, mountPath: /tmp}
        {{- include "conf-profile.features.volumeMounts" $root | nindent 8 }}
        {{- if $root.Values.features.task }}
        - {name: feature-store, mountPath: /var/lib/conf-profile/features/task.yaml, subPath: task.yaml, readOnly: true}
        {{- end }}
        {{- with include "conf-profile.s3.volumeMounts" $root }}
        {{- . | nindent 8 }}
        {{- end }}
        {{- with .volumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
  volumes:
    - name: tmp
      emptyDir: {}
    {{- include "conf-profile.features.volumes" (list $root .claim) | nindent 4 }}
    {{- with include "conf-profile.s3.volumes" $root }}
    {{- . | nindent 4 }}
    {{- end }}
    {{- with .volumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end }}

{{- define "conf-profile.features.source" -}}
{{- $root := index . 0 }}
{{- default (printf "s3://%s/tables/%s.parquet" $root.Values.s3.bucket (index . 1)) (index $root.Values.features.sources (index . 1)) }}
{{- end }}

{{- define "conf-profile.checks.features" -}}
{{- $store := .Values.features.onlineStore }}
{{- include "conf-profile.checks.pool" (list . "features" .Values.features.pool 0) }}
{{- if and $store.address $store.inside.enabled }}
{{- fail "features.onlineStore.address is given and features.onlineStore.inside.enabled is true: set inside.enabled to false to use your own" }}
{{- end }}
{{- if not (or $store.address $store.inside.enabled) }}
{{- fail "features.onlineStore.address is empty and features.onlineStore.inside.enabled is false: give the address of a Redis, or let the chart run one" }}
{{- end }}
{{- if and $store.tls $store.inside.enabled }}
{{- fail "features.onlineStore.tls is for a server of your own (features.onlineStore.address); the one inside has none" }}
{{- end }}
{{- end }}
