{{/* Names. Objects are called FULLNAME or FULLNAME-PART. */}}
{{- define "conf-profile.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "conf-profile.fullname" -}}
{{- $name := include "conf-profile.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* Labels that never change. KServe copies an InferenceService's labels to its pods: one that changes starts them anew. */}}
{{- define "conf-profile.stableLabels" -}}
app.kubernetes.io/name: {{ include "conf-profile.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "conf-profile.labels" -}}
{{ include "conf-profile.stableLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{/* An image's fields of a container: (list . "serving"). */}}
{{- define "conf-profile.image" -}}
{{- $root := index . 0 }}
{{- $image := index $root.Values.images (index . 1) -}}
image: {{ printf "%s:%s" $image.repository (default $root.Chart.AppVersion $image.tag) }}
imagePullPolicy: {{ $image.pullPolicy }}
{{- end }}

{{/* What Pod Security `restricted` asks of a pod, and of a container. */}}
{{- define "conf-profile.podSecurityContext" -}}
runAsNonRoot: true
{{- with .Values.podSecurity.user }}
runAsUser: {{ int64 . }}
{{- end }}
{{- with .Values.podSecurity.group }}
runAsGroup: {{ int64 . }}
fsGroup: {{ int64 . }}
fsGroupChangePolicy: OnRootMismatch
{{- end }}
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "conf-profile.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{/* A home for libraries that want one: the root file system is read-only, and a numeric user has no name. */}}
{{- define "conf-profile.env.writable" -}}
- name: HOME
  value: /tmp
- name: XDG_CACHE_HOME
  value: /tmp/cache
- name: USER
  value: conf-profile
{{- end }}

{{/* Pod fields of a node pool: (list . "cpu"). */}}
{{- define "conf-profile.pool" -}}
{{- $pool := index (index . 0).Values.nodePools (index . 1) -}}
{{- with $pool.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $pool.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "conf-profile.pullSecrets" -}}
{{- with .Values.imagePullSecrets -}}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Name of a service account: (list . .Values.serving.serviceAccount "part"). */}}
{{- define "conf-profile.serviceAccountName" -}}
{{- $root := index . 0 }}
{{- $account := index . 1 }}
{{- $own := printf "%s-%s" (include "conf-profile.fullname" $root) (index . 2) }}
{{- default (ternary $own "default" $account.create) $account.name }}
{{- end }}

{{/*
Environment, mount and volume for the object store. AWS_ENDPOINT_URL would send STS's AssumeRoleWithWebIdentity there,
too.
*/}}
{{- define "conf-profile.s3.env" -}}
{{- include "conf-profile.s3.env.endpoint" . | trim }}
{{- with include "conf-profile.s3.region" . }}
- name: AWS_REGION
  value: {{ . }}
- name: AWS_DEFAULT_REGION
  value: {{ . }}
{{- end }}
{{- with .Values.s3.existingSecret }}
- name: AWS_ACCESS_KEY_ID
  valueFrom:
    secretKeyRef: {name: {{ . }}, key: {{ $.Values.s3.secretKeys.accessKeyId }}}
- name: AWS_SECRET_ACCESS_KEY
  valueFrom:
    secretKeyRef: {name: {{ . }}, key: {{ $.Values.s3.secretKeys.secretAccessKey }}}
{{- end }}
{{- include "conf-profile.s3.env.uploads" . }}
{{- include "conf-profile.s3.env.ca" . }}
{{- end }}

{{/* Amazon's own, which has no address here, is asked in the region of the pod's role. */}}
{{- define "conf-profile.s3.region" -}}
{{- .Values.s3.region | default (ternary "us-east-1" "" (ne .Values.s3.endpoint "")) }}
{{- end }}

{{/* Without an address boto3 finds Amazon's own. */}}
{{- define "conf-profile.s3.env.endpoint" }}
{{- if .Values.s3.endpoint }}
- name: AWS_ENDPOINT_URL_S3
  value: {{ .Values.s3.endpoint }}
{{- else }}
- name: CONF_PROFILE_S3_ENDPOINT
  value: aws
{{- end }}
{{- end }}

{{- define "conf-profile.s3.env.uploads" }}
{{- with .Values.s3.encryption }}
- name: CONF_PROFILE_S3_ENCRYPTION
  value: {{ . }}
{{- end }}
{{- with .Values.s3.checksums }}
- name: AWS_REQUEST_CHECKSUM_CALCULATION
  value: {{ . }}
{{- end }}
{{- end }}

{{- define "conf-profile.s3.env.ca" }}
{{- if .Values.s3.caConfigMap }}
- name: AWS_CA_BUNDLE
  value: /etc/s3-ca/{{ .Values.s3.caKey }}
{{- end }}
{{- end }}

{{- define "conf-profile.s3.volumeMounts" -}}
{{- if .Values.s3.caConfigMap -}}
- name: s3-ca
  mountPath: /etc/s3-ca
  readOnly: true
{{- end }}
{{- end }}

{{- define "conf-profile.s3.volumes" -}}
{{- with .Values.s3.caConfigMap -}}
- name: s3-ca
  configMap:
    name: {{ . }}
{{- end }}
{{- end }}

{{/* Spec of a volume claim, from a `persistence` of the values. */}}
{{- define "conf-profile.claim" -}}
accessModes: [{{ .accessMode }}]
{{- with .storageClass }}
storageClassName: {{ . }}
{{- end }}
resources:
  requests:
    storage: {{ .size }}
{{- end }}
