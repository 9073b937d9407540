{{/* Which release an object belongs to, as an annotation: what a job before the next installation goes by. */}}
{{- define "conf-profile.release" -}}
{{ .Release.Namespace }}/{{ .Release.Name }}
{{- end }}

{{- define "conf-profile.prepare.name" -}}
{{ include "conf-profile.fullname" . }}-prepare
{{- end }}

{{- define "conf-profile.prepare.labels" -}}
{{ include "conf-profile.labels" . }}
app.kubernetes.io/component: prepare
{{- end }}

{{/*
Annotations of a hook: (list . weight). Argo CD would read Helm's; its own make it certain whatever hooks stand beside it.
One that failed stays, with its log, until the next one.
*/}}
{{- define "conf-profile.prepare.hook" -}}
helm.sh/hook: pre-install,pre-upgrade
helm.sh/hook-weight: {{ index . 1 | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
argocd.argoproj.io/hook: PreSync
{{- end }}

{{/* The Secret whose password the job makes; empty: none. */}}
{{- define "conf-profile.prepare.secret" -}}
{{- if and .Values.features.enabled .Values.features.onlineStore.inside.enabled (not .Values.features.onlineStore.existingSecret) }}
{{- include "conf-profile.features.onlineStore.secret" . }}
{{- end }}
{{- end }}

{{- define "conf-profile.prepare.container" -}}
{{- if and .Values.serving.enabled .Values.serving.storageContainer.create }}true{{ end }}
{{- end }}

{{/*
One object for each name that two releases could share, as {namespace: {resource: [names]}}: it tells whose the others are.
*/}}
{{- define "conf-profile.prepare.objects" -}}
{{- $name := include "conf-profile.fullname" . }}
{{- $own := list }}
{{- if .Values.serving.enabled }}
{{- $own = append $own (printf "%s-serving" $name) }}
{{- end }}
{{- if .Values.features.enabled }}
{{- $own = append $own (printf "%s-features" $name) }}
{{- end }}
{{- $found := dict }}
{{- if $own }}
{{- $_ := set $found .Release.Namespace (dict "configmaps" $own) }}
{{- end }}
{{- if .Values.pipelines.enabled }}
{{- $namespace := include "conf-profile.pipelines.namespace" . }}
{{- $there := default dict (get $found $namespace) }}
{{- $maps := default list $there.configmaps }}
{{- if .Values.pipelines.upload.enabled }}
{{- $maps = append $maps (printf "%s-pipeline" $name) }}
{{- end }}
{{- if .Values.pipelines.launcher.create }}
{{- $maps = append $maps "kfp-launcher" }}
{{- end }}
{{- if $maps }}
{{- $_ := set $there "configmaps" $maps }}
{{- end }}
{{- if .Values.pipelines.serviceAccount.create }}
{{- $_ := set $there "serviceaccounts" (list (include "conf-profile.pipelines.runner" .)) }}
{{- end }}
{{- if $there }}
{{- $_ := set $found $namespace $there }}
{{- end }}
{{- end }}
{{- toJson $found }}
{{- end }}

{{/* What the job is told; `files/prepare.py` explains it. */}}
{{- define "conf-profile.prepare.task" -}}
{{- $paths := list }}
{{- range $namespace, $resources := include "conf-profile.prepare.objects" . | fromJson }}
{{- range $resource, $names := $resources }}
{{- range $names }}
{{- $paths = append $paths (printf "/api/v1/namespaces/%s/%s/%s" $namespace $resource .) }}
{{- end }}
{{- end }}
{{- end }}
{{- $container := dict }}
{{- if include "conf-profile.prepare.container" . }}
{{- $container = dict "name" (include "conf-profile.storageContainer.name" .) "regex" (include "conf-profile.storageContainer.regex" .) "model" (include "conf-profile.model.base" .) }}
{{- end }}
{{- $password := dict }}
{{- with include "conf-profile.prepare.secret" . }}
{{- $labels := dict "app.kubernetes.io/name" (include "conf-profile.name" $) "app.kubernetes.io/component" "online-store" }}
{{- $password = dict "namespace" $.Release.Namespace "name" . "key" $.Values.features.onlineStore.passwordKey "labels" $labels }}
{{- end }}
{{- dict "release" (include "conf-profile.release" .) "objects" $paths "container" $container "password" $password "credentials" "/var/run/secrets/conf-profile" | toJson }}
{{- end }}

{{- define "conf-profile.checks.prepare" -}}
{{- if and (not .Values.prepare.enabled) (include "conf-profile.prepare.secret" .) }}
{{- fail "prepare.enabled is false and features.onlineStore.existingSecret is empty: nobody would make the online store's password; name a Secret that holds it" }}
{{- end }}
{{- include "conf-profile.checks.pool" (list . "prepare" .Values.prepare.pool 0) }}
{{- end }}
