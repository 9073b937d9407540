{{- define "conf-profile.pipelines.labels" -}}
{{ include "conf-profile.labels" . }}
app.kubernetes.io/component: pipelines
{{- end }}

{{- define "conf-profile.pipelines.namespace" -}}
{{- default .Release.Namespace .Values.pipelines.namespace }}
{{- end }}

{{- define "conf-profile.pipelines.runner" -}}
{{- include "conf-profile.serviceAccountName" (list . .Values.pipelines.serviceAccount "runner") }}
{{- end }}

{{/* The Secret with the keys of the artefacts' store. */}}
{{- define "conf-profile.pipelines.launcherSecret" -}}
{{- $launcher := .Values.pipelines.launcher }}
{{- $launcher.secret | default (ternary .Values.pipelines.s3Secret.name "mlpipeline-minio-artifact" $launcher.create) }}
{{- end }}

{{/* The object store as the steps see it: the Secret is one of the runs' namespace. */}}
{{- define "conf-profile.pipelines.s3.env" -}}
{{- $secret := .Values.pipelines.s3Secret -}}
{{- range $variable, $key := dict "AWS_ENDPOINT_URL_S3" $secret.endpointKey "AWS_DEFAULT_REGION" $secret.regionKey "AWS_ACCESS_KEY_ID" $secret.accessKeyKey "AWS_SECRET_ACCESS_KEY" $secret.secretKeyKey }}
{{- if and $secret.name $key }}
- name: {{ $variable }}
  valueFrom:
    secretKeyRef: {name: {{ $secret.name }}, key: {{ $key }}}
{{- end }}
{{- end }}
{{- if not (and $secret.name $secret.endpointKey) }}
{{- include "conf-profile.s3.env.endpoint" . }}
{{- end }}
{{- if not (and $secret.name $secret.regionKey) }}
{{- with include "conf-profile.s3.region" . }}
- name: AWS_DEFAULT_REGION
  value: {{ . }}
{{- end }}
{{- end }}
{{- include "conf-profile.s3.env.uploads" . }}
{{- include "conf-profile.s3.env.ca" . }}
{{- end }}

{{/* Where KFP keeps artefacts, as far as this release knows: its own setting, else the root that it gives KFP. */}}
{{- define "conf-profile.pipelines.artefacts" -}}
{{- $launcher := .Values.pipelines.launcher }}
{{- with .Values.pipelines.retention.artefacts }}
{{- . }}
{{- else }}
{{- if $launcher.create }}
{{- default (printf "s3://%s/pipelines" .Values.s3.bucket) $launcher.root }}
{{- end }}
{{- end }}
{{- end }}

{{/* The pod that lets users' rows expire: (list . "apply") gives the bucket rules, (list . "sweep") deletes. */}}
{{- define "conf-profile.pipelines.retentionPod" -}}
{{- $root := index . 0 -}}
{{- $retention := $root.Values.pipelines.retention -}}
{{- $secret := $retention.artefactsSecret -}}
{{- $values := $root.Values -}}
{{- if $retention.secret.name -}}
{{- $keys := dict "endpointKey" "" "regionKey" "" "name" $retention.secret.name -}}
{{- $keys = set $keys "accessKeyKey" $retention.secret.accessKeyKey -}}
{{- $keys = set $keys "secretKeyKey" $retention.secret.secretKeyKey -}}
{{- $values = dict "s3" $values.s3 "pipelines" (dict "s3Secret" $keys) -}}
{{- end -}}
metadata:
  labels:
    {{- include "conf-profile.stableLabels" $root | nindent 4 }}
    app.kubernetes.io/component: retention
spec:
  restartPolicy: Never
  serviceAccountName: {{ include "conf-profile.pipelines.runner" $root }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  securityContext:
    {{- include "conf-profile.podSecurityContext" $root | nindent 4 }}
  {{- with include "conf-profile.pullSecrets" $root }}
  {{- . | nindent 2 }}
  {{- end }}
  containers:
    - name: retention
      {{- include "conf-profile.image" (list $root "training") | nindent 6 }}
      command: [python, -m, conf_profile, retention, {{ index . 1 }}]
      args:
        - --days={{ int $root.Values.pipelines.retentionDays }}
        - --bucket={{ $root.Values.s3.bucket }}
        {{- with include "conf-profile.pipelines.artefacts" $root }}
        - {{ printf "--artefacts=%s" . | quote }}
        {{- end }}
      env:
        {{- include "conf-profile.env.writable" $root | nindent 8 }}
        {{- include "conf-profile.pipelines.s3.env" (dict "Values" $values) | trim | nindent 8 }}
        {{- if $secret.name }}
        - name: CONF_PROFILE_ARTEFACTS_ACCESS_KEY_ID
          valueFrom:
            secretKeyRef: {name: {{ $secret.name }}, key: {{ $secret.accessKeyKey }}}
        - name: CONF_PROFILE_ARTEFACTS_SECRET_ACCESS_KEY
          valueFrom:
            secretKeyRef: {name: {{ $secret.name }}, key: {{ $secret.secretKeyKey }}}
        {{- end }}
      terminationMessagePolicy: FallbackToLogsOnError
      resources:
        {{- toYaml $retention.resources | nindent 8 }}
      securityContext:
        {{- include "conf-profile.securityContext" $root | nindent 8 }}
      volumeMounts:
        - {name: tmp, mountPath: /tmp}
        {{- with include "conf-profile.s3.volumeMounts" $root }}
        {{- . | nindent 8 }}
        {{- end }}
  volumes:
    - name: tmp
      emptyDir: {}
    {{- with include "conf-profile.s3.volumes" $root }}
    {{- . | nindent 4 }}
    {{- end }}
{{- end }}

{{- define "conf-profile.checks.pipelines" -}}
{{- $pipelines := .Values.pipelines }}
{{- if and $pipelines.retention.cronJob.enabled (not $pipelines.retentionDays) }}
{{- fail "pipelines.retention.cronJob.enabled is true and pipelines.retentionDays is 0, which keeps everything: say after how many days users' rows are deleted" }}
{{- end }}
{{- if and $pipelines.retention.cronJob.enabled $pipelines.labelsSecret.name (not $pipelines.retention.secret.name) }}
{{- fail "pipelines.retention.cronJob.enabled: with pipelines.labelsSecret the keys of pipelines.s3Secret do not reach truth/, and nothing there would be deleted: name in pipelines.retention.secret a Secret with keys that may list and delete" }}
{{- end }}
{{- if and $pipelines.retention.removeRules $pipelines.retentionDays }}
{{- fail "pipelines.retention.removeRules takes the lifecycle rules away, and pipelines.retentionDays needs them: set one of the two to its default" }}
{{- end }}
{{- range $name, $step := $pipelines.steps }}
{{- include "conf-profile.checks.pool" (list $ (printf "pipelines.steps.%s" $name) (default "cpu" $step.pool) (default 0 $step.gpus)) }}
{{- end }}
{{- if and (not $pipelines.s3Secret.name) (not .Values.s3.workloadIdentity) }}
{{- fail "pipelines.s3Secret.name is empty and s3.workloadIdentity is false: name the Secret of the runs' namespace that holds the registry's keys (often the one of s3.existingSecret)" }}
{{- end }}
{{- $namespace := include "conf-profile.pipelines.namespace" . }}
{{- $certificates := .Values.s3.caConfigMap }}
{{- if and $certificates .Values.s3.checkSecret (lookup "v1" "ConfigMap" $namespace "kube-root-ca.crt") (not (lookup "v1" "ConfigMap" $namespace $certificates)) }}
{{- fail (printf "s3.caConfigMap: there is no ConfigMap %s in the runs' namespace %s: make it with `kubectl create configmap %s -n %s --from-file=%s` (s3.checkSecret=false leaves this check out)" $certificates $namespace $certificates $namespace .Values.s3.caKey) }}
{{- end }}
{{- if and $pipelines.upload.enabled (not $pipelines.upload.endpoint) }}
{{- fail "pipelines.upload.enabled is true and pipelines.upload.endpoint is empty: give the address of KFP's API, e.g. http://ml-pipeline.kubeflow:8888" }}
{{- end }}
{{- if and $pipelines.schedule.enabled (not $pipelines.upload.enabled) }}
{{- fail "pipelines.schedule.enabled needs pipelines.upload.enabled: a recurring run is made from what was uploaded" }}
{{- end }}
{{- if and $pipelines.schedule.enabled (not $pipelines.upload.dataUri) }}
{{- fail "pipelines.schedule.enabled is true and pipelines.upload.dataUri is empty: say where the tables are that each run reads, e.g. s3://BUCKET/tables" }}
{{- end }}
{{- end }}
