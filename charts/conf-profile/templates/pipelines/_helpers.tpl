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
- name: AWS_ENDPOINT_URL_S3
  value: {{ .Values.s3.endpoint }}
{{- end }}
{{- if not (and $secret.name $secret.regionKey) }}
- name: AWS_DEFAULT_REGION
  value: {{ .Values.s3.region }}
{{- end }}
{{- include "conf-profile.s3.env.ca" . }}
{{- end }}

{{- define "conf-profile.checks.pipelines" -}}
{{- $pipelines := .Values.pipelines }}
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
