{{/* Egress rules that several policies share. */}}
{{- define "conf-profile.network.dns" -}}
- ports:
    - {port: 53, protocol: UDP}
    - {port: 53, protocol: TCP}
{{- end }}

{{- define "conf-profile.network.s3" -}}
{{- $url := urlParse .Values.s3.endpoint }}
{{- $named := regexFind ":[0-9]+$" $url.host | trimPrefix ":" }}
{{- $port := default (ternary 80 443 (eq $url.scheme "http")) $named | int -}}
- ports:
    {{- range default (list $port) .Values.networkPolicy.s3Ports }}
    - {port: {{ int . }}, protocol: TCP}
    {{- end }}
  {{- with .Values.networkPolicy.s3Peers }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}

{{- define "conf-profile.network.onlineStore" -}}
{{- if .Values.features.onlineStore.inside.enabled -}}
- to:
    - podSelector:
        matchLabels:
          {{- include "conf-profile.features.selector" (list . "online-store") | nindent 10 }}
  ports:
    - {port: 6379, protocol: TCP}
{{- else }}
- ports:
    - {port: {{ splitList ":" .Values.features.onlineStore.address | last | int }}, protocol: TCP}
{{- end }}
{{- end }}
