{{- define "conf-profile.monitoring.labels" -}}
{{ include "conf-profile.labels" . }}
app.kubernetes.io/component: monitoring
{{- with .Values.monitoring.labels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "conf-profile.checks.monitoring" -}}
{{- if not .Values.serving.enabled }}
{{- range $key := list "serviceMonitor" "alerts" "dashboard" }}
{{- if (index $.Values.monitoring $key).enabled }}
{{- fail (printf "monitoring.%s.enabled needs serving.enabled: there is nothing else to watch" $key) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
